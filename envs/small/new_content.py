"""Contents appear that no log has seen, made of attributes that every log has seen on others."""

import numpy as np

from engine.records import DAY, HOLD, Floats
from engine.spec import Spec
from envs.small.world import START, Law, SmallWorld, unmoved

APPEAR = START - 9 * 3600.0 + 28 * DAY
"""2026-03-30T00:00:00Z: after the 28 days that a log has by default."""

OWN = 0.02
"""P(order) on a day without contact."""

CONTACT = -0.01
MATCH = 0.03
VIDEO = 0.015
SALE = 0.03
"""What a contact, the segment's own topic, a moving picture and a price cut add to it."""

HOLD_WEIGHT = 3.0
"""The logging policy: hold has this weight, every eligible contact 1. So it holds in 3 of 7 cases, later in 3 of 10."""

SPEC = """
name = "new_content"
[context.segment]
type = "category"
categories = ["sport", "garden"]
evolves = "static"
[events.order]
[channels.email]
cost = 0.05
[[contents]]
id = "sport_news"
attributes = { topic = "sport", form = "text", sale = 0.0 }
[[contents]]
id = "sport_video"
attributes = { topic = "sport", form = "video", sale = 0.0 }
[[contents]]
id = "garden_video"
attributes = { topic = "garden", form = "video", sale = 0.0 }
[[contents]]
id = "garden_sale"
attributes = { topic = "garden", form = "text", sale = 0.2 }
[[contents]]
id = "sport_video_sale"
attributes = { topic = "sport", form = "video", sale = 0.2 }
valid_from = 2026-03-30T00:00:00Z
[[contents]]
id = "garden_video_sale"
attributes = { topic = "garden", form = "video", sale = 0.2 }
valid_from = 2026-03-30T00:00:00Z
[[contents]]
id = "garden_news"
attributes = { topic = "garden", form = "text", sale = 0.0 }
valid_from = 2026-03-30T00:00:00Z
[reward]
currency = "EUR"
[reward.events.order]
each = 20.0
"""


class NewContent(SmallWorld):
    """
    ## Description
    A contact works through its attributes alone,

        P(order until tomorrow | segment z, content x) = 0.02 − 0.01 + 0.03 [topic(x) = z] + 0.015 [video] + 0.03 [sale]

    and 0.02 on hold. Four contents are there from the beginning; their attributes are enough to tell the five numbers
    apart. Three more appear on 30 March 2026, after the 28 days of a log by default: a video with a sale for each
    topic, better than all before, and a plain text that is worse. Who knows contents by name only has to try them; who
    knows them by their attributes is right on the first day.

    ## Action Space
    `Discrete(8)`: hold and seven contents by e-mail; the last three are masked before 30 March.

    ## Observation Space
    `Box`, float32 `[d]`, as of every journey. The segment is context.

    ## Rewards
    20 EUR an order, less 0.05 for an e-mail; discount 0.99 a day.

    ## Starting State
    A customer of either segment with probability 1/2, without a history, at 09:00 UTC.

    ## Episode End
    Truncated after the last day; never terminated.

    ## Arguments
    `customers`, `days`, `seed` and `start` of the replay. With `start=START + 28 * DAY` (epoch seconds) all contents
    are there; in `gymnasium.make("nextbest/NewContent-v0", days=28)` the new ones never are.
    """

    def __init__(self) -> None:
        spec = Spec.parse(SPEC, "new_content")
        effect = _effect(spec)
        likes = np.full(effect.shape, 1.0)
        likes[:, HOLD] = HOLD_WEIGHT
        law = Law(
            shares=np.array([0.5, 0.5]),
            segment=np.arange(2),
            chance=(OWN + effect)[None, None],
            following=unmoved(*effect.shape),
            likes=likes,
        )
        super().__init__("new_content", spec, law)


def _effect(spec: Spec) -> Floats:
    """[Z, n]: the sum over the attributes of each content; 0 for hold."""
    segments = spec.context.features[0].categories
    effect = np.zeros((len(segments), len(spec.catalogue)))
    for row in range(1, len(spec.catalogue)):
        has = spec.catalogue.contents[spec.catalogue.content[row]].attributes
        match = np.array([has["topic"] == segment for segment in segments])
        effect[:, row] = CONTACT + MATCH * match + VIDEO * (has["form"] == "video") + SALE * (float(has["sale"]) > 0.0)
    return effect
