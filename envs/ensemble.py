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
from engine.records import HOLD, Bools, EventColumns, Floats, Floats32, Ints
from engine.spec import Spec
from envs.averages import MeanNumber, MeanValue
from envs.draws import Draws
from envs.endings import after_an_end, squeezed
from envs.ensemble_file import read_model, write_model
from envs.excitation import excited
from envs.laws import (
    BINS,
    MICROSECOND,
    Evolution,
    Layout,
    Stream,
    chance,
    choice_of,
    gone_out,
    log_odds,
    number_of,
    spread_of,
)
from envs.networks import Inputs, Networks, told_of
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
        expected = spec.encoder.size + spec.attributes.size + 2 + len(inputs.level)
        if inputs.size != expected or outcome.weights[0].shape[1] != expected:
            raise TrainingError(f"outcome model: found {inputs.size} inputs, expected {expected} with this spec")
        self.layout = Layout.of(self.streams)
        self._mean_value = [MeanValue.of(s.values) if s.values is not None else None for s in self.streams]
        self._mean_number = [MeanNumber.of(s.most) for s in self.streams]
        self._of_action = inputs.attributes @ outcome.links[:, self.layout.told :]
        seen = {s.kind for s in self.streams}
        self._ends = np.array([k.ends_journey for k in spec.kinds], bool)
        self.impossible = tuple(k.name for i, k in enumerate(spec.kinds) if i not in seen)

    @property
    def members(self) -> int:
        return len(self.outcome)

    def begin(self, replay: Replay, journey: Ints, draws: Draws) -> Latent:  # noqa: ARG002
        """A member for each customer, and no contact on its way."""
        return self.begin_as((draws.uniform(1)[:, 0] * self.members).astype(np.int64))

    def begin_as(self, member: Ints) -> Latent:
        """As `begin`, with these members [B]."""
        n = len(member)
        return {
            "member": member,
            "waiting": np.full(n, HOLD, np.int64),
            "waiting_at": np.full(n, np.inf),
            "inputs": np.zeros((n, self.inputs.size), np.float32),
            "told": np.zeros((n, 2 * len(self.spec.kinds)), np.float32),
        }

    def outcomes(self, latent: Latent, turn: Turn, draws: Draws) -> EventColumns:
        """The events that the customers' members draw."""
        return self._outcomes(latent, turn, draws, None)

    def outcomes_and_worth(self, latent: Latent, turn: Turn, draws: Draws) -> tuple[EventColumns, Floats]:
        """The events, and their mean reward less the action's cost, Floats [B]: an average over luck, not what was
        drawn.

        Of each stream given what earlier ones drew, so its mean over draws is the reward's (Rao-Blackwell), with
        far less variance: orders are rare and dear. What falls away because the journey ended before it is taken off
        as it was drawn, which keeps that mean exact.
        """
        worth = np.zeros(len(turn.now))
        events = self._outcomes(latent, turn, draws, worth)
        lost = events.take(after_an_end(events, self._ends, len(worth)))
        each = self.spec.reward.each[lost.kind] + self.spec.reward.per_value[lost.kind] * lost.value
        worth -= np.bincount(lost.row, weights=each, minlength=len(worth))
        return events, worth - self.spec.reward.cost[turn.action]

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
            now = turn.context[:, evolution.column]
            drawn = evolution.following(now, part, u[:, 2 * i :])
            context[:, evolution.column] = evolution.ruled(now, turn.action, drawn)
            start += evolution.width
        return context

    def probabilities(self, turn: Turn, told: Floats32) -> Floats:
        """P(kind happens in the window), Floats [B, K], the mean over the members.

        Given what earlier streams did, `told` float32 [B, S + V] as in `Layout`: as in the chain rule, the product
        over the kinds is the chance of all that happened.
        """
        inputs, layout = self.inputs.of(turn), self.layout
        total = np.zeros((len(turn.now), len(self.spec.kinds)))
        for m in range(self.members):
            output = self.output(turn, inputs, np.full(len(inputs), m))
            output[:, : layout.linked] += told @ self.outcome.links[m, : layout.told]
            never = np.ones_like(total)
            for s, law in enumerate(self.streams):
                never[:, law.kind] *= 1.0 - self.chance_of(s, turn, output)
            total += 1.0 - never
        return total / self.members

    def save(self, path: Path) -> None:
        """Write one file of arrays and JSON, without pickled code; whole or not at all."""
        write_model(path, self)

    @staticmethod
    def load(path: Path, spec: Spec) -> "EnsembleOutcomeModel":
        """Raises TrainingError for a file that is missing, corrupt or fitted to another spec."""
        return EnsembleOutcomeModel(spec, *read_model(path, spec))

    def _outcomes(self, latent: Latent, turn: Turn, draws: Draws, worth: Floats | None) -> EventColumns:
        """The events; their mean worth is added to `worth` [B] where there is one."""
        inputs = self.inputs.of(turn)
        output = self.output(turn, inputs, latent["member"].astype(np.int64))
        events = squeezed(self.spec, self._unfold(latent, turn, output, draws, worth), self._ends, turn)
        self._remember(latent, turn, inputs, events)
        return events

    def output(self, turn: Turn, inputs: Floats32, member: Ints) -> Floats:
        """Outputs [B, O] of each row's member with the links from the action's attributes and what past contacts carry
        over; then, where there is excitation, its intensities [B, S].
        """
        output = self.outcome.run(inputs, member).astype(np.float64)
        output[:, : self.layout.linked] += self._of_action[member, turn.action]
        if self.outcome.carryover is not None:
            output[:, : self.layout.streams] += self.outcome.carryover.of(turn.observation)
        if self.outcome.excitation is None:
            return output
        return np.concatenate([output, self.outcome.excitation.of(turn.observation)], axis=1)

    def chance_of(self, s: int, turn: Turn, output: Floats) -> Floats:
        """P(stream s happens), [B], by its score in outputs [B, O or O + S], as far as that is known."""
        score, size = output[:, s], self.layout.size
        p = chance(score) if self.outcome.excitation is None else excited(score, output[:, size + s])
        return possible(self.streams[s], turn) * p

    def _unfold(self, latent: Latent, turn: Turn, output: Floats, draws: Draws, worth: Floats | None) -> EventColumns:
        """Stream after stream, each knowing what the earlier ones drew. Adds their mean worth to `worth`.

        Changes `output`. A row's numbers come from its own stream of `draws`, and those of its events from one
        seed.
        """
        member, layout = latent["member"].astype(np.int64), self.layout
        links, valued = self.outcome.links, {int(s): i for i, s in enumerate(layout.valued)}
        u = draws.uniform(layout.streams)
        seed = (draws.uniform(1)[:, 0] * 2.0**53).astype(np.uint64)
        parts = list[EventColumns]()
        for s, law in enumerate(self.streams):
            p = self.chance_of(s, turn, output)
            if worth is not None:
                worth += p * self.worth_of(s, output)
            rows = np.flatnonzero(u[:, s] < p)
            if not len(rows):
                continue
            cell = Draws(seed[rows] + np.array([s + 1], np.uint64) * _STEP)
            events, number = self._events(latent, turn, output, (s, rows, cell))
            parts.append(events)
            told = links[member[rows], s].astype(np.float64)
            if law.values is not None:
                first = np.cumsum(number) - number
                score = np.add.reduceat(law.values.middle(events.value), first) / number
                told += score[:, None] * links[member[rows], layout.streams + valued[s]]
            output[rows, : layout.linked] += told
        return EventColumns.concat(parts)

    def worth_of(self, s: int, output: Floats) -> Floats | float:
        """The mean reward of stream s where it happens, [B], from outputs [B, O]."""
        law, reward = self.streams[s], self.spec.reward
        each: Floats | float = float(reward.each[law.kind])
        mean_value = self._mean_value[s]
        if mean_value is not None and reward.per_value[law.kind]:
            i = int(np.searchsorted(self.layout.valued, s))
            centre, spread = (output[:, start + i] for start in self.layout.value)
            each = each + reward.per_value[law.kind] * mean_value(centre, spread_of(spread))
        if law.most > 1 and np.any(each):
            i = int(np.searchsorted(self.layout.counted, s))
            centre, spread = (output[:, start + i] for start in self.layout.number)
            each = each * self._mean_number[s](centre, spread_of(spread))
        return each

    def _events(
        self, latent: Latent, turn: Turn, output: Floats, drawn: tuple[int, Ints, Draws]
    ) -> tuple[EventColumns, Ints]:
        """The events of a stream that happens to some rows, and how many each gets. `drawn`: stream, rows, luck."""
        s, rows, cell = drawn
        law, number = self.streams[s], np.ones(len(rows), np.int64)
        if law.most > 1:
            i = int(np.searchsorted(self.layout.counted, s))
            centre, spread = (output[rows, start + i] for start in self.layout.number)
            number = number_of(cell.uniform(1)[:, 0], centre, spread_of(spread), np.full(len(rows), float(law.most)))
        again = np.repeat(np.arange(len(rows)), number)
        place = np.arange(len(again)) - np.repeat(np.cumsum(number) - number, number)
        u = Draws(cell.key[again], np.uint64(1) + np.uint64(5) * place.astype(np.uint64)).uniform(5)
        row = rows[again]
        first = self.layout.part + s * BINS
        at = self._times(law, turn, row, output[row, first : first + BINS], u)
        value = np.zeros(len(row))
        if law.values is not None:
            i = int(np.searchsorted(self.layout.valued, s))
            centre, spread = (output[row, start + i] for start in self.layout.value)
            value = law.values.value(centre + spread_of(spread) * log_odds(u[:, 2]))
        channel, content = self._contacts(law, latent, turn, (row, at, u))
        return EventColumns(row, np.full(len(row), law.kind), at, value, channel, content), number

    def _times(self, law: Stream, turn: Turn, row: Ints, logits: Floats, u: Floats) -> Floats:
        start, until = turn.send_at[row] if law.answer else turn.now[row], turn.until[row]
        if law.at_once:
            return np.minimum(start + MICROSECOND, until)
        part = choice_of(u[:, 0], logits)
        share = law.edges[part] + (1.0 - u[:, 1]) * (law.edges[part + 1] - law.edges[part])
        return np.clip(start + share * (until - start), np.nextafter(turn.now[row], np.inf), until)

    def _contacts(
        self, law: Stream, latent: Latent, turn: Turn, drawn: tuple[Ints, Floats, Floats]
    ) -> tuple[Ints, Ints]:
        """Channel and content that events name, -1 = none. `drawn`: row, time and five uniforms of each."""
        row, at, u = drawn
        catalogue = self.spec.catalogue
        if law.answer:
            return catalogue.channel[turn.action[row]], catalogue.content[turn.action[row]]
        if not law.names:
            return np.full(len(row), -1), np.full(len(row), -1)
        arrived = latent["waiting_at"][row].astype(np.float64) <= at
        earlier = np.where(arrived, latent["waiting"][row], turn.last_contact[row]).astype(np.int64)
        return self._named(law, earlier, u[:, 3:])

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
        """Of the contacts that are still on their way the next one, as `training/evidence.py` sees it in a log."""
        before = latent["waiting_at"].astype(np.float64)
        before = np.where(before > turn.until, before, np.inf)
        present = np.where(turn.send_at > turn.until, turn.send_at, np.inf)  # never for hold, which has NaN
        latent["waiting"] = np.where(present < before, turn.action, latent["waiting"])
        latent["waiting_at"] = np.minimum(present, before)
        if self.context is not None:
            latent["inputs"] = inputs
            latent["told"] = told_of(events, len(turn.now), len(self.spec.kinds))


def possible(law: Stream, turn: Turn) -> Bools:
    """Bools [B]: nothing happens in an empty window, and nobody answers what does not go out in it."""
    return gone_out(turn.send_at, turn.until) if law.answer else np.asarray(turn.until > turn.now, bool)
