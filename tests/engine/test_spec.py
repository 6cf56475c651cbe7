"""nextbest.toml: a good one comes back whole, every mistake says where it is and what would be right."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from engine.errors import SpecError
from engine.spec import Spec
from tests.engine.small import SPEC, TEXT

# (what is written instead of what, the one line it must give)
MISTAKES: list[tuple[str, str, str]] = [
    ("discount_per_day", "discout_per_day", "[journey] discout_per_day: unknown key; did you mean 'discount_per_day'?"),
    ("[journey]", "[jurney]", "jurney: unknown key; did you mean 'journey'?"),
    ("horizon_days = 14", 'horizon_days = "14"', "[journey] horizon_days: found '14', expected a number"),
    ("[0.5, 7.0]", "[0.5, -7.0]", "[journey] half_lives_days, item 2: found -7.0, expected greater than 0"),
    ("[0.5, 7.0]", "[]", "[journey] half_lives_days: found [], expected at least one item"),
    (
        "[0.5, 7.0]",
        "[7, 7.0]",
        "[journey] half_lives_days: found [7, 7.0], expected values that differ from each other",
    ),
    ("per_day = 0.9", "per_day = 1.9", "[journey] discount_per_day: found 1.9, expected less than or equal to 1"),
    (
        'moments = ["daily", "cart"]',
        'moments = "daily"',
        "[journey] moments: found 'daily', expected a list",
    ),
    ('type = "flag"', 'type = "bool"', "[context.member] type: found 'bool', expected 'number', 'flag' or 'category'"),
    (
        'categories = ["good", "bad"]\n',
        "",
        "[context.mood]: expected categories, for a category and for nothing else",
    ),
    ('["good", "bad"]', '["good", "good"]', "[context.mood]: expected categories that differ from each other"),
    ("maximum = 100", "maximum = -1", "[context.stock]: expected a minimum that is not above the maximum"),
    (
        "[events.churn]\nends_journey",
        "[events.churn]\nend_journey",
        "[events.churn] end_journey: unknown key; did you mean 'ends_journey'?",
    ),
    ('"withdrawn"', '"revoked"', "[events.unsubscribe] consent: found 'revoked', expected 'granted' or 'withdrawn'"),
    ("ends_journey = true", "ends_journey = 1", "[events.churn] ends_journey: found 1, expected true or false"),
    ('"opt_in"', '"optin"', "[channels.sms] consent: found 'optin', expected 'opt_in', 'opt_out' or 'none'"),
    ("cost = 0.1\n", "cost = -0.1\n", "[channels.sms] cost: found -0.1, expected greater than or equal to 0"),
    ("cost = 0.1\n", "cost = nan\n", "[channels.sms] cost: found nan, expected a finite number"),
    ("delay_hours = 2.5", "days = 1", "[timings.later]: expected either delay_hours or at"),
    ('at = "19:00"', 'at = "25:00"', "[timings.evening] at: found '25:00', expected a time of day such as 08:30"),
    ('at = "19:00"', 'at = "7pm"', "[timings.evening] at: found '7pm', expected a time of day such as 08:30"),
    (
        'channels = ["email", "sms"]\nt',
        'channels = ["email", "smss"]\nt',
        "[contents offer] channels: found 'smss', which is not declared; did you mean 'sms'?",
    ),
    (
        'timings = ["now", "morning"]',
        'timings = ["now", "mornin"]',
        "[contents offer] timings: found 'mornin', which is not declared; did you mean 'morning'?",
    ),
    ('timings = ["now", "morning"]', "timings = []", "[contents offer] timings: found [], expected at least one name"),
    ('id = "offer"', 'id = "reminder"', "[contents] id: found 'reminder' twice, expected ids that differ"),
    ('id = "offer"', 'id = "an offer"', "[contents.2] id: found 'an offer', expected letters, digits and _ . - only"),
    ("cost = 0.5", "costs = 0.5", "[contents.2] costs: unknown key; did you mean 'cost'?"),
    (
        "valid_from = 2026-01-10T00:00:00Z",
        "valid_from = 2026-01-10T00:00:00",
        "[contents.2] valid_from: found 2026-01-10 00:00:00, expected a time with a zone such as 2026-01-01T00:00:00Z",
    ),
    (
        "valid_from = 2026-01-10T00:00:00Z",
        "valid_from = 2026-01-10",
        "[contents.2] valid_from: found 2026-01-10, expected a time with a zone such as 2026-01-01T00:00:00Z",
    ),
    (
        "valid_from = 2026-01-10T00:00:00Z",
        "valid_from = 2027-01-10T00:00:00Z",
        "[contents.2]: expected valid_from before valid_until",
    ),
    (
        "discount = 0.2",
        'discount = "much"',
        "[contents offer] attributes.discount: found 'much', expected a number or flag as in content 'reminder'",
    ),
    (
        "discount = 0.2",
        "discount = [1]",
        "[contents.2.attributes] discount: found [1], expected a number or true or false or a text",
    ),
    ("limit = 3", "limit = 0", "[guardrails.caps.1] limit: found 0, expected greater than or equal to 1"),
    ("limit = 3", "limit = 3.5", "[guardrails.caps.1] limit: found 3.5, expected a whole number"),
    ("limit = 3\n", "", "[guardrails.caps.1] limit: is missing"),
    (
        "window_days = 2.0",
        "window_hours = 2",
        "[guardrails.caps.1] window_hours: unknown key; did you mean 'window_days'?",
    ),
    ("window_days = 5.5", "window_days = 0", "[guardrails.caps.2] window_days: found 0, expected greater than 0"),
    ('"sms_offer"', '"all"', "[guardrails.caps] name: found 'all' twice, expected names that differ"),
    (
        'contents = ["offer"]\n\n[[guardrails.q',
        'contents = ["ofer"]\n\n[[guardrails.q',
        "[guardrails.caps sms_offer] contents: found 'ofer', which is not declared; did you mean 'offer'?",
    ),
    (
        'start = "21:00"',
        'start = "8:00"',
        "[guardrails.quiet_hours.1]: expected an end that differs from the start",
    ),
    (
        'event = "view", w',
        'event = "veiw", w',
        "[guardrails.eligibility after_view] event: found 'veiw', which is not declared; did you mean 'view'?",
    ),
    (
        "within_days = 3 ",
        "withn_days = 3 ",
        "[guardrails.eligibility.1.require.1] withn_days: unknown key; did you mean 'within_days'?",
    ),
    (
        'feature = "loyalty"',
        'feature = "loyality"',
        "[guardrails.eligibility loyal_only] feature: found 'loyality', which is not declared; did you mean 'loyalty'?",
    ),
    (
        'is = ["regular", "loyal"]',
        'is = ["regular", "loyl"]',
        "[guardrails.eligibility loyal_only] is: found 'loyl', no category of loyalty; did you mean 'loyal'?",
    ),
    (
        '{ feature = "score", at_least = 0.5, at_most = 2 }',
        '{ feature = "loyalty", at_least = 0.5 }',
        "[guardrails.eligibility loyal_only] feature: loyalty is a category; at_least and at_most are for numbers",
    ),
    (
        '{ feature = "score", at_least = 0.5, at_most = 2 }',
        '{ feature = "score", is = ["a"] }',
        "[guardrails.eligibility loyal_only] is: found 'a', expected a number, as score is one",
    ),
    ("[reward.events.order]", "[reward.events.oder]", "oder: the event is not declared; did you mean 'order'?"),
    (
        "each = -5.0",
        "per_value = -5.0",
        "[reward.events.unsubscribe] per_value: [events.unsubscribe] declares no value",
    ),
    ('name = "small"\n', "", "name: is missing"),
    ('name = "small"', "name = small", "is not TOML: Invalid value (at line 2, column 8)"),
    ("[channels.web]", "[channels.sms]", "is not TOML: Cannot declare ('channels', 'sms') twice"),
]


@pytest.mark.parametrize(("before", "after", "message"), MISTAKES, ids=[m[2][:60] for m in MISTAKES])
def test_a_mistake_gives_one_line_that_says_where_and_what(before: str, after: str, message: str) -> None:
    assert before in TEXT
    with pytest.raises(SpecError) as caught:
        Spec.parse(TEXT.replace(before, after, 1), file="shop/nextbest.toml")
    assert str(caught.value).startswith("shop/nextbest.toml: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_mistakes_give_a_line_each() -> None:
    with pytest.raises(SpecError) as caught:
        Spec.parse(TEXT.replace("limit = 3", "limit = 0").replace("cost = 0.5", "costs = 0.5"))
    assert len(str(caught.value).splitlines()) == 2


def test_what_must_be_there() -> None:
    with pytest.raises(SpecError) as caught:
        Spec.parse("")
    expected = [f"nextbest.toml: {key}: is missing" for key in ("name", "events", "channels", "reward")]
    assert str(caught.value).splitlines() == expected
    with pytest.raises(SpecError, match=r"expected at least one of \[\[contents\]\], or contents_file"):
        Spec.parse('name = "x"\n[events.a]\n[channels.b]\n[reward.events.a]\n')


def test_the_smallest_spec() -> None:
    spec = Spec.parse('name = "x"\n[events.a]\n[channels.b]\n[[contents]]\nid = "c"\n[reward.events.a]\neach = 1')
    assert [str(a) for a in spec.catalogue.actions] == ["hold", "b/c/now"]
    assert spec.journey.discount_per_day == 0.99
    assert spec.journey.half_lives_days == (1.0, 7.0)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.toml: cannot be read: No such file"):
        Spec.read(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes("name = 'Käse'".encode("latin-1"))
    with pytest.raises(SpecError, match="it is not UTF-8 text"):
        Spec.read(tmp_path / "latin.toml")


def test_a_byte_order_mark_is_no_part_of_the_spec(tmp_path: Path) -> None:
    (tmp_path / "nextbest.toml").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    found = Spec.read(tmp_path / "nextbest.toml")
    assert (found.text, found.digest) == (SPEC.text, SPEC.digest)


def test_a_good_spec_comes_back_whole(tmp_path: Path) -> None:
    (tmp_path / "nextbest.toml").write_text(TEXT)
    spec = Spec.read(tmp_path / "nextbest.toml")
    assert spec.text == TEXT
    assert spec.name == "small"
    assert spec.currency == "EUR"
    assert spec.digest == SPEC.digest
    assert spec.encoder.names == SPEC.encoder.names
    assert spec.catalogue.actions == SPEC.catalogue.actions
    assert spec.fold.digest == SPEC.fold.digest
    assert [r.code(1) for r in spec.guardrails.rules] == [r.code(1) for r in SPEC.guardrails.rules]
    journey = spec.journey
    assert (journey.discount_per_day, journey.horizon_days) == (0.9, 14.0)
    assert (journey.half_lives_days, journey.moments) == ((0.5, 7.0), ("daily", "cart"))
    kinds = {k.name: k for k in spec.kinds}
    assert list(kinds) == ["view", "order", "unsubscribe", "subscribe", "churn"]
    assert (kinds["view"].value, kinds["view"].response, kinds["churn"].ends_journey) == ("seconds", True, True)
    offer = spec.catalogue.contents[1]
    assert offer.valid_from == datetime(2026, 1, 10, tzinfo=UTC).timestamp()
    assert offer.valid_until == datetime(2026, 2, 9, 23, tzinfo=UTC).timestamp()
    all_cap, sms_cap = spec.fold.caps
    assert (all_cap.limit, all_cap.window_seconds, all_cap.actions.tolist()) == (3, 172_800.0, [False] + [True] * 20)
    assert {str(spec.catalogue.actions[i]) for i in np.flatnonzero(sms_cap.actions)} == {
        "sms/offer/now",
        "sms/offer/morning",
    }


def test_the_digest_is_that_of_the_text() -> None:
    assert Spec.parse(TEXT).digest == SPEC.digest
    assert len(SPEC.digest) == 12
    assert Spec.parse(TEXT.replace("limit = 3", "limit = 4")).digest != SPEC.digest


# A catalogue in a file of its own

HEAD = """name = "x"
contents_file = "contents.csv"
[events.a]
[channels.b]
[channels.c]
[timings.now]
delay_hours = 0
[timings.noon]
at = "12:00"
[reward.events.a]
each = 1.0
"""
CSV = """id,channels,timings,cost,valid_from,valid_until,kind,price,fresh
one,b;c,now,0.5,2026-01-01T00:00:00Z,,tip,1.5,true
"two", c ,,,,,"offer, big",,false
"""


def test_contents_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "nextbest.toml").write_text(HEAD)
    (tmp_path / "contents.csv").write_bytes(b"\xef\xbb\xbf" + CSV.encode())
    spec = Spec.read(tmp_path / "nextbest.toml")
    one, two = spec.catalogue.contents
    assert (one.id, one.channels, one.timings, one.cost) == ("one", ("b", "c"), ("now",), 0.5)
    assert (one.valid_from, one.valid_until) == (datetime(2026, 1, 1, tzinfo=UTC).timestamp(), None)
    assert one.attributes == {"kind": "tip", "price": 1.5, "fresh": True}
    assert (two.id, two.channels, two.timings, two.cost) == ("two", ("c",), ("now", "noon"), 0.0)
    assert two.attributes == {"kind": "offer, big", "fresh": False}
    again = Spec.parse(spec.text, contents_text=spec.contents_text)
    assert again.catalogue.contents == spec.catalogue.contents
    assert again.digest == spec.digest
    assert Spec.parse(HEAD, contents_text=CSV.replace("1.5", "2.5")).digest != spec.digest


def test_contents_from_parquet(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(
        pa.table({"id": ["one", "two"], "kind": ["tip", "offer"], "price": [1.5, None]}), tmp_path / "c.parquet"
    )
    spec = Spec.parse(HEAD.replace("contents.csv", "c.parquet"), folder=tmp_path)
    assert [c.attributes for c in spec.catalogue.contents] == [{"kind": "tip", "price": 1.5}, {"kind": "offer"}]
    again = Spec.parse(spec.text, contents_text=spec.contents_text)
    assert again.catalogue.contents == spec.catalogue.contents


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CSV.replace("one,b;c", "one,b;d"), "[contents one] channels: found 'd', which is not declared"),
        (CSV.replace('"two"', "one"), "[contents] id: found 'one' twice"),
        (CSV.replace("now,0.5", "now,-0.5"), "contents.csv: row 2: cost: found -0.5, expected greater than or equal"),
        (CSV.replace("now,0.5", "now,cheap"), "contents.csv: row 2: cost: found 'cheap', expected a number"),
        (CSV.replace("T00:00:00Z", ""), "contents.csv: row 2: valid_from: found 2026-01-01 00:00:00, expected a time"),
        (CSV.replace("one,", ","), "contents.csv: row 2: id: is missing"),
        (CSV.replace(",1.5,true", ",1.5"), "contents.csv: row 2: has more or fewer cells than the header"),
        (CSV.replace(",1.5,true", ",1.5,true,9"), "contents.csv: row 2: has more or fewer cells than the header"),
        (CSV.splitlines()[0], "contents_file: found no content in it, expected at least one"),
        ("", "contents_file: found no content in it, expected at least one"),
    ],
)
def test_a_mistake_in_the_contents_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "contents.csv").write_text(text)
    with pytest.raises(SpecError) as caught:
        Spec.parse(HEAD, folder=tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_contents_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"contents_file: .*contents\.csv cannot be read: .*No such file"):
        Spec.parse(HEAD, folder=tmp_path)


@pytest.mark.parametrize(("contents", "remembered"), [(50, True), (51, False)])
def test_large_catalogues_keep_no_memory_of_single_contents(contents: int, remembered: bool) -> None:
    rows = "\n".join(f"x{i}" for i in range(contents))
    spec = Spec.parse(HEAD, contents_text=f"id\n{rows}\n")
    assert ("content:x0" in spec.fold.counters) == remembered
