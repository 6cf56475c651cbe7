"""One journey, step by step: what was known, what was allowed, what was done, what happened, and why the reward.

A journey of a log and one that an environment made look the same here, so that they can be laid side by side.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from engine.clock import format_instant
from engine.records import DAY, HOLD, Action, EventColumns, Floats
from engine.spec import Spec
from envs.batch import Step
from training.journeys import Journeys

CHANNELS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8A7A00", "#444444")
"""Okabe and Ito's colours (2008), one a channel."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One decision of a journey and its window (now, until], epoch seconds.

    known: the context. allowed: how many of the catalogue's `actions` were. action: what was done; send_at: when it
    goes out, NaN for hold. propensity: NaN where it is unknown. happened: (kind, instant, value), in time. reward:
    what the window was worth, and `why`: (what, worth) that add up to it.
    """

    now: float
    until: float
    known: dict[str, object]
    allowed: int
    actions: int
    action: Action
    send_at: float
    propensity: float
    happened: tuple[tuple[str, float, float], ...]
    reward: float
    why: tuple[tuple[str, float], ...]


def of_log(spec: Spec, journeys: Journeys, customer: str) -> list[Scene]:
    """A logged journey. Raises ValueError for a customer that the journeys do not hold."""
    one = journeys.take(np.array([journeys.customer_ids.index(customer)]))
    sent = spec.catalogue.send_at_of(one.action, one.decided_at, one.zone)
    return [
        _scene(
            spec,
            (one.decided_at[i], one.until[i], sent[i], one.propensity[i]),
            (one.context[i], int(one.mask[i].sum()), int(one.action[i])),
            one.events.take(one.events.row == i),
        )
        for i in range(len(one))
    ]


def of_steps(spec: Spec, played: Iterable[tuple[Step, Floats]], journey: int) -> list[Scene]:
    """A journey of the replay that `envs.simulate.steps` played."""
    found = []
    for step, propensity in played:
        for i in np.flatnonzero(step.journey == journey):
            turn = step.turn
            found.append(
                _scene(
                    spec,
                    (turn.now[i], turn.until[i], turn.send_at[i], propensity[i]),
                    (turn.context[i], int(step.mask[i].sum()), int(turn.action[i])),
                    step.events.take(step.events.row == i),
                )
            )
    return found


def told(scenes: Sequence[Scene]) -> RenderableType:
    """The journey for a terminal, a block a decision."""
    blocks: list[RenderableType] = []
    contacts = events_before = 0
    for number, scene in enumerate(scenes, start=1):
        table = Table(show_header=False, box=None, padding=(0, 1))
        table.add_column(style="dim", width=8)
        table.add_column()
        context = "".join(f", {name} {_short(value)}" for name, value in scene.known.items())
        table.add_row("known", f"{contacts} contacts and {events_before} events so far{context}")
        table.add_row("allowed", f"{scene.allowed} of {scene.actions} actions")
        chance = "" if np.isnan(scene.propensity) else f", probability {scene.propensity:.3g}"
        table.add_row("done", Text(f"{scene.action}{chance}", style="bold"))
        events = "; ".join(f"{_clock(at - scene.now)} {kind}{_worth(value)}" for kind, at, value in scene.happened)
        table.add_row("happened", events or "nothing")
        why = " ".join(f"{worth:+.3g} {what}" for what, worth in scene.why)
        table.add_row("reward", f"{scene.reward:.3g}" + (f" = {why}" if why else ""))
        contacts, events_before = contacts + (not scene.action.is_hold), events_before + len(scene.happened)
        blocks += [Text(f"{number}. {format_instant(scene.now)[:16].replace('T', ' ')} UTC"), table]
    return Group(*blocks)


def timeline(spec: Spec, scenes: Sequence[Scene], title: str) -> Figure:
    """The journey over its days: what happened, what was done, what it was worth."""
    kinds = [k.name for k in spec.kinds if any(kind == k.name for s in scenes for kind, *_ in s.happened)]
    figure = Figure(figsize=(11.0, 4.0 + 0.24 * len(kinds)), layout="constrained")
    FigureCanvasAgg(figure)
    heights = [1.0 + 0.24 * len(kinds), 1.9, 1.3]
    above, middle, below = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    start = scenes[0].now
    _draw_events(above, kinds, scenes, start)
    _draw_actions(middle, spec, scenes, start)
    _draw_rewards(below, scenes, start)
    below.set_xlabel("days since the first decision")
    for axes in (above, middle, below):
        axes.spines[["top", "right"]].set_visible(False)
        for scene in scenes:
            axes.axvline((scene.now - start) / DAY, color="#e8e8e8", lw=0.8, zorder=0)
    figure.suptitle(title)
    return figure


def _scene(
    spec: Spec, times: tuple[float, float, float, float], what: tuple[Floats, int, int], events: EventColumns
) -> Scene:
    """times: now, until, send time, and (no time) the propensity. what: context, how many were allowed, the action."""
    now, until, send_at, propensity = (float(t) for t in times)
    context, allowed, action = what
    events = events.take(np.argsort(events.occurred_at, kind="stable"))
    names = [spec.kinds[k].name for k in events.kind]
    each = spec.reward.each[events.kind] + spec.reward.per_value[events.kind] * events.value
    why = [(name, float(worth)) for name, worth in zip(names, each, strict=True) if worth]
    cost = float(spec.reward.cost[action])
    return Scene(
        now=now,
        until=until,
        known=dict(spec.context.mapping(context)),
        allowed=allowed,
        actions=len(spec.catalogue),
        action=spec.catalogue.actions[action],
        send_at=send_at if action != HOLD else float("nan"),
        propensity=propensity,
        happened=tuple(zip(names, events.occurred_at.tolist(), events.value.tolist(), strict=True)),
        reward=float(each.sum()) - cost,
        why=(*why, *((("cost", -cost),) if cost else ())),
    )


def _draw_events(axes: Axes, kinds: Sequence[str], scenes: Sequence[Scene], start: float) -> None:
    for height, kind in enumerate(kinds):
        at = [(when - start) / DAY for s in scenes for name, when, _ in s.happened if name == kind]
        axes.plot(at, [height] * len(at), "o", ms=4, color="#333333", alpha=0.7)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.set_ylim(len(kinds) - 0.5, -0.5)
    axes.set_title("what happened", loc="left", fontsize=10)


def _draw_actions(axes: Axes, spec: Spec, scenes: Sequence[Scene], start: float) -> None:
    """A mark when a contact goes out, in its channel's colour, with the content's name; a dot for hold."""
    channels = [c.name for c in spec.catalogue.channels]
    contacts = 0
    for scene in scenes:
        if scene.action.is_hold:
            axes.plot((scene.now - start) / DAY, 0.0, ".", color="#bbbbbb")
            continue
        colour = CHANNELS[channels.index(str(scene.action.channel)) % len(CHANNELS)]
        at, height = (scene.send_at - start) / DAY, 0.3 + 0.35 * (contacts % 4)
        contacts += 1
        axes.plot([at, at], [0.0, height], color=colour, lw=1.5)
        axes.text(at, height, f" {scene.action.content}", color=colour, fontsize=7, va="bottom", rotation=20)
    used = dict.fromkeys(str(s.action.channel) for s in scenes if not s.action.is_hold)
    for name in used:
        axes.plot([], [], color=CHANNELS[channels.index(name) % len(CHANNELS)], lw=2, label=name)
    if used:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes.set(ylim=(-0.1, 1.9), yticks=[])
    axes.set_title("what was done (a dot: hold)", loc="left", fontsize=10)


def _draw_rewards(axes: Axes, scenes: Sequence[Scene], start: float) -> None:
    at = [(s.now - start) / DAY for s in scenes]
    width = [(s.until - s.now) / DAY for s in scenes]
    rewards = np.array([s.reward for s in scenes])
    colours = np.where(rewards < 0, "#D55E00", "#009E73").tolist()
    axes.bar(at, rewards, width, align="edge", color=colours)
    axes.axhline(0.0, color="#666666", lw=0.8)
    axes.set_title("what it was worth, window by window", loc="left", fontsize=10)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _worth(value: float) -> str:
    return f" {value:.3g}" if value else ""


def _clock(seconds: float) -> str:
    """+3h05, +2d04h."""
    minutes = round(seconds / 60)
    days, hours = divmod(minutes // 60, 24)
    return f"+{days}d{hours:02d}h" if days else f"+{hours}h{minutes % 60:02d}"
