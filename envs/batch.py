"""The one step loop of the house: B customers, each on a replayed journey, moved on together with array code.

Everything in a step but the outcomes is what the live engine does: the fold, the encoder, the guardrails, the
reward. The outcomes come from an `OutcomeModel`, learned or known. Training (`vector_env`), the single environment,
simulated logs and true values all step through here. Row i draws only from its own stream, so a batch equals its
rows stepped alone.
"""

from dataclasses import dataclass

import numpy as np

from engine.errors import TrainingError
from engine.records import HOLD, Bools, EventColumns, Floats, Floats32, Ints
from engine.spec import Spec
from envs.contacts import ContactTrail
from envs.draws import Draws
from envs.endings import after_an_end
from envs.outcomes import Latent, OutcomeModel, Turn
from envs.replay import Replay


@dataclass(frozen=True, slots=True)
class Step:
    """One decision of each of B customers, what followed, and where it left them.

    journey: Ints [B], place in the replay; index: Ints [B], 0 for a journey's first decision. turn: what was known
    and done. mask: Bools [B, n] at the decision. events: of the window (now, until], `row` in [0, B). reward:
    Floats [B], not discounted within the window. terminated: Bools [B], an event that ends the journey happened.
    truncated: Bools [B], the replay has no further decision. observation: Floats32 [B, d], after the window: of the
    next decision, or of the window's end.
    """

    journey: Ints
    index: Ints
    turn: Turn
    mask: Bools
    events: EventColumns
    reward: Floats
    terminated: Bools
    truncated: Bools
    observation: Floats32

    @property
    def done(self) -> Bools:
        return self.terminated | self.truncated


class JourneyBatch:
    """B customers on journeys of a replay. Call `reset` first, then `step` with one action each.

    Public arrays, valid between calls: journey, index [B]; now, until [B]; zone [B]; context [B, c]; observation
    Floats32 [B, d]; mask Bools [B, n]; over Bools [B], True = the journey has ended and must be reset or dropped;
    state, the fold's.
    """

    def __init__(self, spec: Spec, model: OutcomeModel, replay: Replay, draws: Draws) -> None:
        """`draws` holds a stream for each of B rows. Raises TrainingError for a replay without journeys or with an
        empty one.
        """
        if not len(replay) or int(replay.length.min()) < 1:
            raise TrainingError("found a replay without journeys or decisions, expected at least one decision in each")
        self.spec, self.model, self.replay, self.draws = spec, model, replay, draws
        self._ends = np.array([k.ends_journey for k in spec.kinds], bool)
        n = len(draws)
        self.journey, self.index = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.now, self.until = np.zeros(n), np.zeros(n)
        self.zone = np.zeros(n, np.int64)
        self.context = np.zeros((n, len(spec.context)))
        self.state = spec.fold.empty(n)
        self.observation = np.zeros((n, spec.encoder.size), np.float32)
        self.mask = np.zeros((n, len(spec.catalogue)), bool)
        self.over = np.ones(n, bool)
        self._trail = ContactTrail.empty(n)
        self._latent: Latent = {}

    def __len__(self) -> int:
        return len(self.now)

    def reset(self, rows: Ints | None = None, journey: Ints | None = None) -> None:
        """Start `rows` (all when None) on these journeys; when None each row draws one, with replacement."""
        rows = np.arange(len(self)) if rows is None else rows
        if not len(rows):
            return
        draws = self.draws.take(rows)
        if journey is None:
            journey = (draws.uniform(1)[:, 0] * len(self.replay)).astype(np.int64)
        latent = self.model.begin(self.replay, journey, draws)
        self.draws.put(rows, draws)
        self._put_latent(rows, latent)
        self.journey[rows], self.index[rows], self.over[rows] = journey, 0, False
        self.now[rows], self.until[rows] = self.replay.decided_at[journey, 0], self.replay.until[journey, 0]
        self.zone[rows], self.context[rows] = self.replay.zone[journey], self.replay.context[journey, 0]
        self.state.put(rows, self.replay.initial.take(journey))
        self._trail.clear(rows)
        self._look(rows)

    def step(self, action: Ints, enforce: bool = True) -> Step:
        """Take one action [B] each and go to the next decision.

        Raises TrainingError for an action that the mask forbids (unless `enforce` is False: to replay what was done
        under other rules) and for a row whose journey is over.
        """
        self._check(action, enforce)
        rows = np.arange(len(self))
        turn, mask = self._turn(rows, action), self.mask
        events = self.model.outcomes(self._latent, turn, self.draws)
        events, terminated = self._until_the_end(events)
        self.spec.fold.add_contacts(self.state, rows, action, turn.now, turn.send_at)
        self.spec.fold.add_events(self.state, events)
        self._trail.add(rows, action, turn.send_at)
        index, truncated = self.index, self._advance(turn)
        truncated = truncated & ~terminated
        self.over = terminated | truncated
        self._look(None)
        return Step(
            journey=self.journey.copy(),
            index=index,
            turn=turn,
            mask=mask,
            events=events,
            reward=self.spec.reward.of_events(events, action),
            terminated=terminated,
            truncated=truncated,
            observation=self.observation,
        )

    def keep(self, rows: Ints) -> None:
        """Only these rows stay, in this order; the batch shrinks."""
        self.draws, self.state = self.draws.take(rows), self.state.take(rows)
        for name in ("journey", "index", "now", "until", "zone", "context", "observation", "mask", "over"):
            setattr(self, name, getattr(self, name)[rows])
        self._trail.keep(rows)
        self._latent = {name: values[rows] for name, values in self._latent.items()}

    def _check(self, action: Ints, enforce: bool) -> None:
        if self.over.any():
            raise TrainingError(
                f"row {int(self.over.argmax())}: found a journey that is over, expected a reset before a step"
            )
        allowed = self.mask[np.arange(len(self)), action]
        if not enforce or allowed.all():
            return
        row = int(allowed.argmin())
        at, chosen = np.array([row]), int(action[row])
        removed = self.spec.guardrails.removed(self.state.take(at), self.context[at], self.now[at], self.zone[at])
        why = ", ".join(removed[0].get(chosen, ()))
        raise TrainingError(
            f"row {row}, customer {self.replay.customer_id[self.journey[row]]!r}: found action "
            f"{self.spec.catalogue.actions[chosen]}, which the guardrails forbid now ({why})"
        )

    def _turn(self, rows: Ints, action: Ints) -> Turn:
        return Turn(
            observation=self.observation,
            context=self.context,
            action=action,
            last_contact=self._trail.latest(rows, self.now),
            now=self.now,
            send_at=self._send_at(action),
            until=self.until,
            zone=self.zone.copy(),
        )

    def _send_at(self, action: Ints) -> Floats:
        """[B], NaN for hold. A contact that was logged although its time of day had passed went out at once."""
        at = self.spec.catalogue.send_at_of(action, self.now, self.zone)
        return np.where((action != HOLD) & np.isnan(at), self.now, at)

    def _until_the_end(self, events: EventColumns) -> tuple[EventColumns, Bools]:
        """Nothing follows an event that ends the journey. Also which rows [B] had one."""
        terminated = np.zeros(len(self), bool)
        final = self._ends[events.kind]
        if not final.any():
            return events, terminated
        terminated[events.row[final]] = True
        return events.take(~after_an_end(events, self._ends, len(self))), terminated

    def _advance(self, turn: Turn) -> Bools:
        """To the next decision, or to the window's end where there is none: those rows [B]."""
        index = self.index + 1
        last = index >= self.replay.length[self.journey]
        place = (self.journey, np.where(last, self.index, index))
        self.context = self.model.evolve(self._latent, turn, self.replay.context[place], self.draws)
        self.now = np.where(last, turn.until, self.replay.decided_at[place])
        self.until = np.where(last, turn.until, self.replay.until[place])
        self.index = index
        return np.asarray(last, bool)

    def _look(self, rows: Ints | None) -> None:
        """Fresh observations and masks, of all rows as new arrays when None: those handed out never change."""
        if rows is None or len(rows) == len(self):
            at = self.state, self.context, self.now, self.zone
            self.observation, self.mask = self.spec.encoder.observe(*at), self.spec.guardrails.mask(*at)
            return
        at = self.state.take(rows), self.context[rows], self.now[rows], self.zone[rows]
        self.observation, self.mask = self.observation.copy(), self.mask.copy()
        self.observation[rows], self.mask[rows] = self.spec.encoder.observe(*at), self.spec.guardrails.mask(*at)

    def _put_latent(self, rows: Ints, latent: Latent) -> None:
        for name, values in latent.items():
            if name not in self._latent:
                self._latent[name] = np.zeros((len(self), *values.shape[1:]), values.dtype)
            self._latent[name][rows] = values
