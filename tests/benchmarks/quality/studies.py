"""Every study there is, by name."""

from tests.benchmarks.quality.one_step import ONE_STEP
from tests.benchmarks.quality.study import Study

ALL: tuple[Study, ...] = (ONE_STEP,)

STUDIES = {study.name: study for study in ALL}
