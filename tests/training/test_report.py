import io

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle
from rich.console import Console

from tests.training.small_log import SPEC
from training import heat_maps, report
from training.heat_maps import Cell


def shares(row: int) -> np.ndarray:
    share = np.zeros(len(SPEC.catalogue))
    share[row] = 1.0
    return share


def test_the_learning_curve_shows_its_lines_reference_and_units() -> None:
    lines = [report.Line("a", [0, 1000], [1.0, 2.0]), report.Line("b", [0, 1000], [1.5, 1.0])]
    (axes,) = report.learning_curve(lines, ("logged", 1.2), "decisions", "EUR per journey").axes
    assert [line.get_label() for line in axes.lines] == ["a", "b", "logged"]
    assert axes.get_ylabel() == "EUR per journey"
    assert axes.xaxis.get_major_formatter()(200_000) == "200k"


def test_calibration_draws_each_outcome_with_its_interval() -> None:
    table = report.Reliability(np.array([0.1, 0.2]), np.array([0.12, 0.3]), np.array([100.0, 1000.0]))
    figure = report.calibration({"order": table, "click": table, "a": table, "b": table, "c": table})
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == ["order", "click", "a", "b", "c"]
    (bars,) = [c for c in shown[0].collections if isinstance(c, LineCollection)]
    first, second = (segment[:, 1] for segment in bars.get_segments())
    assert first == pytest.approx([0.070, 0.198], abs=1e-3)  # Wilson's interval of 12 in 100
    assert np.ptp(second) < np.ptp(first)


def test_estimates_put_every_method_beside_the_truth() -> None:
    rows = [
        report.Row("ppo", "DR", 5.0, 4.0, 6.5, true=5.5),
        report.Row("ppo", "WIS", 4.5, 2.0, 7.0, true=5.5),
        report.Row("hold", "DR", 3.0, 2.5, 3.5),
    ]
    figure = report.estimates(rows, "EUR", logged=4.0)
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ppo", "hold"]
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"DR", "WIS", "true value", "logged"}
    spans = [segment[:, 0].tolist() for c in axes.collections for segment in getattr(c, "get_segments", list)()]
    assert [4.0, 6.5] in spans
    assert [5.5, 5.5] in spans
    assert "EUR per journey" in axes.get_xlabel()


def test_the_action_mix_adds_up_by_channel_timing_and_content() -> None:
    row = SPEC.catalogue.row("email", "offer", "evening")
    figure = heat_maps.action_mix(SPEC.catalogue, {"all": shares(row), "none": shares(0)})
    drawn = {axes.get_title(): np.asarray(axes.images[0].get_array()) for axes in figure.axes}
    assert drawn["by channel"].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert drawn["by timing"].tolist() == [[0, 0, 1], [1, 0, 0]]
    assert drawn["by content"].tolist() == [[0, 0, 1], [1, 0, 0]]


def test_gains_by_segment_are_told_with_their_intervals_and_harm_is_framed() -> None:
    cells = {
        "ppo": {"loyalty new": Cell(2.0, 1.0, 3.0), "loyalty loyal": Cell(-4.0, -6.0, -2.0, harmed=True)},
        "hold": {"loyalty new": Cell(None)},
    }
    (axes,) = heat_maps.gains(cells, "EUR").axes
    told = [text.get_text() for text in axes.texts]
    assert told == ["+2.0", "[1.0, 3.0]", "-4.0", "[-6.0, -2.0]", "no support", "no support"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["loyalty\nnew", "loyalty\nloyal"]
    (frame,) = axes.patches
    assert isinstance(frame, Rectangle)
    assert round(frame.get_x() + frame.get_width() / 2) == 1
    many = {"ppo": {f"place {i}": Cell(1.0) for i in range(heat_maps.MOST_SEGMENTS + 3)}}
    figure = heat_maps.gains(many, "")
    assert "3 more segments" in figure.get_suptitle()
    assert "segment, per journey" in figure.get_suptitle()


def test_tries_that_are_all_alike_are_not_drawn_as_if_they_differed() -> None:
    """Rounding filled the whole picture, with an offset of 1e-7 above it."""
    scores = [-0.217, -0.2170001, None]
    settings = {"learning_rate": [0.002, 0.0006, 0.0041]}
    figure = report.tries(scores, settings, -0.2170002, "gain at least, EUR per journey")
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert high - low > 0.004
        assert axes.get_ylim() == figure.axes[0].get_ylim()
    told = [figure.axes[1].xaxis.get_major_formatter()(tick, 0) for tick in (0.0005, 0.001, 0.002)]
    assert told == ["0.0005", "0.001", "0.002"]  # and not as powers, which ran into each other


def test_a_table_for_the_terminal_keeps_names_left_and_numbers_right() -> None:
    text = io.StringIO()
    table = report.candidates_table([("ppo", "5.10"), ("hold", "13.00")], ("name", "value"), "Title")
    Console(file=text, width=80).print(table)
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert lines == ["Title", "name value", "ppo   5.10", "hold 13.00"]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0038, "0.00380"), (14.0, "14.0"), (127.2, "127"), (1234.5, "1,234"), (-98765.4, "-98,765")]
)
def test_a_number_for_a_reader_has_three_digits_and_no_exponent(value: float, shown: str) -> None:
    assert report.figure(value) == shown
    assert report.figure(abs(value), sign=True) == "+" + shown.lstrip("-")


def test_a_margin_has_two_digits_and_nothing_is_just_nothing() -> None:
    assert [report.figure(x, digits=2) for x in (0.7134, 1.338, 2133.0, 0.0)] == ["0.71", "1.3", "2,133", "0"]
