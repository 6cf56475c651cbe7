"""Candidates from top to bottom, what is told of each from left to right, numbers in coloured cells. Only drawing."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from engine.catalogue import Catalogue
from engine.records import Floats
from training.report import figure, per_journey

MOST_SEGMENTS = 24
"""Columns that can still be read; the page of the evaluation has all."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a candidate gains in a segment, with its 95 % interval; None where there is no support. harmed: for certain,
    of all segments together.
    """

    gain: float | None
    lower: float | None = None
    upper: float | None = None
    harmed: bool = False


def action_mix(catalogue: Catalogue, shares: Mapping[str, Floats]) -> Figure:
    """Which share of its decisions each policy gives to each channel, timing and content; shares: name → Floats [n]."""
    names = list(shares)
    table = np.stack([shares[name] for name in names])
    groups = [
        ("channel", ["hold", *(c.name for c in catalogue.channels)], catalogue.channel),
        ("timing", ["hold", *(t.name for t in catalogue.timings)], catalogue.timing),
        ("content", ["hold", *(c.id for c in catalogue.contents)], catalogue.content),
    ]
    widths = [len(labels) for _, labels, _ in groups]
    figure = Figure(figsize=(min(22.0, 3.5 + 0.52 * sum(widths)), 1.9 + 0.45 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3, sharey=True, gridspec_kw={"width_ratios": widths})
    for axes, (title, labels, column) in zip(panels, groups, strict=True):
        share = np.stack([table[:, column == k - 1].sum(1) for k in range(len(labels))], axis=1)
        axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
        axes.set_title(f"by {title}", fontsize=11)
        axes.set_xticks(range(len(labels)), labels, rotation=50, ha="right", rotation_mode="anchor", fontsize=9)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(length=0)
        for (i, k), value in np.ndenumerate(share):
            if value >= 0.005:
                colour = "white" if value > 0.55 else "black"
                axes.text(k, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color=colour)
    figure.suptitle("Share of decisions, %", fontsize=12)
    return figure


def gains(rows: Mapping[str, Mapping[str, Cell]], currency: str) -> Figure:
    """Candidate → segment → gain over the log. Blue gains, orange loses, a black frame is harm for certain."""
    names, columns = list(rows), list(dict.fromkeys(s for row in rows.values() for s in row))
    left, columns = len(columns) - MOST_SEGMENTS, columns[:MOST_SEGMENTS]
    drawn = Figure(figsize=(2.6 + 0.95 * max(len(columns), 3), 1.6 + 0.5 * len(names)), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.subplots()
    cells = [[rows[name].get(column, Cell(None)) for column in columns] for name in names]
    table = np.array([[np.nan if c.gain is None else c.gain for c in row] for row in cells], float)
    known = table[~np.isnan(table)]
    top = float(np.abs(known).max()) if len(known) else 1.0
    axes.imshow(table, cmap="PuOr", vmin=-1.3 * top, vmax=1.3 * top, aspect="auto")
    for (i, k), value in np.ndenumerate(table):
        _write(axes, (i, k), cells[i][k], abs(value) > 0.8 * top)
    labels = [column.replace(" ", "\n", 1) for column in columns]
    axes.set_xticks(range(len(columns)), labels, rotation=50, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    more = f"; {left} more segments are in evaluation.md" if left > 0 else ""
    title = f"Gain over the log by segment, {per_journey(currency)} [95 %]{more}\nblack frame: harmed for certain"
    drawn.suptitle(title, fontsize=11)
    return drawn


def _write(axes: Axes, place: tuple[int, int], cell: Cell, dark: bool) -> None:
    """A cell's number, its interval below it, and a frame around harm."""
    i, k = place
    if cell.gain is None:
        axes.text(k, i, "no support", ha="center", va="center", fontsize=7, color="#888888")
        return
    colour = "white" if dark else "black"
    axes.text(k, i - 0.14, figure(cell.gain, digits=2, sign=True), ha="center", va="center", fontsize=9, color=colour)
    if cell.lower is not None and cell.upper is not None:
        span = f"[{figure(cell.lower, digits=2)}, {figure(cell.upper, digits=2)}]"
        axes.text(k, i + 0.22, span, ha="center", va="center", fontsize=6.5, color=colour)
    if cell.harmed:
        axes.add_patch(Rectangle((k - 0.48, i - 0.47), 0.96, 0.94, fill=False, edgecolor="black", lw=2.5))
