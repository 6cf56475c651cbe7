"""A web shop whose truth is known: four types of customers, seven channels, twenty-two contents.

What makes its journeys more than a row of single decisions:
- Fatigue lasts. Every contact adds some, it fades over ten days, and meanwhile it lowers response and orders and
  raises unsubscribes (the channel is gone) and churn (the customer is gone).
- Conversions are delayed. Guides, reviews and videos raise an appetite that lasts for days and leads to orders
  later; discounts bring orders today, give away margin, and teach to wait for the next discount.
- Customers differ, and it shows only in what they do: right contents, channels and hours depend on a hidden type.
So the action with the best reward until tomorrow is often not the one with the best journey.
"""

from importlib.resources import files

import numpy as np

from engine.clock import parse_instant
from engine.errors import TrainingError
from engine.policy import Policy
from engine.records import DAY, HOLD, EventColumns, Floats, Ints
from engine.spec import Spec
from envs import retail_contacts, retail_shopping
from envs.draws import Draws
from envs.outcomes import Latent, Turn
from envs.replay import Replay
from envs.retail_contacts import Contents
from envs.retail_customers import Calendar, Shoppers, consents, draw_calendar, draw_shoppers
from envs.retail_happenings import NUMBERS, Window
from envs.retail_marketer import Marketer

START = "2026-03-02T00:00:00Z"
HISTORY_DAYS = 14


class RetailWorld:
    """
    ## Description
    The `World` called "retail": see the head of this file for its law, `retail_numbers.py` for its numbers, and
    `retail.toml` for its spec. A customer's type, mood, fatigue and appetite are hidden. All amounts are EUR.

    ## Action Space
    `Discrete(127)`: hold, and 22 contents on 7 channels at 4 timings as far as they fit. Consent, frequency caps, quiet
    hours and eligibility are in force.

    ## Observation Space
    `Box`, float32 `[276]`: the fold of events and contacts at two half-lives, the context (loyalty, age band, device,
    weather, availability, basket value) and the local clock.

    ## Rewards
    Margin of orders less what discounts, contacts, unsubscribes, support and churn cost: `[reward]` of the spec.

    ## Starting State
    A fresh customer after a fortnight without contacts, at the first decision on one of seven days from `start`.

    ## Episode End
    Terminated: churn. Truncated: after `days` days; about one day in twelve brings no decision.

    ## Arguments
    None; `gymnasium.make("nextbest/Retail-v0")` takes those of `replay`.
    """

    name = "retail"

    def __init__(self) -> None:
        self.spec = Spec.parse(files("envs").joinpath("retail.toml").read_text("utf-8"), "retail.toml")
        self._contents = Contents.of(self.spec.catalogue)
        self._basket = self.spec.context.index["basket_value"]
        self._churn = self.spec.fold.kind_index("churn")

    def replay(self, customers: int, days: int, seed: int, start: float | None = None) -> Replay:
        """Fresh customers, a fortnight of history each (nobody contacts them in it), then `days` days.

        Their first decision is on one of the seven days after `start`, a local midnight that is written as if it were
        UTC (None: 2 March 2026); about one day in twelve brings none.
        Customer i is the same for any number of customers. Raises TrainingError for less than one customer or day.
        """
        if customers < 1 or days < 1:
            raise TrainingError(f"found {customers} customers and {days} days, expected at least one of each")
        shoppers = draw_shoppers(self.spec, customers, seed)
        first = parse_instant(START, "start") if start is None else start
        calendar = draw_calendar(self.spec, shoppers, days, seed, first)
        history = self._live_alone(shoppers, calendar, seed)
        initial = self.spec.fold.empty(customers)
        self.spec.fold.add_events(initial, history)
        calendar.context[:, :, self._basket] = np.where(np.isnan(calendar.decided_at), np.nan, shoppers.basket[:, None])
        return Replay(
            customer_id=[f"c{seed}-{i:06d}" for i in range(customers)],
            zone=calendar.zone,
            length=calendar.length,
            decided_at=calendar.decided_at,
            until=calendar.until,
            context=calendar.context,
            initial=initial,
            history=history,
            hidden=shoppers.latent(),
        )

    def begin(self, replay: Replay, journey: Ints, draws: Draws) -> Latent:  # noqa: ARG002 - the protocol's
        """The customers of the replay as they are at their first decision; nothing is drawn."""
        if not replay.hidden:
            raise TrainingError("found a replay from a log, expected one that this world made: it knows its customers")
        return {name: values[journey] for name, values in replay.hidden.items()}

    def outcomes(self, latent: Latent, turn: Turn, draws: Draws) -> EventColumns:
        """What happens until the next decision. Uses up the same random numbers whatever was done."""
        shoppers = Shoppers.of(latent)
        window = Window(turn, draws.uniform(NUMBERS), self.spec.fold)
        retail_contacts.plan(shoppers, window)
        clicked_at = retail_contacts.deliver(shoppers, window, self.spec, self._contents)
        retail_shopping.browse(shoppers, window, self.spec)
        retail_shopping.order(shoppers, window, self.spec, clicked_at)
        retail_shopping.need_help(shoppers, window)
        retail_shopping.leave(shoppers, window)
        retail_shopping.pass_time(shoppers, window)
        return window.finish(shoppers)

    def evolve(self, latent: Latent, turn: Turn, replayed: Floats, draws: Draws) -> Floats:  # noqa: ARG002
        """The next context: weather, stock and device as replayed, the basket as it is."""
        context = replayed.copy()
        context[:, self._basket] = latent["basket"]
        return context

    def logging_policy(self) -> Policy:
        return Marketer(self.spec)

    def _live_alone(self, shoppers: Shoppers, calendar: Calendar, seed: int) -> EventColumns:
        """The fortnight before the first decision, and the consents given at its start."""
        n = len(shoppers)
        draws = Draws.independent(seed, n, salt=5)
        first = calendar.decided_at[:, 0]
        parts = [consents(self.spec, shoppers, seed, first - HISTORY_DAYS * DAY)]
        for days_before in range(HISTORY_DAYS, 0, -1):
            now = first - days_before * DAY
            turn = Turn(
                observation=np.zeros((n, self.spec.encoder.size), np.float32),
                context=calendar.context[:, 0],
                action=np.full(n, HOLD),
                last_contact=np.full(n, HOLD),
                now=now,
                send_at=np.full(n, np.nan),
                until=now + DAY,
                zone=calendar.zone,
            )
            latent = shoppers.latent()
            parts.append(self.outcomes(latent, turn, draws))
        events = EventColumns.concat(parts)
        return events.take(events.kind != self._churn)
