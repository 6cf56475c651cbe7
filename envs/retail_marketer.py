"""How the shop of the retail world decides today, and how a thoughtful marketer would: two policies made of rules.

Both see what any policy sees, the observation and the mask, and nothing that is hidden.
"""

from hashlib import sha256

import numpy as np

from engine.records import HOLD, Bools, Floats, Floats32
from engine.spec import Spec

_LIKES = {
    "newsletter": 4.0,
    "new_arrivals": 3.0,
    "discount_5": 2.0,
    "discount_10": 4.0,
    "discount_15": 2.5,
    "free_shipping": 1.5,
    "cart_reminder": 9.0,
    "product_reviews": 1.6,
    "styling_tips": 1.4,
    "howto_video": 1.4,
    "buying_guide": 1.6,
    "store_finder": 0.5,
    "survey": 4.0,
    "back_in_stock": 4.0,
    "replenishment": 1.5,
    "surprise_bonus": 0.5,
    "thank_you": 1.5,
    "sustainability_fact": 0.5,
    "loyalty_status": 1.0,
    "delivery_notice": 5.0,
    "faq_bot": 4.0,
    "agent_call": 1.0,
}
_CHANNELS = {"email": 1.0, "whatsapp": 0.8, "sms": 0.9, "push": 0.9, "web": 0.5, "ads": 0.6, "agent": 0.3}
_TIMINGS = {"now": 1.0, "in_two_hours": 0.5, "this_evening": 1.2, "tomorrow_morning": 0.8}


class Columns:
    """Observations by name: `Columns(spec, observation)["context:basket_value"]` is Floats [B]."""

    def __init__(self, spec: Spec, observation: Floats32) -> None:
        self._place = {name: i for i, name in enumerate(spec.encoder.names)}
        self._observation = observation

    def __getitem__(self, name: str) -> Floats:
        return self._observation[:, self._place[name]].astype(np.float64)


class Marketer:
    """The policy of the log: holds about two times in three, follows every basket with reminders and discounts.

    Soft, and known exactly: FLOOR of the probability is spread evenly over all eligible actions.
    It counts neither contacts nor responses, so it wears out those who are most active, and gives discounts to all.
    """

    FLOOR = 0.06

    def __init__(self, spec: Spec) -> None:
        catalogue = spec.catalogue
        self._spec = spec
        self._incentive = _of_kind(spec, "incentive")
        likes = np.array([_LIKES[c.id] for c in catalogue.contents])[catalogue.content]
        likes *= np.array([_CHANNELS[c.name] for c in catalogue.channels])[catalogue.channel]
        likes *= np.array([_TIMINGS[t.name] for t in catalogue.timings])[catalogue.timing]
        likes[HOLD] = 0.0
        self._likes: Floats = likes
        self.version = "marketer-" + sha256(likes.tobytes() + spec.digest.encode()).hexdigest()[:8]

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        """[B, n]; positive for every eligible action."""
        see = Columns(self._spec, observation)
        basket, loyal = see["context:basket_value"] > 0.0, see["context:loyalty=loyal"] > 0.5
        bought = see["since:event:order@1d"] > 0.125
        hold = np.where(basket, 0.45, np.where(bought, 0.60, np.where(loyal, 0.72, 0.80)))
        wish = np.where(mask, self._likes, 0.0) * np.where(basket[:, None] & self._incentive, 3.0, 1.0)
        total = wish.sum(axis=1)
        hold = np.where(total > 0.0, hold, 1.0)
        wish *= ((1.0 - hold) / np.maximum(total, 1e-12))[:, None]
        wish[:, HOLD] = hold
        even = mask / mask.sum(axis=1, keepdims=True)
        return np.asarray((1.0 - self.FLOOR) * wish + self.FLOOR * even, np.float32)


class Planner:
    """What a thoughtful marketer would do: few contacts, each for a reason, and no discount for those who need none.

    Service first (help, delivery, thanks); an open basket is followed up; else, when the customer has had peace for a
    while, something that informs, which they have not had lately, or a discount for those who fill
    baskets and leave. Where the customer has responded before decides the channel, their habits the hour. It always
    takes the action with the best score. `pressure`: how many contacts a week it dares.
    """

    def __init__(self, spec: Spec, pressure: float = 1.0) -> None:
        self._spec, self._pressure = spec, pressure
        self.version = f"planner-{pressure:g}-{spec.digest[:8]}"

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        """[B, n], one 1 in each row."""
        score = self.scores(Columns(self._spec, observation))
        best = np.where(mask, score, -np.inf).argmax(axis=1)
        return np.asarray(np.arange(mask.shape[1]) == best[:, None], np.float32)

    def scores(self, see: Columns) -> Floats:
        """[B, n]; hold is 0."""
        catalogue = self._spec.catalogue
        reason = np.stack([self._reason(see, c.id) for c in catalogue.contents], axis=1)
        channel = np.stack([self._channel(see, c.name) for c in catalogue.channels], axis=1)
        timing = np.stack([self._timing(see, t.name) for t in catalogue.timings], axis=1)
        score = reason[:, catalogue.content] + channel[:, catalogue.channel] + timing[:, catalogue.timing]
        score[:, HOLD] = 0.0
        return score

    def _reason(self, see: Columns, content: str) -> Floats:
        """How much there is to be said for a content now; a plain contact needs more than it costs in goodwill."""
        lately = np.expm1(see[f"content:{content}@7d"])
        had = np.expm1(see["contact@7d"])
        contacts = had - 0.5 * np.expm1(see["event:click@7d"])
        rest = 0.6 * (self._pressure - contacts) - 1.0 * lately
        browses = np.expm1(see["event:product_view@7d"]) + np.expm1(see["event:page_view@7d"])
        quiet = 1.2 * (browses < 4.0) + 0.5 * (had > 2.0) * (see["event:open@7d"] < 0.2)
        leaves_baskets = np.expm1(see["event:add_to_cart@7d"]) - np.expm1(see["event:order@7d"])
        basket = see["context:basket_value"] > 0.0
        thrifty = 0.8 * (see["event:redemption@7d"] > 0.1) + 0.5 * (see["event:search@7d"] > 0.9) + 0.4 * leaves_baskets
        patience: dict[str, Floats] = {
            "faq_bot": 3.0 - lately,
            "delivery_notice": 2.0 - 2.0 * lately,
            "thank_you": 0.8 + rest,
            "surprise_bonus": -0.2 + rest,
            "cart_reminder": 1.4 - 1.2 * lately - 0.15 * had,
            "back_in_stock": 1.2 + rest,
            "replenishment": 0.6 + rest - quiet + 0.5 * (see["context:device=app"] > 0.5),
            "discount_10": -1.2 + rest + thrifty + 0.9 * basket,
            "discount_15": -1.6 + rest + thrifty + 1.2 * basket,
            "buying_guide": 0.5 + rest - quiet,
            "howto_video": 0.5 + rest - quiet,
            "product_reviews": 0.4 + rest - quiet,
            "styling_tips": 0.2 + rest - quiet,
        }
        return patience.get(content, np.full(len(had), -9.0))

    def _channel(self, see: Columns, channel: str) -> Floats:
        """Where they answered, seen against how often they were written to; web is gentle."""
        answered, sent = np.expm1(see[f"response:{channel}@7d"]), np.expm1(see[f"contact:{channel}@7d"])
        plain = {"email": 0.2, "whatsapp": 0.1, "sms": -0.2, "push": 0.0, "web": 0.3, "ads": -1.0, "agent": -2.0}
        return plain[channel] + 0.8 * np.log((answered + 1.0) / (0.6 * sent + 1.0))

    def _timing(self, see: Columns, timing: str) -> Floats:
        """Evenings for those who browse on desktops and look long, mornings for those on the way."""
        on_the_way = see["context:device=app"] + 0.5 * see["context:device=mobile"]
        plain = {"now": -0.2, "in_two_hours": -0.2, "this_evening": 0.1, "tomorrow_morning": -0.1}
        return plain[timing] + 0.3 * (on_the_way - 0.5) * (1.0 if timing == "tomorrow_morning" else -1.0)


def _of_kind(spec: Spec, kind: str) -> Bools:
    """[n]: the actions whose content is of a kind."""
    is_kind = np.array([c.attributes["kind"] == kind for c in spec.catalogue.contents], bool)[spec.catalogue.content]
    is_kind[HOLD] = False
    return is_kind
