"""How results look: matplotlib figures for MLflow and rich tables for the terminal. Only drawing; nothing is computed.

Colours are Okabe and Ito's (2008), which colour-blind readers can tell apart; shape or position always says the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from rich.table import Table

from engine.records import Floats

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"


@dataclass(frozen=True, slots=True)
class Row:
    """What one method says of one candidate, in the spec's currency per journey; `true` where the world is known."""

    candidate: str
    method: str
    value: float
    lower: float
    upper: float
    true: float | None = None


@dataclass(frozen=True, slots=True)
class Reliability:
    """Predicted chance and observed share of an outcome, by bins of the prediction [bins]; `count` decisions each."""

    predicted: Floats
    observed: Floats
    count: Floats


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a curve: its steps and values."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]


def learning_curve(lines: Sequence[Line], reference: tuple[str, float] | None, x: str, y: str) -> Figure:
    """Lines over training steps; `reference` (label, value) is drawn dashed across."""
    figure, (axes,) = _figure(1, (8.0, 4.5))
    for line, colour, marker in zip(lines, (BLUE, ORANGE, GREEN, RED), ("o", "s", "^", "D"), strict=False):
        every = max(1, len(line.steps) // 12)
        axes.plot(line.steps, line.values, color=colour, marker=marker, markevery=every, ms=5, lw=2, label=line.label)
    if reference:
        axes.axhline(reference[1], color=GREY, ls="--", lw=1.5, label=reference[0])
    axes.set(xlabel=x, ylabel=y)
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.legend(frameon=False)
    return figure


def calibration(outcomes: Mapping[str, Reliability]) -> Figure:
    """One panel per outcome: points on the diagonal are right, bars are 95 % Wilson intervals of the observed share."""
    columns = min(4, max(1, len(outcomes)))
    rows = -(-len(outcomes) // columns)
    figure, panels = _figure(rows * columns, (3.0 * columns, 3.1 * rows), columns)
    for axes, (name, table) in zip(panels, outcomes.items(), strict=False):
        low, high = _wilson(table.observed, table.count)
        top = float(max(table.predicted.max(initial=0.0), high.max(initial=0.0), 1e-4)) * 1.08
        axes.plot([0, top], [0, top], color=GREY, ls="--", lw=1)
        bars = np.stack([np.maximum(table.observed - low, 0.0), np.maximum(high - table.observed, 0.0)])
        axes.errorbar(table.predicted, table.observed, bars, fmt="o", ms=4, color=BLUE, ecolor=BLUE, elinewidth=1)
        axes.set(title=name, xlim=(0, top), ylim=(0, top), xlabel="predicted", ylabel="observed")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(_percent))
            axis.set_major_locator(MaxNLocator(4))
    for axes in panels[len(outcomes) :]:
        axes.set_visible(False)
    figure.suptitle("Chance of each outcome\nafter a decision, held-out customers", fontsize=11)
    return figure


@dataclass(frozen=True, slots=True)
class Course:
    """A rate in each part of the journey [p], held out and in the environment; error: of their difference. upto: the
    last decision of each part.
    """

    upto: Sequence[int]
    real: Floats
    simulated: Floats
    error: Floats


def courses(kinds: Mapping[str, Course]) -> Figure:
    """One panel per kind of event: events per decision in each part of the journey; bars are 95 % intervals of the
    difference, drawn around the environment.
    """
    columns = min(4, max(1, len(kinds)))
    rows = max(1, -(-len(kinds) // columns))
    figure, panels = _figure(rows * columns, (3.0 * columns, 2.7 * rows), columns)
    for axes, (name, course) in zip(panels, kinds.items(), strict=False):
        place = np.arange(len(course.upto))
        bars = 1.96 * course.error
        axes.errorbar(
            place, course.simulated, bars, fmt="s", ls="-", ms=4, color=ORANGE, capsize=2, label="environment"
        )
        axes.plot(place, course.real, marker="o", ls="--", ms=4, color=BLUE, label="held out")
        first = [1, *(u + 1 for u in course.upto[:-1])]
        labels = [f"{a}-{b}" if b > a else str(a) for a, b in zip(first, course.upto, strict=True)]
        axes.set_xticks(place, labels, fontsize=8)
        axes.set(title=name, ylim=(0.0, None), xlabel="decisions")
        axes.yaxis.set_major_locator(MaxNLocator(4))
    for axes in panels[len(kinds) :]:
        axes.set_visible(False)
    if kinds:
        panels[0].legend(frameon=False, fontsize=8)
        panels[0].set_ylabel("events per decision")
    figure.suptitle("Events over the journey,\nheld-out customers", fontsize=11)
    return figure


def estimates(rows: Sequence[Row], currency: str, logged: float | None = None) -> Figure:
    """Candidates from top to bottom, a bar per method with its interval; a black line is the true value where known."""
    names = list(dict.fromkeys(r.candidate for r in rows))
    methods = list(dict.fromkeys(r.method for r in rows))
    figure, (axes,) = _figure(1, (8.5, 1.4 + (0.25 + 0.15 * len(methods)) * len(names)))
    for m, (method, colour) in enumerate(zip(methods, (BLUE, ORANGE, GREEN, RED, GREY), strict=False)):
        shown = [r for r in rows if r.method == method]
        height = [names.index(r.candidate) + 0.7 * ((m + 0.5) / len(methods) - 0.5) for r in shown]
        value = np.array([r.value for r in shown])
        reach = np.abs(np.array([[r.lower, r.upper] for r in shown]).T - value)
        marker = "osv^X"[m % 5]
        axes.errorbar(value, height, xerr=reach, fmt=marker, ms=5, color=colour, capsize=3, label=method)
    known = {names.index(r.candidate): r.true for r in rows if r.true is not None}
    if known:
        place = np.array(list(known))
        axes.vlines(list(known.values()), place - 0.42, place + 0.42, color="black", lw=2.5, label="true value")
    for i in range(0, len(names), 2):
        axes.axhspan(i - 0.5, i + 0.5, color="#f4f4f4", zorder=0, lw=0)
    if logged is not None:
        axes.axvline(logged, color=GREY, ls="--", lw=1.5, label="logged")
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlabel(f"value, {per_journey(currency)} (bars: 95 % intervals)")
    axes.grid(visible=False, axis="y")
    figure.legend(frameon=False, loc="outside right upper")
    return figure


def tries(
    scores: Sequence[float | None], settings: Mapping[str, Sequence[float]], reference: float | None, y: str
) -> Figure:
    """Scores of tries in their order with the best so far, and over each setting; crosses at the foot have no score.
    `reference` is drawn dashed across.
    """
    figure, panels = _figure(1 + len(settings), (3.6 * (1 + len(settings)), 3.6), 1 + len(settings))
    known = np.array([np.nan if score is None else score for score in scores], float)
    foot = np.nanmin([*known, reference if reference is not None else np.nan, 0.0])
    number, lost = np.arange(1, len(known) + 1), np.isnan(known)
    for axes, (name, x) in zip(panels, {"try": number, **settings}.items(), strict=True):
        place = np.asarray(x)
        axes.plot(place[~lost], known[~lost], "o", color=BLUE, ms=5, label="try")
        if lost.any():
            axes.plot(place[lost], np.full(lost.sum(), foot), "x", color=RED, ms=6, label="the log cannot judge it")
        if reference is not None:
            axes.axhline(reference, color=GREY, ls="--", lw=1.5, label="before tuning")
        axes.set(xlabel=name, ylabel=y if axes is panels[0] else "")
        axes.ticklabel_format(axis="y", useOffset=False)
        if name != "try":
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.tick_params(axis="x", labelsize=8)
    _zoom(panels, [*known[~lost], *([foot] if lost.any() else []), *([] if reference is None else [reference])])
    if not np.isnan(known).all():
        panels[0].step(number, np.fmax.accumulate(known), where="post", color=GREEN, lw=1.5, label="best so far")
    panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def per_journey(currency: str) -> str:
    """The unit of values, also where the spec names no currency."""
    return f"{currency} per journey".strip()


def figure(value: float, digits: int = 3, sign: bool = False) -> str:
    """A number for a reader: this many significant digits, all before the point. sign: + as well as -."""
    plus = "+" if sign else ""
    if abs(value) >= 10**digits:
        return f"{value:{plus},.0f}"
    return f"{value:{plus}#.{digits}g}".rstrip(".") if value else "0"


def candidates_table(rows: Sequence[Sequence[str]], columns: Sequence[str], title: str) -> Table:
    """A table for the terminal: the first column is a name, the others are numbers as text."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, collapse_padding=True
    )
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _figure(panels: int, size: tuple[float, float], columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure without pyplot's global list of figures, with `panels` axes in rows of `columns`."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    found = figure.subplots(panels // columns, columns, squeeze=False)
    axes: list[Axes] = list(np.ravel(np.asarray(found)))
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(color="#e5e5e5", lw=0.8)
        each.set_axisbelow(True)
    return figure, axes


def _zoom(panels: Sequence[Axes], values: Sequence[float]) -> None:
    """One scale of values for all panels, never narrower than a hundredth of their size: nobody looks at rounding."""
    if values:
        low, high = min(values), max(values)
        room = max(0.08 * (high - low), 0.01 * max(abs(low), abs(high)), 1e-9)
        for axes in panels:
            axes.set_ylim(low - room, high + room)


def _wilson(share: Floats, count: Floats) -> tuple[Floats, Floats]:
    """Wilson's (1927) 95 % interval of shares."""
    z2 = 1.959964**2
    n = np.maximum(count, 1.0)
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * share * (1 - share) / n + z2**2 / (4 * n**2)) / (1 + z2 / n)
    return centre - half, centre + half


def _thousands(value: float, _: int | None = None) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"


def _percent(value: float, _: int | None = None) -> str:
    return f"{100 * value:.3g}%"
