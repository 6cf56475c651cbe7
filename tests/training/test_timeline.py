"""One journey told and drawn: a log's and an environment's are the same where they are the same journey."""

import io

import numpy as np
import pytest
from rich.console import Console

from envs.simulate import by_policy, gather, steps, write_log
from envs.worlds import world
from training.journeys import Journeys
from training.logs import read_log
from training.timeline import Scene, of_log, of_steps, timeline, told

PLACE = world("retail")
WHO = 4


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Scene], list[Scene]]:
    """The same journey, from the steps that were played and from the log that was written of them."""
    replay = PLACE.replay(8, 10, seed=3)
    played = list(steps(PLACE, replay, by_policy(PLACE.logging_policy(), 8, 3), PLACE.spec, 3))
    folder = tmp_path_factory.mktemp("journey") / "log"
    write_log(folder, PLACE.spec, gather(replay, played), "p", {"world": "retail"})
    journeys = Journeys.of(PLACE.spec, read_log(PLACE.spec, folder))
    return of_steps(PLACE.spec, played, WHO), of_log(PLACE.spec, journeys, replay.customer_id[WHO])


def test_a_log_tells_the_journey_that_was_played(both: tuple[list[Scene], list[Scene]]) -> None:
    played, logged = both
    assert len(played) == len(logged) > 3
    for ours, theirs in zip(played, logged, strict=True):
        assert (ours.known, ours.allowed, ours.actions, ours.action) == (
            theirs.known, theirs.allowed, theirs.actions, theirs.action,
        )  # fmt: skip
        np.testing.assert_allclose(
            [ours.now, ours.send_at, ours.propensity], [theirs.now, theirs.send_at, theirs.propensity]
        )
        assert [e[0] for e in ours.happened] == [e[0] for e in theirs.happened]
        assert ours.reward == pytest.approx(theirs.reward)


def test_the_reasons_add_up_to_the_reward(both: tuple[list[Scene], list[Scene]]) -> None:
    scenes = both[0]
    assert any(scene.why for scene in scenes)
    for scene in scenes:
        assert sum(worth for _, worth in scene.why) == pytest.approx(scene.reward)


def test_it_is_told_decision_by_decision(both: tuple[list[Scene], list[Scene]]) -> None:
    text = io.StringIO()
    Console(file=text, width=160).print(told(both[0]))
    lines = text.getvalue().splitlines()
    assert sum("done" in line for line in lines) == len(both[0])
    first = next(s for s in both[0] if s.happened)
    assert any(first.happened[0][0] in line for line in lines)
    assert f"of {len(PLACE.spec.catalogue)} actions" in text.getvalue()


def test_it_is_drawn_with_every_contact_and_every_kind(both: tuple[list[Scene], list[Scene]]) -> None:
    figure = timeline(PLACE.spec, both[0], "one customer")
    events, actions, rewards = figure.axes
    kinds = {kind for scene in both[0] for kind, *_ in scene.happened}
    assert {label.get_text() for label in events.get_yticklabels()} == kinds
    assert len(actions.texts) == sum(not scene.action.is_hold for scene in both[0])
    assert len(rewards.patches) == len(both[0])
