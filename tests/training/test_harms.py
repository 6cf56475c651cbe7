"""Which events count as harm, and how many of them follow a decision."""

from pathlib import Path

import numpy as np

from engine.records import HOLD
from engine.spec import Spec
from tests.training.small_log import TEXT, random_log, write
from training.harms import harms_of
from training.journeys import Journeys
from training.logs import read_log


def test_each_kind_that_the_spec_marks_is_counted_after_each_decision(tmp_path: Path) -> None:
    log = str(write(random_log(0, customers=60, decisions=600, events=1500), tmp_path))
    marked = TEXT.replace("[events.view]", "[events.view]\ncomplaint = true")
    spec = Spec.parse(marked)
    journeys = Journeys.of(spec, read_log(spec, log))
    found = harms_of(spec, journeys)
    assert list(found) == ["contacts", "withdrawals", "complaints", "endings"]
    view = [kind.name for kind in spec.kinds].index("view")
    assert found["complaints"].sum() > 0
    np.testing.assert_array_equal(found["complaints"], journeys.counts[:, view])
    np.testing.assert_array_equal(found["contacts"], journeys.action != HOLD)


def test_what_the_spec_has_no_kinds_for_is_left_out(tmp_path: Path) -> None:
    spec = Spec.parse(TEXT)
    log = str(write(random_log(0, customers=60, decisions=600, events=1500), tmp_path))
    assert "complaints" not in harms_of(spec, Journeys.of(spec, read_log(spec, log)))
