"""Every study there is, by name."""

from tests.benchmarks.quality.choices import CHOICES
from tests.benchmarks.quality.curves import CURVES
from tests.benchmarks.quality.judged import JUDGED
from tests.benchmarks.quality.learners import LEARNERS
from tests.benchmarks.quality.one_step import ONE_STEP
from tests.benchmarks.quality.peers import PEERS_STUDY
from tests.benchmarks.quality.promotions import PROMOTIONS
from tests.benchmarks.quality.real_data import REAL_DATA
from tests.benchmarks.quality.sequential import SEQUENTIAL
from tests.benchmarks.quality.simulators import SIMULATORS
from tests.benchmarks.quality.study import Study

ALL: tuple[Study, ...] = (
    CHOICES,
    CURVES,
    JUDGED,
    LEARNERS,
    ONE_STEP,
    PEERS_STUDY,
    PROMOTIONS,
    REAL_DATA,
    SEQUENTIAL,
    SIMULATORS,
)

STUDIES = {study.name: study for study in ALL}
