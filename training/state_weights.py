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
from dataclasses import dataclass, field, replace

import numpy as np

from engine.records import HOLD, Bools, Floats, Floats32, Ints
from training.cells import cells
from training.fitted import Basis, Panel
from training.flow import Flow, weights_of
from training.support import LEAST_ESS, carrying, effective_sample_size

PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
"""Ridges on all but score and cells, in units of a decision: from little more than these to all of the state. Larger
ones would weigh anything: in a log where nobody was treated like that, all states alike, and the value model alone.
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

SCORE_PENALTY, OF_CELLS, CORE, SCORE = 0.01, 0.01, 5, 2
"""The ridge on the score, and on the cells at least; what they have of the ridge on the rest; columns
before the cells, and the score's place among them.
"""

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
class MarginalWeights:
    """w: Floats [N], the weight of (s, a), with mean 1 over the customers at each decision. removed: the share of their
    sum that had to be cut off so that enough customers are left; what was cut counts as in the log; 1 where no weights
    that balance the log were found. penalty: the ridge. uncut: Floats [N], the weights before that.
    """

    w: Floats
    removed: float
    penalty: float
    uncut: Floats = field(repr=False)
    _customer: Ints
    _step: Ints
    _x: Floats32 = field(repr=False)
    _rows: Ints = field(repr=False)
    _cut: Bools = field(repr=False)
    _bend: Floats = field(repr=False)
    _moves: Floats = field(repr=False)

    def whole(self) -> "MarginalWeights":
        """The same before anything was cut: for what must not look smaller than it is."""
        return replace(self, w=self.uncut, removed=0.0, _cut=np.zeros(len(self.w), np.bool_))

    def noise(self, term: Floats) -> Floats:
        """[J], mean 0: how each customer moves Σ w · term [N] through the weights' coefficients and their mean of 1;
        cells and ridge are taken as given.

        The second half of the estimate's influence function (two-step M-estimation: Newey & McFadden 1994, section 6).
        Added to customers' totals it puts the weights' noise into their interval. Small where the value model is good:
        then `term` has mean 0 in every state.
        """
        carried = np.where(self._cut, 0.0, self.w * term)
        total = np.maximum(np.bincount(self._step, weights=self.w), 1e-300)
        share = np.bincount(self._step, weights=carried) / total
        pull = self._x.T @ (carried - self.w * share[self._step]).astype(np.float32)
        along = np.linalg.lstsq(self._bend.T, pull.astype(np.float64), rcond=1e-3)[0]
        customers = int(self._customer[-1]) + 1
        moved = np.bincount(self._customer[self._rows], weights=self._moves @ along, minlength=customers)
        moved -= np.bincount(self._customer, weights=share[self._step] * (self.w - 1.0), minlength=customers)
        return np.asarray(moved - moved.mean(), np.float64)


class StateWeigher:
    """Marginal weights for any policy on one log, cross-fitted over folds of the customers.

    Fails where the states that matter are not told apart by score, cells and log-linear columns; where the policy
    changes how long journeys last, whose weight is still 1 on average at each decision; and where hardly anybody did
    what the policy does: then most of the weights are cut (`removed`), and the value model alone speaks.
    """

    def __init__(self, panel: Panel, basis: Basis, fold: Ints, traits: Sequence[Ints] = ()) -> None:
        """fold: Ints [J], each customer's fold, 0..; at least two folds. traits: Ints [J] each, the place of
        what a customer is and stays among what there is, -1 = unknown.
        """
        self.panel, self._basis, self._fold = panel, basis, fold[panel.customer]
        x, crossed = basis.state(panel.observation, panel.left)
        ahead = panel.left[:, None].astype(np.float32)
        across = crossed[:, 2:]
        early = (1.0 / (1.0 + panel.step))[:, None].astype(np.float32)
        columns = (x[:, 1 + basis.exact], early, across, ahead * across, early * across)
        rest = np.concatenate(columns, axis=1)
        self._rest = _standard(rest[:, rest.std(axis=0) > 1e-6])
        customers = int(panel.customer[-1]) + 1
        self._customers = customers
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
        core = self._core(score)
        alike = _standard(self._alike(chances, core[:, SCORE]), np.inf)
        x = np.concatenate([core, alike, self._rest], axis=1)
        balanced = CORE + alike.shape[1]
        seen = Flow.of(self.panel, x, ratio, self._rows)
        beta = seen.start(_ridge(x.shape[1], balanced, PENALTIES[0]), self.panel.longest)
        best, most, noisiest = None, 0.0, np.inf
        for penalty in PENALTIES:
            ridge = _ridge(x.shape[1], balanced, penalty)
            beta, settled = seen.solved(beta, ridge)
            if best and (not settled or self._ess(self._carried(weights_of(x, beta), ratio)) < self._enough):
                break
            found, all_settled = self._fitted(seen, x, ratio, (penalty, ridge, beta))
            if not (settled and all_settled):
                best = best or replace(found, removed=1.0)
                break
            carried, noise = _steadiness(pull(found)) if pull else (STEADY, 1.0)
            if best and noise > max(NOISY, noisiest):
                break
            if best is None or (carried >= min(STEADY, most) and found.removed <= best.removed):
                best, most, noisiest = found, carried, noise
        assert best is not None
        return best

    def _fitted(
        self, seen: Flow, x: Floats32, ratio: Floats, place: tuple[float, Floats, Floats]
    ) -> tuple[MarginalWeights, bool]:
        """The weights at this penalty and ridge, whose β over all customers is known; own customers' by all other
        folds, and whether each of these has a solution.
        """
        penalty, ridge, beta = place
        state, all_settled = weights_of(x, beta), True
        for k in range(int(self._fold.max()) + 1):
            others = self._rows[self._fold[self._rows] != k]
            own = self._rows[self._fold[self._rows] == k]
            without, settled = Flow.of(self.panel, x, ratio, others).solved(beta, ridge)
            state[own], all_settled = weights_of(x[own], without), all_settled and settled
        w, bend, moves = self._carried(state, ratio), seen.bend(beta, ridge), seen.moves(beta)
        whose, whole = (self.panel.customer, self.panel.step), np.zeros(len(w), np.bool_)
        found = MarginalWeights(w, 0.0, penalty, w, *whose, x, self._rows, whole, bend, moves)
        return self._cut_at(found, self._cut(w)), all_settled

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

    def _core(self, score: Floats) -> Floats32:
        """What is balanced beside cells, [N, 5]: 1, left, the score against others then, also bent and crossed."""
        step = self.panel.step
        usual = np.bincount(step, weights=score) / np.maximum(np.bincount(step), 1)
        s = _standard((score - usual[step])[:, None].astype(np.float32))[:, 0]
        left = self.panel.left.astype(np.float32)
        return np.stack([np.ones_like(s), left, s, left * s, s**2], axis=1)

    def _carried(self, state: Floats, ratio: Floats) -> Floats:
        return self._normalised(self._normalised(state) * ratio)

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
        """Weights with mean 1 at each decision; decisions that half of the customers do not reach share one mean."""
        step = self.panel.step
        count = np.bincount(step)
        total = np.bincount(step, weights=w)
        late = count < count[0] / 2
        count[late], total[late] = max(1, count[late].sum()), total[late].sum()
        mean = np.maximum(total / np.maximum(count, 1), 0.05)
        return np.asarray(w / mean[step], np.float64)

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


def _ridge(size: int, balanced: int, penalty: float) -> Floats:
    ridge = np.full(size, penalty)
    ridge[:2], ridge[2:CORE], ridge[CORE:balanced] = 1e-6, SCORE_PENALTY, max(SCORE_PENALTY, OF_CELLS * penalty)
    return ridge


def _standard(columns: Floats32, clip: float = CLIP) -> Floats32:
    spread = np.maximum(columns.std(axis=0, dtype=np.float64), 1e-9).astype(np.float32)
    return np.asarray(np.clip((columns - columns.mean(axis=0)) / spread, -clip, clip), np.float32)
