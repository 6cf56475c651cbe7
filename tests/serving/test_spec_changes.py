"""A later spec of the same use case that no longer declares what the store's log names: the service works on, and
reading the log says what has to be declared.
"""

from pathlib import Path

import pytest

from engine.errors import LogError
from engine.spec import Spec
from serving.sqlite import SqliteStore
from serving.store import Changes, Customer
from tests.serving.conftest import NOON, Open, ask, tell
from tests.serving.tiny import SPEC, tiny_bundle
from training.logs import read_log

# ibis reads SQLite through what pandas 3.1 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")

CLICK = "[events.click]\nresponse = true\n"
SMS = '[channels.sms]\nconsent = "opt_in"\ncost = 0.05\n'
REMINDER = '[[contents]]\nid = "reminder"\nattributes = { kind = "reminder", discount = 0.0 }\n'


def without(text: str) -> str:
    assert text in SPEC
    return SPEC.replace(text, "")


@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        (CLICK, r"table events: row \d+: column kind: found 'click', expected a kind that the spec declares"),
        (SMS, r"column (channel|eligible): found 'sms.*, expected (a channel|channel/content/timing)"),
        (REMINDER, r"column content: found 'reminder', expected a content that the spec declares"),
    ],
    ids=["kind", "channel", "content"],
)
def test_what_was_dropped_is_served_on_and_named_when_read(
    company: Open, tmp_path: Path, dropped: str, message: str
) -> None:
    here = company()
    here.track(tell("subscribe", "anna", NOON - 9.0, channel="sms"), tell("click", "anna", NOON - 5.0, channel="sms"))
    answers = here.decide(*(ask(f"r{i}", f"c{i}") for i in range(40)), ask("first", "anna"))
    smaller = tiny_bundle(tmp_path / "smaller", without(dropped))
    there = company(smaller)
    assert [a.decision for a in there.decide(*(ask(f"r{i}", f"c{i}") for i in range(40)))] == [
        a.decision for a in answers[:-1]
    ]
    assert not there.decide(ask("second", "anna"))[0].repeated
    with pytest.raises(LogError, match=message):
        read_log(smaller.spec, f"sqlite:///{tmp_path / 'store.db'}")


def test_a_channel_is_retired_by_a_rule_that_nobody_fulfils(company: Open, tmp_path: Path) -> None:
    here = company()
    here.track(tell("subscribe", "anna", NOON - 9.0, channel="sms"))
    retired = """
        [[guardrails.eligibility]]
        name = "sms_is_retired"
        channels = ["sms"]
        require = [{ event = "order", within_days = 1, not_within_days = 1 }]
        """
    there = company(tiny_bundle(tmp_path / "retired", SPEC + retired))
    answer = there.decide(ask("r", "anna", explain=True))[0]
    assert answer.explanation is not None
    assert {a.channel for a, codes in answer.explanation.removed if codes == ("eligibility:sms_is_retired",)} == {"sms"}
    assert len(read_log(Spec.parse(SPEC + retired), f"sqlite:///{tmp_path / 'store.db'}").events) == 1


def test_a_dropped_channel_that_nobody_used_is_no_obstacle(tmp_path: Path) -> None:
    """Its empty column of consents stays in the store; with consents in it, it must stay declared."""
    path, smaller = tmp_path / "s.db", Spec.parse(without(SMS))
    SqliteStore(path, Spec.parse(SPEC), "").close()
    store = SqliteStore(path, smaller, "")
    with pytest.raises(LogError, match="expected at least one decision"):
        read_log(smaller, f"sqlite:///{path}")
    store.close()
    store = SqliteStore(path, Spec.parse(SPEC), "")
    store.commit(Changes([], [], [Customer("anna", None, {"sms": False})], []))
    store.close()
    with pytest.raises(LogError, match="column consent_sms: found consents, but no channel 'sms' is declared"):
        read_log(smaller, f"sqlite:///{path}")
