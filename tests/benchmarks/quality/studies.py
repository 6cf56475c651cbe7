"""Every study there is, by name."""

from tests.benchmarks.quality import learners
from tests.benchmarks.quality.study import Study

ALL: tuple[Study, ...] = (learners.STUDY,)

STUDIES = {study.name: study for study in ALL}
