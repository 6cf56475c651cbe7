"""Every study there is, by name."""

from tests.benchmarks.quality.study import Study

ALL: tuple[Study, ...] = ()

STUDIES = {study.name: study for study in ALL}
