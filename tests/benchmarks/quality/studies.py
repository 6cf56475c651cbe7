"""Every study there is, by name."""

from tests.benchmarks.quality import simulators
from tests.benchmarks.quality.study import Study

ALL: tuple[Study, ...] = (simulators.STUDY,)

STUDIES = {study.name: study for study in ALL}
