import numpy as np

from engine.records import EventColumns
from envs.endings import after_an_end, squeezed
from envs.outcomes import Turn
from tests.envs.tiny import tiny_spec

SPEC = tiny_spec()
KIND = {k.name: i for i, k in enumerate(SPEC.kinds)}
ENDS = np.array([k.ends_journey for k in SPEC.kinds])
OFFER = next(r for r, a in enumerate(SPEC.catalogue.actions) if str(a) == "email/offer/now")


def turn(send_at: list[float]) -> Turn:
    n = len(send_at)
    return Turn(
        observation=np.zeros((n, 0), np.float32),
        context=np.zeros((n, 0)),
        action=np.full(n, OFFER),
        last_contact=np.zeros(n, np.int64),
        now=np.zeros(n),
        send_at=np.array(send_at),
        until=np.full(n, 100.0),
        zone=np.zeros(n, np.int64),
    )


def events(*found: tuple[int, str, float, bool]) -> EventColumns:
    """(row, kind, instant, does it answer the offer)"""
    row, kind, at, answers = zip(*found, strict=True)
    catalogue, mine = SPEC.catalogue, np.array(answers)
    return EventColumns(
        np.array(row),
        np.array([KIND[k] for k in kind]),
        np.array(at),
        np.zeros(len(row)),
        np.where(mine, catalogue.channel[OFFER], -1),
        np.where(mine, catalogue.content[OFFER], -1),
    )


def test_what_happens_in_a_window_with_an_end_happens_before_it() -> None:
    drawn = events((0, "visit", 90.0, False), (0, "churn", 50.0, False), (1, "visit", 90.0, False))
    found = squeezed(SPEC, drawn, ENDS, turn([0.0, 0.0]))
    np.testing.assert_allclose(found.occurred_at, [45.0, 50.0, 90.0])
    assert not after_an_end(found, ENDS, 2).any()
    np.testing.assert_array_equal(after_an_end(drawn, ENDS, 2), [True, False, False])


def test_an_answer_comes_between_its_contact_and_the_end_or_not_at_all() -> None:
    drawn = events(
        (0, "open", 60.0, True), (0, "churn", 40.0, False), (1, "open", 60.0, True), (1, "churn", 10.0, False)
    )
    found = squeezed(SPEC, drawn, ENDS, turn([20.0, 20.0]))
    np.testing.assert_allclose(found.occurred_at, [30.0, 40.0, 60.0, 10.0])
    np.testing.assert_array_equal(after_an_end(found, ENDS, 2), [False, False, True, False])
