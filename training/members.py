"""The members of an ensemble while they learn: networks of the same shape, side by side.

History has to earn its place. Its columns start at nothing, and after every step each gives up a part of what it has (a
proximal step of the group lasso: Yuan & Lin, JRSS B 2006; in the first layer of a network: Feng & Simon 2017,
"Sparse-input neural networks"), so that only those stay which explain the log again and again. Most columns of history
say nothing, and what a network hears in them is luck; a policy that changes what is done leads it far beyond the
histories of the log, where that luck is multiplied.

So has what an action's attributes do together: as inputs they pay the same price, where as effects that add up
(`envs/effects.py`) they are heard for nothing. Few contents explain a log in many ways, and the one that adds up says
what those are worth that are made of the same attributes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from engine.records import Bools, Floats, Floats32, Ints
from envs.effects import Effects
from envs.networks import Networks
from training.likelihood import Loss

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


FORGET = 0.5
"""In this share of the decisions nobody knows what a content is called, so that its attributes carry what they can."""

RANK = 8
"""How many features of an action its attributes make up, each with an effect of its own on every stream."""

EFFECTS_DECAY, MOST_DECAY = 10.0, 1.0
"""Weight decay of what attributes do, as times that of the layers, and at most: it hangs on the whole state, most of
which says nothing of it.
"""


@dataclass(frozen=True, slots=True)
class OutcomeSettings:
    """How the outcome model is fitted.

    members: networks in the ensemble. hidden: units in each of two hidden layers. A training takes `epochs` passes
    over the decisions, more for a small log until there are `least_steps` steps, less for a large one after
    `most_steps`. It is judged after each pass, and at least `checks` times, on `judged` validation decisions at most;
    a member stops after `patience` checks without a better likelihood. weight_decay: little, because it pulls every
    action towards the usual one, and a policy that looks for the best action lives where that matters most; what a
    member hears too much of, the mean over the members forgets. penalty: how much the columns of history give up in a
    step, in learning rates; None = as the validation customers say (training/selection.py). device: as in torch; None =
    a GPU if there is one, else the CPU.
    """

    members: int = 5
    hidden: int = 64
    epochs: int = 5
    least_steps: int = 1200
    most_steps: int = 3000
    checks: int = 10
    judged: int = 50_000
    patience: int = 4
    batch: int = 1024
    learning_rate: float = 4e-3
    weight_decay: float = 0.1
    penalty: float | None = None
    seed: int = 0
    device: str | None = None

    def place(self) -> torch.device:
        """Where the ensemble is trained."""
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True, slots=True)
class Sample:
    """N decisions, on a device. inputs: float32 [N, in]; told: float32 [N, z], what the links carry; loss: of outputs;
    customer: Ints [N].
    """

    inputs: Tensor
    told: Tensor
    loss: Loss
    customer: Ints

    @staticmethod
    def of(inputs: Floats32, told: Floats32, loss: Loss, customer: Ints, device: torch.device) -> "Sample":
        """On a CPU the tensors share the arrays' memory."""
        return Sample(torch.from_numpy(inputs).to(device), torch.from_numpy(told).to(device), loss, customer)


@dataclass(frozen=True, slots=True)
class Start:
    """Where every member starts. bias: Floats [O]; links: Floats [z, linked], and which there may be, `allowed`.
    history: Ints, columns of the inputs that have to earn their place; unheard: Ints, those among them that may not.
    names: columns of the inputs, and of what the links carry, that only name a content (FORGET). attributes: Ints,
    columns of the inputs that are the action's, whose effects add up in the first `streams` outputs; none = they are
    inputs as others are.
    """

    bias: Floats
    links: Floats
    allowed: Bools
    history: Ints
    unheard: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    names: tuple[Ints, Ints] = field(default_factory=lambda: (np.zeros(0, np.int64), np.zeros(0, np.int64)))
    attributes: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    streams: int = 0

    @property
    def priced(self) -> Ints:
        """The columns of the inputs that have to earn their place."""
        return np.union1d(self.history, self.attributes)


class Members:
    """M networks with two hidden layers, as stacked tensors, and their optimiser."""

    def __init__(self, inputs: Tensor, start: Start, settings: OutcomeSettings) -> None:
        """Random weights (He et al. 2015), where the inputs are; the bias of the outputs and the links are given, and
        nothing hears of history yet where that has a price.
        """
        m, generator = settings.members, torch.Generator().manual_seed(settings.seed)
        self._parameters: list[Tensor] = []
        for i, (a, b) in enumerate(pairwise([inputs.shape[1], settings.hidden, settings.hidden, len(start.bias)])):
            gain = (2.0 / a) ** 0.5 if i < 2 else 0.1 * (1.0 / a) ** 0.5
            self._parameters += [torch.randn(m, a, b, generator=generator) * gain, torch.zeros(m, 1, b)]
        self._parameters[-1] += torch.from_numpy(start.bias.astype(np.float32))
        self._parameters.append(torch.from_numpy(start.links.astype(np.float32)).repeat(m, 1, 1))
        self._parameters += _effects(inputs, start, settings, generator)
        self._priced, self._penalty = torch.from_numpy(start.priced), settings.penalty or 0.0
        if self._penalty:
            self._parameters[0][:, self._priced] = 0.0
        self._device = inputs.device
        self._parameters = [p.to(self._device).requires_grad_() for p in self._parameters]
        self._priced = self._priced.to(self._device)
        self._attributes = torch.from_numpy(start.attributes).to(self._device)
        self._unheard = torch.from_numpy(start.unheard).to(self._device)
        self._allowed = torch.from_numpy(start.allowed.astype(np.float32)).to(self._device)
        self._names, self._luck = [torch.from_numpy(n).to(self._device) for n in start.names], generator
        with torch.no_grad():
            self._parameters[0].index_fill_(1, self._names[0], 0.0)  # a name that is never heard stays silent
        self._rate = settings.learning_rate
        decayed = {"params": self._parameters[0:6:2], "weight_decay": settings.weight_decay}
        decay = min(EFFECTS_DECAY * settings.weight_decay, MOST_DECAY)
        effects = {"params": self._parameters[7:], "weight_decay": decay}
        free = {"params": [*self._parameters[1:6:2], self._parameters[6]], "weight_decay": 0.0}
        groups = [group for group in (decayed, effects, free) if group["params"]]
        self._optimiser = torch.optim.AdamW(groups, lr=self._rate)

    def learn(self, sample: Sample, batch: Ints, pace: float) -> None:
        """One step on decisions [M, b], at this share of the learning rate."""
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * pace
        rows = torch.from_numpy(batch.ravel()).to(self._device)
        output = self._run(*self._nameless(sample, rows, batch.shape))
        loss = sample.loss(output.flatten(0, 1), rows).sum() / batch.shape[1]
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        if self._penalty:
            self._give_up(self._rate * pace * self._penalty)

    def _nameless(self, sample: Sample, rows: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
        """Inputs and told of these rows, [*shape, ·], some without the names of contents."""
        parts = [x.index_select(0, rows).view(*shape, -1) for x in (sample.inputs, sample.told)]
        if len(self._names[0]):
            known = (torch.rand(*shape, 1, generator=self._luck) >= FORGET).to(self._device)
            for part, names in zip(parts, self._names, strict=True):
                part[..., names] *= known
        return parts

    def _give_up(self, part: float) -> None:
        """Every column that has its price loses this much of its norm, in each member; what has less is not heard."""
        with torch.no_grad():
            weight = self._parameters[0].index_select(1, self._priced)
            norm = weight.norm(dim=2, keepdim=True).clamp(min=1e-12)
            self._parameters[0].index_copy_(1, self._priced, weight * (1.0 - part / norm).clamp(min=0.0))
            self._parameters[0].index_fill_(1, self._unheard, 0.0)

    def judged(self, sample: Sample, asked: Ints, block: int = 4096) -> Floats:
        """Negative log-likelihood of the decisions `asked` [R] by each member, [M, R]."""
        members, found = len(self._parameters[0]), list[Floats]()
        with torch.no_grad():
            for rows in torch.from_numpy(asked).to(self._device).split(block):  # type: ignore[no-untyped-call]
                parts = (x.index_select(0, rows).expand(members, -1, -1) for x in (sample.inputs, sample.told))
                nll = sample.loss(self._run(*parts).flatten(0, 1), rows.repeat(members))
                found.append(nll.reshape(members, -1).cpu().numpy().astype(np.float64))
        return np.concatenate(found, axis=1)

    def copy(self) -> list[Floats32]:
        """Weight and bias of each layer in turn, then the links, then query and key of the effects, where there are."""
        found = [p.detach().cpu().numpy().copy() for p in self._parameters]
        found[6] *= self._allowed.cpu().numpy()
        return found

    def networks(self, parts: list[Floats32]) -> Networks:
        """Of what `copy` gave."""
        effects = Effects(self._attributes.cpu().numpy(), *parts[7:]) if len(self._attributes) else None
        return Networks(tuple(parts[0:6:2]), tuple(b[:, 0] for b in parts[1:6:2]), parts[6], effects)

    def _run(self, x: Tensor, told: Tensor) -> Tensor:
        """[M, R, in] and [M, R, z] → [M, R, out]."""
        w, links = self._parameters, self._parameters[6] * self._allowed
        hidden = torch.relu(torch.baddbmm(w[1], x, w[0]))
        hidden = torch.relu(torch.baddbmm(w[3], hidden, w[2]))
        output = torch.baddbmm(w[5], hidden, w[4])
        if len(self._attributes):
            key = torch.bmm(x.index_select(2, self._attributes), w[8])
            query = torch.bmm(hidden, w[7]).view(*hidden.shape[:2], -1, key.shape[2])
            output = _added(output, (query @ key[..., None])[..., 0])
        return _added(output, torch.bmm(told, links)) if told.shape[2] else output


def _effects(inputs: Tensor, start: Start, settings: OutcomeSettings, generator: torch.Generator) -> list[Tensor]:
    """Query and key where they begin, as of `Effects`: nearly nothing; of names, and of attributes that no decision
    had, nothing, which would else keep the luck that they begin with. None without attributes.
    """
    members, hidden, own = settings.members, settings.hidden, len(start.attributes)
    if not own:
        return []
    query = torch.randn(members, hidden, start.streams * RANK, generator=generator) * 0.1 * hidden**-0.5
    key = torch.randn(members, own, RANK, generator=generator)
    key[:, np.isin(start.attributes, start.names[0])] = 0.0
    key[:, ~(inputs[:, torch.from_numpy(start.attributes).to(inputs.device)] != 0.0).any(dim=0).cpu()] = 0.0
    return [query, key]


def _added(output: Tensor, more: Tensor) -> Tensor:
    """[M, R, out] with `more` [M, R, first] added to the first of the outputs."""
    first, others = torch.split(output, [more.shape[2], output.shape[2] - more.shape[2]], dim=2)
    return torch.cat([first + more, others], dim=2)


class Told:
    """Tells, in percent, how far work is that has this part of the whole."""

    def __init__(self, progress: Progress | None, low: float = 0.0, high: float = 1.0) -> None:
        self._progress, self._low, self._high = progress, low, high

    def within(self, low: float, high: float) -> "Told":
        """Of the work between these shares of this work."""
        span = self._high - self._low
        return Told(self._progress, self._low + low * span, self._low + high * span)

    def part(self, share: float) -> None:
        """How much of the work is done."""
        if self._progress is not None:
            self._progress(round(100 * (self._low + share * (self._high - self._low))), 100)
