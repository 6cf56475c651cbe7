"""What the retail world exists for: the best next day is not the best journey."""

import numpy as np

from engine.policy import Policy
from engine.records import HOLD, Bools, EventColumns, Floats, Floats32, Ints
from engine.spec import Spec
from envs.draws import Draws
from envs.outcomes import Latent, Turn
from envs.retail import RetailWorld
from envs.retail_marketer import Columns, Planner
from envs.simulate import by_policy, simulate
from tests.envs.retail_play import SPEC, WORLD, Always, Evenly, play


class Greedy:
    """The best next-day reward: in each visible situation the action with the largest measured lift over hold."""

    version = "greedy"

    def __init__(self, spec: Spec, actions: Ints, lifts: Floats) -> None:
        """lifts: [situations, actions]."""
        self.spec, self.actions, self.lifts = spec, actions, lifts

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        lifts = np.where(mask[:, self.actions], self.lifts[situation(self.spec, observation)], 0.0)
        best = lifts.argmax(axis=1)
        action = np.where(lifts.max(axis=1) > 0.0, self.actions[best], HOLD)
        return np.eye(mask.shape[1], dtype=np.float32)[action]


def situation(spec: Spec, observation: Floats32) -> Ints:
    """Basket open? Searches a lot? Uses the app? 0 to 7."""
    see = Columns(spec, observation)
    basket, searches = see["context:basket_value"] > 0.0, see["event:search@7d"] > 0.9
    return np.asarray(4 * basket + 2 * searches + (see["context:device=app"] > 0.5), np.int64)


class Measured(RetailWorld):
    """The world; on the way it tries every candidate with the same luck and notes the lift of the next day's reward."""

    def __init__(self, actions: Ints) -> None:
        super().__init__()
        self.actions = actions
        self.total, self.tried = np.zeros((8, len(actions))), np.zeros((8, len(actions)))

    def outcomes(self, latent: Latent, turn: Turn, draws: Draws) -> EventColumns:
        if turn.observation[0].any():  # not while the history is made
            where = situation(self.spec, turn.observation)
            plain = self._worth(latent, turn, draws, HOLD)
            for i, action in enumerate(self.actions):
                may = self._consent(turn.observation, int(action))
                np.add.at(self.total[:, i], where[may], (self._worth(latent, turn, draws, int(action)) - plain)[may])
                np.add.at(self.tried[:, i], where[may], 1.0)
        return super().outcomes(latent, turn, draws)

    def _consent(self, observation: Floats32, action: int) -> Bools:
        channel = self.spec.catalogue.channels[self.spec.catalogue.channel[action]]
        consent = Columns(self.spec, observation)[f"consent:{channel.name}"]
        return consent > (0.5 if channel.consent == "opt_in" else -0.5)

    def _worth(self, latent: Latent, turn: Turn, draws: Draws, action: int) -> Floats:
        row = np.full(len(turn.now), action)
        send_at = self.spec.catalogue.send_at_of(row, turn.now, turn.zone)
        other = Turn(turn.observation, turn.context, row, turn.last_contact, turn.now, send_at, turn.until, turn.zone)
        copy = {name: values.copy() for name, values in latent.items()}
        events = super().outcomes(copy, other, draws.take(np.arange(len(row))))
        return self.spec.reward.of_events(events, row)


CANDIDATES = [
    ("email", "cart_reminder"),
    ("push", "cart_reminder"),
    ("whatsapp", "cart_reminder"),
    ("email", "discount_5"),
    ("email", "discount_10"),
    ("email", "discount_15"),
    ("push", "free_shipping"),
    ("web", "free_shipping"),
    ("email", "back_in_stock"),
    ("push", "replenishment"),
    ("email", "product_reviews"),
    ("web", "buying_guide"),
    ("web", "howto_video"),
    ("email", "new_arrivals"),
]


def test_greed_loses_and_thought_wins() -> None:
    """The best one-step policy that can be measured is worth less than a plan that any marketer could write down."""
    actions = np.array([SPEC.catalogue.row(channel, content, "now") for channel, content in CANDIDATES])
    measured = Measured(actions)
    n = 300
    replay = measured.replay(n, 14, seed=21)
    simulate(measured, replay, by_policy(WORLD.logging_policy(), n, 21), SPEC, 21)
    greedy = Greedy(SPEC, actions, measured.total / np.maximum(measured.tried, 1.0))
    policies: dict[str, Policy] = {
        "greedy": greedy,
        "plan": Planner(SPEC, 1.5),
        "log": WORLD.logging_policy(),
        "hold": Always(HOLD),
        "evenly": Evenly(),
    }
    worth = {name: play(policy, 700, 22).returns(SPEC) for name, policy in policies.items()}
    assert clearly_better(worth["plan"], worth["greedy"])
    assert clearly_better(worth["plan"], worth["log"])
    assert clearly_better(worth["plan"], worth["hold"])
    assert clearly_better(worth["plan"], worth["evenly"])
    assert worth["plan"].mean() > 1.2 * worth["greedy"].mean()
    assert worth["plan"].mean() > 1.4 * worth["log"].mean()
    assert (greedy.lifts.max(axis=1) > 0.0).all()


def clearly_better(one: Floats, other: Floats) -> bool:
    """By more than three standard errors of the paired difference."""
    difference = one - other
    return bool(difference.mean() > 3.0 * difference.std() / np.sqrt(len(difference)))
