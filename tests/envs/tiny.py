"""A spec of nine actions and a world of five kinds of events whose rates are written below."""

import numpy as np

from engine.clock import zone_id
from engine.records import DAY, EventColumns, Floats, Ints
from engine.spec import Spec
from envs.draws import Draws
from envs.outcomes import Latent, Turn
from envs.replay import Replay

TEXT = """
name = "tiny"
[journey]
discount_per_day = 0.9
horizon_days = 7
half_lives_days = [1.0, 7.0]
[context.tier]
type = "category"
categories = ["new", "old"]
evolves = "static"
[context.rain]
type = "flag"
evolves = "exogenous"
[context.balance]
type = "number"
evolves = "endogenous"
optional = true
[events.visit]
value = "seconds"
[events.open]
response = true
[events.order]
value = "EUR"
[events.unsubscribe]
consent = "withdrawn"
[events.churn]
ends_journey = true
[channels.email]
consent = "opt_out"
cost = 0.01
[channels.push]
consent = "opt_out"
[timings.now]
delay_hours = 0
[timings.next_morning]
at = "08:00"
days = 1
[[contents]]
id = "tip"
attributes = { discount = 0.0 }
[[contents]]
id = "offer"
attributes = { discount = 0.2 }
[reward]
currency = "EUR"
[reward.events.order]
per_value = 0.5
[reward.events.unsubscribe]
each = -5.0
"""

CAP = """
[[guardrails.caps]]
name = "weekly"
limit = 2
window_days = 7.0
"""

START = 1_767_258_000.0  # 2026-01-01T09:00:00Z


def tiny_spec(rules: str = "") -> Spec:
    return Spec.parse(TEXT + rules)


def tiny_replay(spec: Spec, journeys: int = 7, longest: int = 6, seed: int = 0, shortest: int = 2) -> Replay:
    """Daily decisions at 09:00 UTC; lengths from `shortest` to `longest`; balance starts at 100."""
    rng = np.random.default_rng(seed)
    length = rng.integers(shortest, longest + 1, journeys)
    there = np.arange(longest) < length[:, None]
    decided_at = np.where(there, START + DAY * np.arange(longest) + rng.uniform(0, 3600, (journeys, 1)), np.nan)
    context = np.stack(
        [
            np.repeat(rng.integers(0, 2, (journeys, 1)), longest, axis=1),
            rng.integers(0, 2, (journeys, longest)),
            np.full((journeys, longest), 100.0),
        ],
        axis=2,
    )
    context[~there] = np.nan
    return Replay(
        customer_id=[f"c{j}" for j in range(journeys)],
        zone=np.full(journeys, zone_id("UTC")),
        length=length,
        decided_at=decided_at,
        until=decided_at + DAY,
        context=context,
        initial=spec.fold.empty(journeys),
    )


class TinyWorld:
    """visit 0.5; open 0.8 of an e-mail that is out in the window; order 0.1 and 0.3 more for an offer; its value is
    e^N(3, 0.5).

    unsubscribe 0.05 of a contact; churn `churn`. The balance loses 1 a day and 10 by an offer. Old customers order
    twice as often.
    """

    def __init__(self, spec: Spec, churn: float = 0.05) -> None:
        self.spec, self.churn = spec, churn
        self.index = {k.name: i for i, k in enumerate(spec.kinds)}

    def begin(self, replay: Replay, journey: Ints, draws: Draws) -> Latent:
        return {"keen": draws.uniform(1)[:, 0], "tier": replay.context[journey, 0, 0]}

    def rates(self, context: Floats, action: Ints, send_at: Floats, until: Floats) -> Floats:
        """P(kind happens), [B, K]."""
        catalogue = self.spec.catalogue
        out = np.nan_to_num(send_at, nan=np.inf) < until
        rate = np.zeros((len(action), len(self.spec.kinds)))
        rate[:, self.index["visit"]] = 0.5
        rate[:, self.index["open"]] = 0.8 * (out & (catalogue.channel[action] == 0))
        rate[:, self.index["order"]] = (0.1 + 0.3 * (out & (catalogue.content[action] == 1))) * (1 + context[:, 0]) / 2
        rate[:, self.index["unsubscribe"]] = 0.05 * out
        rate[:, self.index["churn"]] = self.churn
        return rate

    def outcomes(self, latent: Latent, turn: Turn, draws: Draws) -> EventColumns:
        rate = self.rates(turn.context, turn.action, turn.send_at, turn.until)
        happens = draws.uniform(rate.shape[1]) < rate
        place, normal = draws.uniform(rate.shape[1]), draws.normal(1)[:, 0]
        row, kind = np.nonzero(happens)
        answers = np.isin(kind, [self.index["open"], self.index["unsubscribe"]])
        start = np.where(answers, turn.send_at[row], turn.now[row])
        value = np.where(kind == self.index["order"], np.exp(3 + 0.5 * normal[row]), 0.0)
        return EventColumns(
            row=row,
            kind=kind,
            occurred_at=turn.until[row] - place[row, kind] * (turn.until[row] - start),
            value=np.where(kind == self.index["visit"], 60.0, value),
            channel=np.where(answers, self.spec.catalogue.channel[turn.action[row]], -1),
            content=np.where(answers, self.spec.catalogue.content[turn.action[row]], -1),
        )

    def evolve(self, latent: Latent, turn: Turn, replayed: Floats, draws: Draws) -> Floats:
        context = replayed.copy()
        context[:, 2] = turn.context[:, 2] - 1.0 - 10.0 * (self.spec.catalogue.content[turn.action] == 1)
        return context
