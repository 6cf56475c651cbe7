"""The numbers of the retail world: what its customers are like and what each content does to them.

All of it is invented, in sizes that look like a middling European web shop: baskets of 40 to 75 EUR, about one order a
month, one customer in thirty lost in four weeks when nobody is annoyed. The four types answer to different
contents, channels and hours, so that no constant is good for all of them.
"""

import numpy as np

from engine.records import Floats

TYPES = ("thrifty", "explorer", "hurried", "reserved")
SHARES: Floats = np.array([0.27, 0.28, 0.25, 0.20])

INTENTS = ("know", "go", "do", "buy")
START_INTENT: Floats = np.array([0.45, 0.15, 0.28, 0.12])
INTENT_ORDERS: Floats = np.array([0.5, 0.8, 1.0, 2.6])
"""By how much an intent multiplies the chance of an order."""

# Per type -----------------------------------------------------------------------------------------
BASE_ORDERS: Floats = np.array([0.005, 0.006, 0.007, 0.008])
"""Orders a day of a customer without appetite, basket or contact."""
BASKET_ORDERS: Floats = np.array([0.03, 0.05, 0.06, 0.08])
"""What an open basket adds to them."""
BROWSING = ("page_view", "product_view", "search", "store_visit", "add_to_cart")
BROWSING_RATES: Floats = np.array(
    [
        [0.90, 0.70, 0.35, 0.03, 0.14],
        [1.40, 1.00, 0.30, 0.05, 0.08],
        [0.50, 0.35, 0.10, 0.06, 0.11],
        [0.40, 0.25, 0.12, 0.02, 0.05],
    ]
)
"""Events a day, [types, BROWSING]."""
INTENT_BROWSING: Floats = np.array(
    [
        [1.3, 0.7, 1.8, 0.3, 0.4],
        [0.7, 0.8, 0.7, 5.0, 0.6],
        [1.0, 1.4, 0.8, 0.5, 0.8],
        [0.8, 1.5, 0.8, 0.8, 2.6],
    ]
)
DWELL: Floats = np.array([40.0, 75.0, 18.0, 30.0])
"""Median seconds on a page."""
BUDGET: Floats = np.array([42.0, 65.0, 52.0, 72.0])
"""Median basket in EUR."""
THRIFT: Floats = np.array([1.0, 0.3, 0.35, 0.1])
"""How much an incentive moves them."""
SKIN: Floats = np.array([0.24, 0.23, 0.22, 0.44])
"""Fatigue from one plain contact."""
WARMTH: Floats = np.array([0.1, 0.4, 0.1, -0.8])
CHURN: Floats = np.array([0.0011, 0.0007, 0.0009, 0.0013])
"""Customers lost a day when rested."""
PEAK: Floats = np.array([18.5, 20.5, 8.0, 12.5])
"""Local hour at which they have time."""
AFFINITY: Floats = np.array(  # email, whatsapp, sms, push, web, ads, agent
    [
        [0.6, -0.2, 0.6, 0.0, -0.2, 0.2, -0.5],
        [0.5, -0.4, -0.9, -0.3, 0.7, 0.2, -0.8],
        [-1.0, 0.9, 0.3, 0.8, -0.4, -0.4, 0.2],
        [0.1, -1.0, -1.2, -0.8, 0.5, -0.6, -0.3],
    ]
)
CONSENT: Floats = np.array(
    [
        [0.94, 0.40, 0.50, 0.45, 1.0, 0.80, 0.55],
        [0.95, 0.40, 0.20, 0.45, 1.0, 0.80, 0.50],
        [0.90, 0.75, 0.45, 0.75, 1.0, 0.70, 0.70],
        [0.82, 0.20, 0.12, 0.20, 1.0, 0.55, 0.40],
    ]
)
"""Share that allows each channel at the start."""
ON_DEVICE: Floats = np.array(  # mobile, desktop, app
    [[0.55, 0.30, 0.15], [0.35, 0.50, 0.15], [0.40, 0.10, 0.50], [0.30, 0.60, 0.10]]
)
LOYALTY: Floats = np.array([[0.35, 0.45, 0.20], [0.30, 0.45, 0.25], [0.20, 0.45, 0.35], [0.30, 0.40, 0.30]])
AGES: Floats = np.array(
    [[0.35, 0.30, 0.22, 0.13], [0.30, 0.35, 0.25, 0.10], [0.25, 0.45, 0.25, 0.05], [0.08, 0.22, 0.35, 0.35]]
)

# Per channel: email, whatsapp, sms, push, web, ads, agent -------------------------------------------
OPENING: Floats = np.array([-0.5, 0.5, 0.5, -0.3, -0.6, -2.0, 0.6])
"""Logit of noticing a contact."""
LAG_HOURS: Floats = np.array([3.0, 0.7, 0.5, 0.5, 1.5, 3.0, 0.1])
PRESSURE: Floats = np.array([1.0, 1.4, 1.7, 1.2, 0.7, 0.6, 2.0])
"""How much fatigue a contact makes."""
UNSUBSCRIBING: Floats = np.array([0.0022, 0.005, 0.007, 0.005, 0.0, 0.001, 0.006])
"""Per contact, when rested."""

# Per content -------------------------------------------------------------------------------------------
# appeal to the four types; gain: appetite that lasts; spark: urge to order now; trust; pressure: share of
# a plain contact's; resolves: chance to end a trouble.
_EFFECTS: dict[str, tuple[tuple[float, float, float, float], float, float, float, float, float]] = {
    "cart_reminder": ((0.4, 0.2, 1.0, 0.1), 0.05, 5.0, 0.0, 1.0, 0.0),
    "discount_5": ((0.3, -0.6, -0.2, -0.5), 0.0, 3.0, 0.0, 1.0, 0.0),
    "discount_10": ((0.9, -0.4, 0.0, -0.4), 0.0, 7.0, 0.0, 1.0, 0.0),
    "discount_15": ((1.2, -0.2, 0.1, -0.3), 0.0, 10.0, 0.0, 1.0, 0.0),
    "free_shipping": ((0.6, -0.1, 0.4, 0.0), 0.0, 5.0, 0.0, 1.0, 0.0),
    "product_reviews": ((0.2, 0.9, -0.3, 0.3), 0.65, 0.3, 0.1, 0.9, 0.0),
    "styling_tips": ((-0.1, 1.0, -0.5, -0.3), 0.60, 0.1, 0.15, 0.9, 0.0),
    "howto_video": ((0.1, 1.1, -0.4, 0.1), 0.80, 0.0, 0.2, 0.9, 0.1),
    "buying_guide": ((0.4, 0.9, -0.3, 0.4), 0.85, 0.0, 0.2, 0.9, 0.0),
    "store_finder": ((0.0, 0.1, 0.5, 0.1), 0.20, 0.5, 0.0, 0.9, 0.0),
    "new_arrivals": ((-0.2, 0.6, -0.2, -0.5), 0.35, 0.5, 0.0, 1.1, 0.0),
    "newsletter": ((-0.1, 0.3, -0.8, -0.6), 0.25, 0.3, 0.0, 1.2, 0.0),
    "sustainability_fact": ((-0.4, 0.6, -0.6, 0.4), 0.20, 0.0, 0.3, 0.8, 0.0),
    "back_in_stock": ((0.5, 0.6, 0.9, 0.4), 0.10, 6.0, 0.1, 0.7, 0.0),
    "replenishment": ((0.0, -0.4, 1.1, 0.2), 0.35, 3.0, 0.1, 0.8, 0.0),
    "surprise_bonus": ((0.9, 0.6, 0.7, 0.6), 0.40, 0.5, 0.7, 0.6, 0.0),
    "thank_you": ((0.1, 0.3, 0.1, 0.3), 0.25, 0.0, 0.6, 0.6, 0.0),
    "loyalty_status": ((0.3, 0.1, 0.3, 0.1), 0.20, 0.2, 0.2, 0.9, 0.0),
    "survey": ((-0.3, 0.1, -0.4, -0.2), 0.0, 0.0, 0.2, 1.0, 0.1),
    "delivery_notice": ((0.6, 0.6, 0.9, 0.7), 0.0, 0.0, 0.4, 0.3, 0.2),
    "faq_bot": ((0.2, 0.4, 0.6, 0.3), 0.0, 0.0, 0.3, 0.3, 0.6),
    "agent_call": ((0.3, 0.1, 0.5, 0.4), 0.2, 0.3, 0.8, 0.6, 0.95),
}


def content_table(ids: tuple[str, ...]) -> tuple[Floats, Floats]:
    """Effects of contents in the order given: appeal [x, types]; gain, spark, trust, pressure, resolves [x, 5]."""
    appeal = np.array([_EFFECTS[x][0] for x in ids])
    return appeal, np.array([_EFFECTS[x][1:] for x in ids])


# How things pass, in days (e-folding) ----------------------------------------------------------------
FATIGUE_DAYS = 10.0
RIPENING_DAYS = 2.5
APPETITE_DAYS = 9.0
TRUST_DAYS = 14.0
HABIT_DAYS = 25.0
SPARK_DAYS = 0.8
SEEN_DAYS = 12.0

# Where it happens --------------------------------------------------------------------------------------
ZONES = ("Europe/Berlin", "Europe/London", "Europe/Athens", "America/New_York")
ZONE_SHARES: Floats = np.array([0.55, 0.18, 0.12, 0.15])
WEATHER: Floats = np.array([[0.6, 0.3, 0.1], [0.3, 0.4, 0.3], [0.15, 0.4, 0.45]])
"""From one day to the next: sun, clouds, rain."""
AVAILABILITY: Floats = np.array(
    [[0.93, 0.06, 0.01, 0.0], [0.25, 0.55, 0.20, 0.0], [0.0, 0.0, 0.70, 0.30], [0.60, 0.10, 0.0, 0.30]]
)
"""From one day to the next: plenty, scarce, out, restocked."""
AVAILABILITY_ORDERS: Floats = np.array([1.0, 1.05, 0.35, 1.1])
WEATHER_BROWSING: Floats = np.array([0.9, 1.0, 1.15])
