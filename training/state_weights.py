"""How much more often a policy would meet a situation than the log did: marginal weights, positive, and shrunk only as
far as the log is thin.

The weight of a state is what those who came to it carry, w(s') = E[w(s) · ρ | s'], ρ = π(a|s) / μ(a|s): state-marginal
importance sampling (Liu, Li, Tang & Zhou 2018; Xie, Ma & Wang 2019). Here log w is linear in the state, so no weight is
negative, and its score equations balance the state as a linear weight's do. A full state is nearly the whole history,
and so are its weights: few customers carry them. What must be balanced at least is what the state is worth to the
policy (a prognostic score: Hansen 2008; for off-policy evaluation, state abstraction: Pavse & Hanna 2023) and what the
policy does there, as cells of alike states: who writes after four days of rest never meets customers who have rested
for a week, and no log-linear weight of days says so. So the rest is held down by a ridge, as little as leaves enough
customers with weight, and enough of them with a say in the noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.records import HOLD, Floats, Floats32, Ints
from training.cells import cells
from training.fitted import Basis, Panel
from training.flow import Carry, Flow, Groups, weights_of
from training.marginal_weights import MarginalWeights
from training.support import LEAST_ESS, carrying, effective_sample_size

PENALTIES, DOWN_TO = (10.0, 3.0, 1.0, 0.3, 0.1), 8_000.0
"""Ridges on all but score and cells, in units of a decision; how small one may be, in those of a customer. Larger ones
would weigh anything; smaller ones ask a log for more than it has to say. But a value model of the log's own errs by the
log's own luck, which the weights have to take out: then all of them are tried.
"""

ENOUGH = 50.0
"""Effective sample size in customers that any ridge has to leave; a tenth of the customers where there are fewer than
500. Where the largest ridge leaves fewer than LEAST_ESS, weights are cut until that many are left.
"""

STEADY = 10.0
"""Customers that an estimate's noise has to be left to (`carrying`), where one of the ridges does that; where none
does, it is the ridge that leaves it to most. Nothing is cut for it: near the log all weights can be cut to 1, and then
the noise is small because the log has no say at all.
"""

NOISY = float(np.sqrt(2.0))
"""Standard error of an estimate at most, with the noise of the weights themselves, in that without it: no smaller ridge
is tried from where they add more than there is.
"""

OF_SCORES, OF_CELLS, SCORES = 0.01, 0.03, 2
"""What the score has of the ridge on the rest; the ridge on cells; columns of the score."""

MOST_FITTED = 40_000
"""Decisions that weights are fitted to at most; the other customers are weighed by what these say."""

CLIP = 4.0
"""Standard deviations beyond which a column counts as that far."""

MOST_CELLS, IN_A_CELL = 48, 20.0
"""Cells of alike states at most, and how many customers the log has for each of them."""

TELLING = 1e-4
"""The least standard deviation of what a policy does for it to tell states apart."""

RAKES, FURTHEST = 3, 10.0
"""How often all traits of customers are brought to their share in turn, and by how much a trait's weights at most."""


@dataclass(frozen=True, slots=True)
class _Balance:
    """What a policy's weights have to balance. x: Floats32 [N, p], columns by which states are told apart, the first
    `balanced` of them score and cells. carry, step: as in `Flow`, of all decisions.
    """

    x: Floats32
    balanced: int
    carry: Carry
    step: Groups

    def flow(self, panel: Panel, rows: Ints) -> Flow:
        """What carries weights forward among these decisions, of whole customers."""
        return Flow.of(panel, self.x, rows, self.carry, self.step)

    def states(self, beta: Floats) -> Floats:
        """The weights of all states [N], with mean 1 at each decision."""
        return weights_of(self.x, beta, self.step)

    def ridge(self, penalty: float) -> Floats:
        """[p]."""
        found = np.full(self.x.shape[1], penalty)
        found[:SCORES], found[SCORES : self.balanced] = OF_SCORES * penalty, OF_CELLS
        return found


class StateWeigher:
    """Marginal weights for any policy on one log. They balance the customers that they weigh: folds made no difference,
    as no reward of a customer's own is looked at but by the choice of the ridge.

    Fails where the states that matter are not told apart by score, cells and log-linear columns; where the policy
    changes how long journeys last, whose weight is still 1 on average at each decision; and where hardly anybody did
    what the policy does: then most of the weights are cut (`removed`), and the value model alone speaks.
    """

    def __init__(self, panel: Panel, basis: Basis, traits: Sequence[Ints] = (), own_model: bool = False) -> None:
        """traits: Ints [J] each, the place of what a customer is and stays among what there is, -1 = unknown.
        own_model: is what the weights correct a value model of this very log?
        """
        self.panel, self._basis = panel, basis
        x, crossed = basis.state(panel.observation, panel.left)
        ahead = panel.left[:, None].astype(np.float32)
        across = crossed[:, 2:]
        early = (1.0 / (1.0 + panel.step))[:, None].astype(np.float32)
        columns = (x[:, 1 + basis.exact], ahead, across, ahead * across, early * across)
        rest = np.concatenate(columns, axis=1)
        self._together = Groups.among(_together(panel.step))
        self._rest = self._centred(_standard(rest[:, rest.std(axis=0) > 1e-6]))
        customers = int(panel.customer[-1]) + 1
        self._customers = customers
        least = PENALTIES[-1] if own_model else min(PENALTIES[0], DOWN_TO / customers)
        self._penalties = [penalty for penalty in PENALTIES if penalty >= least]
        self._traits = [large[panel.customer] for trait in traits if ((large := _large(trait)) >= 0).any()]
        self._enough = min(max(LEAST_ESS, customers / 10), ENOUGH)
        some = np.random.default_rng(0).permutation(customers)[: max(2, int(MOST_FITTED * customers / len(panel)))]
        self._rows = np.flatnonzero(np.isin(panel.customer, some))

    def fit(
        self,
        ratio: Floats,
        chances: Floats32,
        score: Floats,
        pull: Callable[[MarginalWeights], tuple[Floats, Floats]] | None = None,
    ) -> MarginalWeights:
        """ratio: Floats [N], π / μ of what was done. chances: [N, n], of the policy. score: Floats [N], what the state
        is worth to it. pull: how much each customer [J] moves what is estimated with such weights, as if they were
        known, and with their own noise; None = nothing is.
        """
        balance = self._balance(ratio, chances, score)
        seen = balance.flow(self.panel, self._rows)
        beta, best, most, noisiest = np.zeros(balance.x.shape[1]), None, 0.0, np.inf
        for penalty in self._penalties:
            beta, settled = seen.solved(beta, balance.ridge(penalty))
            if best and (not settled or self._ess(self._weights(balance, balance.states(beta))[1]) < self._enough):
                break
            found = self._found(balance, seen, penalty, beta)
            if not settled:
                return replace(found, removed=1.0)
            carried, noise = _steadiness(pull(found)) if pull and len(self._penalties) > 1 else (STEADY, 1.0)
            if best and noise > max(NOISY, noisiest):
                break
            if best is None or (carried >= min(STEADY, most) and found.removed <= best.removed):
                best, most, noisiest = found, carried, noise
        assert best is not None
        return best

    def _balance(self, ratio: Floats, chances: Floats32, score: Floats) -> _Balance:
        scores = self._scores(score)
        cell = self._alike(chances, scores[:, 0])
        balanced = self._centred(np.concatenate([scores, _standard(cell, np.inf)], axis=1))
        x = np.concatenate([balanced, self._rest], axis=1)
        return _Balance(x, balanced.shape[1], Carry(ratio, Groups.among(cell.argmax(axis=1))), self._together)

    def _found(self, balance: _Balance, seen: Flow, penalty: float, beta: Floats) -> MarginalWeights:
        state, w = self._weights(balance, balance.states(beta))
        found = MarginalWeights(
            w=w,
            removed=0.0,
            penalty=penalty,
            uncut=w,
            _customer=self.panel.customer,
            _step=self._together,
            _carry=balance.carry,
            _state=state,
            _x=balance.x,
            _rows=self._rows,
            _cut=np.zeros(len(w), np.bool_),
            _bend=seen.bend(beta, balance.ridge(penalty)),
            _moves=seen.moves(beta),
        )
        found, short = self._cut_at(found, self._cut(w)), balance.carry.short(state, self.panel.customer)
        return replace(found, removed=1.0 - (1.0 - found.removed) * (1.0 - short))

    def _weights(self, balance: _Balance, state: Floats) -> tuple[Floats, Floats]:
        """[N] each: of the states, and of what was done there."""
        state = self._normalised(state)
        return state, self._normalised(balance.carry.on(state))

    def _cut_at(self, found: MarginalWeights, level: float) -> MarginalWeights:
        """The same weights, none above this one before all are normalised again."""
        if np.isinf(level):
            return found
        w = found.uncut
        kept = np.minimum(w, level)
        removed = 1 - float(kept.sum()) / max(float(w.sum()), 1e-300)
        return replace(found, w=self._normalised(kept), removed=removed, _cut=w > level)

    def _alike(self, chances: Floats32, score: Floats32) -> Floats32:
        """The cells [N, c] of states where the policy does the same and that are worth the same to it."""
        does = np.concatenate([chances[:, [HOLD]], chances @ self._basis.table], axis=1)
        told = _standard(does[:, does.std(axis=0, dtype=np.float64) > TELLING])
        worth = score[:, None] * np.float32(np.sqrt(max(told.shape[1], 1)))
        seen = np.concatenate([self.panel.observation, self.panel.left[:, None].astype(np.float32)], axis=1)
        most = min(MOST_CELLS, int(self._customers / IN_A_CELL))
        return cells(seen, np.concatenate([told, worth], axis=1), self._rows, most)

    def _scores(self, score: Floats) -> Floats32:
        """What is balanced beside cells, [N, 2]: the score against others then, and crossed with the time left."""
        s = _standard(self._centred(score[:, None].astype(np.float32)))[:, 0]
        return np.stack([s, self.panel.left.astype(np.float32) * s], axis=1)

    def _centred(self, x: Floats32) -> Floats32:
        """[N, p], with mean 0 at each decision, where weights have mean 1 whatever all of its states have in common."""
        centred = np.empty_like(x)
        for column in range(x.shape[1]):
            centred[:, column] = x[:, column] - self._together.mean(x[:, column].astype(np.float64))
        return centred

    def _normalised(self, w: Floats) -> Floats:
        """Weights with mean 1 at each decision and for each trait of customers, as far as both can be had.

        No policy changes what customers are and stay. A ridge that shrinks the weights does not know that, and weighs
        up whoever the log happened to treat as the policy does (raking: Deming & Stephan 1940).
        """
        w = self._levelled(w)
        for _ in range(RAKES if self._traits else 0):
            for trait in self._traits:
                known = trait >= 0
                count, total = (np.bincount(trait[known], weights=x) for x in (None, w[known]))
                factor = np.clip(count / np.maximum(total, 1e-300), 1 / FURTHEST, FURTHEST)
                w = np.where(known, w * factor[trait], w)
            w = self._levelled(w)
        return w

    def _levelled(self, w: Floats) -> Floats:
        """Weights with mean 1 at each decision."""
        return np.asarray(w / np.maximum(self._together.mean(w), 0.05), np.float64)

    def _ess(self, w: Floats) -> float:
        """In customers."""
        return float(effective_sample_size(w)) * self._customers / len(w)

    def _cut(self, w: Floats) -> float:
        """The largest weight that leaves enough customers; ∞ where none has to be cut."""
        if self._ess(w) >= LEAST_ESS or not (w > 0).any():
            return float("inf")
        low, high = 0.0, float(w.max())
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (
                (middle, high) if self._ess(self._normalised(np.minimum(w, middle))) >= LEAST_ESS else (low, middle)
            )
        return low


def _steadiness(pulls: tuple[Floats, Floats]) -> tuple[float, float]:
    """How many customers carry an estimate's noise, and how many times as large the weights' own makes it."""
    known, whole = pulls
    return carrying(whole), float(whole.std() / max(float(known.std()), 1e-300))


def _large(trait: Ints) -> Ints:
    """The places [J] that have LEAST_ESS customers at least; the others count as unknown."""
    known = np.bincount(trait[trait >= 0], minlength=1)
    return np.where((trait >= 0) & (known[trait] >= LEAST_ESS), trait, -1)


def _together(step: Ints) -> Ints:
    """Which decisions [N] are weighed together: those of one step, and all that half of the customers do not reach."""
    count = np.bincount(step)
    late = count < count[0] / 2
    return np.where(late[step], int(late.argmax()), step)


def _standard(columns: Floats32, clip: float = CLIP) -> Floats32:
    spread = np.maximum(columns.std(axis=0, dtype=np.float64), 1e-9).astype(np.float32)
    return np.asarray(np.clip((columns - columns.mean(axis=0)) / spread, -clip, clip), np.float32)
