"""What a contact does to a customer of the retail world."""

from dataclasses import dataclass

import numpy as np

from engine.catalogue import Catalogue
from engine.records import Bools, Floats, Ints
from engine.spec import Spec
from envs import retail_numbers as numbers
from envs.retail_customers import WAITING, Shoppers, hour_match
from envs.retail_happenings import Window

_PER_CONTACT = 8


@dataclass(frozen=True, slots=True)
class Contents:
    """What the world knows of each content, first axis the catalogue's contents."""

    appeal: Floats
    gain: Floats
    spark: Floats
    trust: Floats
    pressure: Floats
    resolves: Floats
    intent: Ints
    discount: Floats
    incentive: Bools
    free_shipping: int
    survey: int

    @staticmethod
    def of(catalogue: Catalogue) -> "Contents":
        appeal, effects = numbers.content_table(tuple(c.id for c in catalogue.contents))
        attributes = [c.attributes for c in catalogue.contents]
        return Contents(
            appeal=appeal,
            gain=effects[:, 0],
            spark=effects[:, 1],
            trust=effects[:, 2],
            pressure=effects[:, 3],
            resolves=effects[:, 4],
            intent=np.array([numbers.INTENTS.index(str(a["intent"])) for a in attributes]),
            discount=np.array([float(a["discount"]) for a in attributes]),
            incentive=np.array([a["kind"] == "incentive" for a in attributes], bool),
            free_shipping=catalogue.content_index("free_shipping"),
            survey=catalogue.content_index("survey"),
        )


@dataclass(frozen=True, slots=True)
class _Contact:
    """m contacts, one per customer: row, channel, content Ints [m], at Floats [m], u Floats [m, _PER_CONTACT]."""

    row: Ints
    channel: Ints
    content: Ints
    at: Floats
    u: Floats

    @property
    def answers(self) -> tuple[Ints, Ints]:
        return self.channel, self.content


def plan(s: Shoppers, window: Window) -> None:
    """Put the turn's actions on their way."""
    row = np.flatnonzero(window.turn.action > 0)
    free = np.argmax(s.due[row], axis=1)
    s.due[row, free], s.due_action[row, free] = window.turn.send_at[row], window.turn.action[row]


def deliver(s: Shoppers, window: Window, spec: Spec, contents: Contents) -> Floats:
    """Contacts that are due in the window arrive; [B]: when the latest click was, -inf where none.

    The order in which two contacts of one window arrive does not matter much and is not kept.
    """
    clicked_at = np.full(len(s), -np.inf)
    for place in range(WAITING):
        u = window.uniform(_PER_CONTACT)
        row = np.flatnonzero(s.due[:, place] <= window.turn.until)
        action = s.due_action[row, place]
        channel, content = spec.catalogue.channel[action], spec.catalogue.content[action]
        contact = _Contact(row, channel, content, s.due[row, place], u[row])
        s.due[row, place] = np.inf
        opened, clicked, at = _respond(s, window, contents, contact)
        clicked_at[row] = np.maximum(clicked_at[row], np.where(clicked, at, -np.inf))
        _move(s, contents, contact, opened, clicked)
        _answer(s, window, contents, contact, clicked)
        leaves = _tire(s, window, contents, contact, clicked)
        _call_off(s, spec.catalogue, row[leaves], channel[leaves])
    return clicked_at


def _respond(s: Shoppers, window: Window, contents: Contents, c: _Contact) -> tuple[Bools, Bools, Floats]:
    """Noticed? Clicked? And when. Right channel and hour are noticed, right content and intent are clicked."""
    match = hour_match(s.peak[c.row], window.turn.zone[c.row], c.at)
    tired = s.fatigue[c.row]
    notice = numbers.OPENING[c.channel] + s.affinity[c.row, c.channel] + s.warmth[c.row]
    notice -= 0.15 * s.seen[c.row, c.content]
    opened = c.u[:, 0] < _sigmoid(notice + 2.2 * (match - 0.5) - 0.7 * tired)
    fits = contents.intent[c.content] == s.intent[c.row]
    interest = contents.appeal[c.content, s.kind[c.row]] + 0.6 * fits - 0.5 * s.seen[c.row, c.content]
    clicked = opened & (c.u[:, 1] < _sigmoid(1.2 * interest - 0.8 - 0.35 * tired))
    at = c.at - numbers.LAG_HOURS[c.channel] * 3600.0 * np.log1p(-c.u[:, 2]) * (1.5 - match)
    click_at = at + 20.0 + 600.0 * c.u[:, 3]
    window.add("open", c.row[opened], at[opened], answers=(c.channel[opened], c.content[opened]))
    window.add("click", c.row[clicked], click_at[clicked], answers=(c.channel[clicked], c.content[clicked]))
    return opened, clicked, click_at


def _move(s: Shoppers, contents: Contents, c: _Contact, opened: Bools, clicked: Bools) -> None:
    """What was read works: some of it for days, some only now, some by teaching to wait for the next discount."""
    depth = 0.25 * opened + 0.75 * clicked
    fits = contents.intent[c.content] == s.intent[c.row]
    liking = np.clip(0.5 + contents.appeal[c.content, s.kind[c.row]], 0.0, 1.5)
    fresh = np.exp(-0.5 * s.seen[c.row, c.content])
    gain = contents.gain[c.content] * depth * liking * fresh * (1.0 + 0.4 * fits)
    s.interest[c.row] = np.minimum(s.interest[c.row] + gain, 2.0)
    incentive = contents.incentive[c.content]
    urge = contents.spark[c.content] * depth * np.where(incentive, s.thrift[c.row], liking)
    s.spark[c.row] = np.minimum(s.spark[c.row] + urge, 12.0)
    s.trust[c.row] = np.minimum(s.trust[c.row] + contents.trust[c.content] * depth, 2.0)
    s.habit[c.row] += 4.0 * contents.discount[c.content] * opened
    reads_offer = opened & incentive
    row, content = c.row[reads_offer], c.content[reads_offer]
    s.offer[row] = np.where(content == contents.free_shipping, 4.9, contents.discount[content])
    s.offer_until[row] = c.at[reads_offer] + 3 * 86_400.0


def _answer(s: Shoppers, window: Window, contents: Contents, c: _Contact, clicked: Bools) -> None:
    """Surveys are answered, troubles are solved."""
    asked = clicked & (c.content == contents.survey)
    row = c.row[asked]
    mood = 7.6 + 1.6 * s.trust[row] - 1.2 * s.fatigue[row] - 2.5 * s.trouble[row] + _logistic(c.u[asked, 4])
    points = np.clip(np.round(mood), 0.0, 10.0)
    window.add("survey_answer", row, c.at[asked] + 1800.0 * c.u[asked, 5], points, (c.channel[asked], c.content[asked]))
    solved = clicked & (c.u[:, 6] < contents.resolves[c.content])
    s.trouble[c.row[solved]] = 0.0


def _tire(s: Shoppers, window: Window, contents: Contents, c: _Contact, clicked: Bools) -> Bools:
    """Every contact costs goodwill, an unwelcome one more; too many of them end the channel: for whom, Bools [m]."""
    leaving = numbers.UNSUBSCRIBING[c.channel] * np.exp(0.8 * s.fatigue[c.row]) * np.where(clicked, 0.3, 1.0)
    leaves = c.u[:, 7] < np.minimum(leaving, 0.25)
    row, channel = c.row[leaves], c.channel[leaves]
    at = c.at[leaves] + 60.0 + 7200.0 * c.u[leaves, 4]
    window.add("unsubscribe", row, at, answers=(channel, c.content[leaves]))
    s.seen[c.row, c.content] += 1.0
    weight = numbers.PRESSURE[c.channel] * contents.pressure[c.content] * np.where(clicked, 0.5, 1.0)
    s.fatigue[c.row] += s.skin[c.row] * weight
    return leaves


def _call_off(s: Shoppers, catalogue: Catalogue, row: Ints, channel: Ints) -> None:
    """Nothing goes out any more on a channel that a customer has just left."""
    on_its_way = np.isfinite(s.due[row]) & (catalogue.channel[s.due_action[row]] == channel[:, None])
    s.due[row] = np.where(on_its_way, np.inf, s.due[row])


def _sigmoid(x: Floats) -> Floats:
    return 1.0 / (1.0 + np.exp(-x))


def _logistic(u: Floats) -> Floats:
    """A logistic quantile: like a normal with standard deviation 1.8, a little heavier in the tails."""
    return np.log(np.maximum(u, 1e-12) / (1.0 - u))
