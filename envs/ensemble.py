"""What customers do, learned from a log: an ensemble of small networks over the laws of `envs/laws.py`.

One member speaks for a customer for a whole episode, so what the log leaves open differs between episodes and not
between steps (Chua et al., "Deep reinforcement learning in a handful of trials", NeurIPS 2018). Fitted by
`training/fit.py` with torch; run here with numpy, row by row reproducible up to float32 rounding of matrix
products.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.errors import TrainingError
from engine.records import HOLD, EventColumns, Floats, Floats32, Ints
from engine.spec import Spec
from envs.draws import Draws
from envs.ensemble_file import read_model, write_model
from envs.laws import BINS, Evolution, Layout, Stream, choice_of, gone_out, log_odds, number_of, spread_of
from envs.networks import Inputs, Networks
from envs.outcomes import Latent, Turn
from envs.replay import Replay

_STEP = np.uint64(0xD1B54A32D192ED03)


class EnsembleOutcomeModel:
    """The learned `OutcomeModel`.

    Kinds that the log never shows are impossible: `impossible` names them. What is exogenous is never learned. A
    contact of an earlier decision that goes out in the window counts as the latest contact from then on.
    """

    def __init__(
        self,
        spec: Spec,
        streams: Sequence[Stream],
        evolutions: Sequence[Evolution],
        inputs: Inputs,
        outcome: Networks,
        context: Networks | None,
    ) -> None:
        """Raises TrainingError when the networks were fitted to another spec."""
        self.spec, self.streams, self.evolutions = spec, tuple(streams), tuple(evolutions)
        self.inputs, self.outcome, self.context = inputs, outcome, context
        expected = spec.encoder.size + spec.attributes.size + 2
        if inputs.size != expected or outcome.weights[0].shape[1] != expected:
            raise TrainingError(f"outcome model: found {inputs.size} inputs, expected {expected} with this spec")
        self.layout = Layout.of(self.streams)
        seen = {s.kind for s in self.streams}
        self.impossible = tuple(k.name for i, k in enumerate(spec.kinds) if i not in seen)
        self._kind = np.array([s.kind for s in self.streams], np.int64)
        self._answer = np.array([s.answer for s in self.streams], bool)
        self._most = np.array([s.most for s in self.streams], np.float64)

    @property
    def members(self) -> int:
        return len(self.outcome)

    def begin(self, replay: Replay, journey: Ints, draws: Draws) -> Latent:  # noqa: ARG002
        """A member for each customer, and no contact on its way."""
        n = len(journey)
        return {
            "member": (draws.uniform(1)[:, 0] * self.members).astype(np.int64),
            "waiting": np.full(n, HOLD, np.int64),
            "waiting_at": np.full(n, np.inf),
            "inputs": np.zeros((n, self.inputs.size), np.float32),
            "told": np.zeros((n, 2 * len(self.spec.kinds)), np.float32),
        }

    def outcomes(self, latent: Latent, turn: Turn, draws: Draws) -> EventColumns:
        """The events that the customers' members draw."""
        inputs = self.inputs.of(turn)
        output = self.outcome.run(inputs, latent["member"].astype(np.int64)).astype(np.float64)
        chances = self._chances(output, turn)
        happens = draws.uniform(len(self.streams)) < chances
        seed = (draws.uniform(1)[:, 0] * 2.0**53).astype(np.uint64)
        row, stream = np.nonzero(happens)
        cell = Draws(seed[row] + (stream.astype(np.uint64) + np.uint64(1)) * _STEP)
        number = self._numbers(output, row, stream, cell.uniform(1)[:, 0])
        again = np.repeat(np.arange(len(row)), number)
        place = np.arange(len(again)) - np.repeat(np.cumsum(number) - number, number)
        each = Draws(cell.key[again], np.uint64(1) + np.uint64(5) * place.astype(np.uint64))
        events = self._events(latent, turn, output, (row[again], stream[again], each.uniform(5)))
        self._remember(latent, turn, inputs, events)
        return events

    def evolve(self, latent: Latent, turn: Turn, replayed: Floats, draws: Draws) -> Floats:
        """The next context: endogenous features drawn, knowing what `outcomes` gave; the rest as replayed."""
        context = replayed.copy()
        u = draws.uniform(2 * len(self.evolutions)) if self.evolutions else np.zeros((len(turn.now), 0))
        if self.context is None:
            return context
        told = self._context_inputs(latent, turn)
        output = self.context.run(told, latent["member"].astype(np.int64)).astype(np.float64)
        start = 0
        for i, evolution in enumerate(self.evolutions):
            part = output[:, start : start + evolution.width]
            context[:, evolution.column] = _next_value(
                evolution, turn.context[:, evolution.column], part, u[:, 2 * i :]
            )
            start += evolution.width
        return context

    def probabilities(self, turn: Turn) -> Floats:
        """P(kind happens in the window), Floats [B, K], averaged over the members."""
        inputs = self.inputs.of(turn)
        total = np.zeros((len(turn.now), len(self.spec.kinds)))
        for m in range(self.members):
            output = self.outcome.run(inputs, np.full(len(inputs), m))
            never = np.ones_like(total)
            chances = self._chances(output.astype(np.float64), turn)
            for s, kind in enumerate(self._kind):
                never[:, kind] *= 1.0 - chances[:, s]
            total += 1.0 - never
        return total / self.members

    def save(self, path: Path) -> None:
        """Write one file of arrays and JSON, without pickled code; whole or not at all."""
        write_model(path, self)

    @staticmethod
    def load(path: Path, spec: Spec) -> "EnsembleOutcomeModel":
        """Raises TrainingError for a file that is missing, corrupt or fitted to another spec."""
        return EnsembleOutcomeModel(spec, *read_model(path, spec))

    def _chances(self, output: Floats, turn: Turn) -> Floats:
        """P(stream happens), [B, S]: 0 in an empty window, and for answers to what does not go out in it."""
        p = 1.0 / (1.0 + np.exp(-np.clip(output[:, : len(self.streams)], -50.0, 50.0)))
        open_window = turn.until > turn.now
        possible = np.where(self._answer, gone_out(turn.send_at, turn.until)[:, None], open_window[:, None])
        return np.asarray(p * possible, np.float64)

    def _numbers(self, output: Floats, row: Ints, stream: Ints, u: Floats) -> Ints:
        number = np.ones(len(row), np.int64)
        place = np.full(len(self.streams), -1)
        place[self.layout.counted] = np.arange(len(self.layout.counted))
        many = place[stream] >= 0
        at = self.layout.starts[0] + 2 * place[stream[many]]
        centre, spread = output[row[many], at], spread_of(output[row[many], at + 1])
        number[many] = number_of(u[many], centre, spread, self._most[stream[many]])
        return number

    def _events(self, latent: Latent, turn: Turn, output: Floats, drawn: tuple[Ints, Ints, Floats]) -> EventColumns:
        """`drawn`: row, stream and five uniforms of each event."""
        row, stream, u = drawn
        at, value = np.empty(len(row)), np.zeros(len(row))
        channel, content = np.full(len(row), -1), np.full(len(row), -1)
        catalogue, valued = self.spec.catalogue, list(self.layout.valued)
        _, values_start, times_start, _ = self.layout.starts
        for s, law in enumerate(self.streams):
            mine = np.flatnonzero(stream == s)
            r, w = row[mine], u[mine]
            start = turn.send_at[r] if law.answer else turn.now[r]
            logits = output[r, times_start + s * BINS : times_start + (s + 1) * BINS]
            part = choice_of(w[:, 0], logits)
            share = law.edges[part] + (1.0 - w[:, 1]) * (law.edges[part + 1] - law.edges[part])
            at[mine] = np.clip(
                start + share * (turn.until[r] - start), np.nextafter(turn.now[r], np.inf), turn.until[r]
            )
            if law.values is not None:
                o = values_start + 2 * valued.index(s)
                value[mine] = law.values.value(output[r, o] + spread_of(output[r, o + 1]) * log_odds(w[:, 2]))
            if law.answer:
                channel[mine], content[mine] = catalogue.channel[turn.action[r]], catalogue.content[turn.action[r]]
            elif law.names:
                arrived = latent["waiting_at"][r].astype(np.float64) <= at[mine]
                earlier = np.where(arrived, latent["waiting"][r], turn.last_contact[r]).astype(np.int64)
                channel[mine], content[mine] = self._named(law, earlier, w[:, 3:])
        return EventColumns(row, self._kind[stream], at, value, channel, content)

    def _named(self, law: Stream, earlier: Ints, u: Floats) -> tuple[Ints, Ints]:
        """The contact that an event names which does not answer the present one."""
        catalogue = self.spec.catalogue
        matches = (u[:, 0] < law.match) & (earlier != HOLD)
        other = law.pairs[np.searchsorted(np.cumsum(law.shares)[:-1], u[:, 1], side="right")]
        return (
            np.where(matches, catalogue.channel[earlier], other[:, 0]),
            np.where(matches, catalogue.content[earlier], other[:, 1]),
        )

    def _context_inputs(self, latent: Latent, turn: Turn) -> Floats32:
        """What the context networks see: the turn, log counts and values of its events, current scores of numbers."""
        numbers = [e for e in self.evolutions if e.scale is not None]
        scores = [e.scores(turn.context[:, e.column])[:, None] for e in numbers]
        parts = [latent["inputs"], latent["told"], *scores]
        return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")

    def _remember(self, latent: Latent, turn: Turn, inputs: Floats32, events: EventColumns) -> None:
        later = np.nan_to_num(turn.send_at, nan=-np.inf) >= turn.until
        latent["waiting"] = np.where(later, turn.action, HOLD)
        latent["waiting_at"] = np.where(later, turn.send_at, np.inf)
        if self.context is not None:
            latent["inputs"] = inputs
            latent["told"] = told_of(events, len(turn.now), len(self.spec.kinds))


def told_of(events: EventColumns, n: int, kinds: int) -> Floats32:
    """log(1 + counts) and signed log(1 + |values|) of each kind, float32 [n, 2 K], as the context networks see them."""
    cell = events.row * kinds + events.kind
    counts = np.bincount(cell, minlength=n * kinds).reshape(n, kinds)
    values = np.bincount(cell, weights=events.value, minlength=n * kinds).reshape(n, kinds)
    parts = [np.log1p(counts), np.copysign(np.log1p(np.abs(values)), values)]
    return np.concatenate(parts, axis=1, dtype=np.float32, casting="same_kind")


def _next_value(evolution: Evolution, now: Floats, output: Floats, u: Floats) -> Floats:
    """The next values [B] of one feature. `u`: at least two uniforms a row."""
    choice = choice_of(u[:, 0], output[:, : evolution.choices])
    listed = np.append(evolution.outcomes, [np.nan, np.nan])[choice]
    if evolution.scale is None:
        return listed
    centre, spread = output[:, evolution.choices], spread_of(output[:, evolution.choices + 1])
    moved = evolution.scale.value(evolution.scores(now) + centre + spread * log_odds(u[:, 1]))
    stays, moves = choice == len(evolution.outcomes), choice == len(evolution.outcomes) + 1
    return np.where(stays, now, np.where(moves, moved, listed))
