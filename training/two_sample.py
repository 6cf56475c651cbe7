"""A classifier two-sample test: can anybody tell made-up journeys from real ones?

Lopez-Paz and Oquab, "Revisiting classifier two-sample tests" (ICLR 2017); Kim, Ramdas, Singh and Wasserman,
"Classification accuracy as a proxy for two-sample testing" (Annals of Statistics 2021). A classifier sees journeys of
held-out customers and of the same customers made up under the logging policy, and is judged on customers whom it has
not seen. What it finds, no list of comparisons has to foresee: bursts, pairs of events, customers who are too much
alike. With a large log a perfect environment does not exist, so the question is not whether but how well.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier

from engine.records import DAY, HOLD, Bools, Floats, Ints
from engine.spec import Spec
from training.agreement import Check
from training.episodes import Episodes

MOST = 0.75
"""AUC that is tolerated; a model fails when it is above for certain (two standard errors). Shown a real and a made-up
journey it names the made-up one three times in four: what one normal figure gives away that is off by 0.95 of its
standard deviation between customers. Models with one thing wrong were measured at 0.81 to 0.94 in the retail world,
fitted ones at 0.63 (4,000 customers) to 0.78 (800); see training/README.md.
"""
FOLDS = 5
LEAST = 20
"""Journeys that must be able to tell a figure for it to be shown to the classifier."""
NAMED = 5
"""Figures that are named as those that give journeys away."""


@dataclass(frozen=True, slots=True)
class Giveaway:
    """A figure of a journey and what the AUC loses when it is shuffled between journeys (Breiman 2001).

    real, simulated: its mean and its standard deviation between customers.
    """

    figure: str
    drop: float
    real: tuple[float, float]
    simulated: tuple[float, float]

    def __str__(self) -> str:
        made, real = ("{:.3g} ± {:.2g}".format(*side) for side in (self.simulated, self.real))
        return f"{self.figure} ({made} for {real})"


@dataclass(frozen=True, slots=True)
class TwoSample:
    """auc: of the classifier on unseen customers; 0.5 = a guess. error: its standard error, over customers.
    giveaways: the figures that it lives on.
    """

    auc: float
    error: float
    giveaways: tuple[Giveaway, ...]

    def check(self) -> Check:
        """Group `two_sample`."""
        limit = MOST + 2 * self.error
        told = "; ".join(str(g) for g in self.giveaways[:3]) or "nothing"
        return Check(
            name="two_sample",
            value=self.auc,
            threshold=f"at most {limit:.2f}",
            strain=max(0.0, (self.auc - 0.5) / (limit - 0.5)),
            short=f"AUC {self.auc:.2f}, most by {self.giveaways[0].figure if self.giveaways else 'nothing'}",
            why=f"a classifier tells made-up journeys from held-out ones with AUC {self.auc:.2f} ± "
            f"{2 * self.error:.2f} (0.5 = a guess), most by {told}",
        )


def two_sample(spec: Spec, real: Episodes, simulated: Sequence[Episodes], seed: int) -> TwoSample:
    """Tell journeys [J] from those of the same customers in several runs, all under the logging policy.

    Folds are of customers, so nobody's real journey helps to know his made-up one. AUCs are within folds, the error is
    that of DeLong et al. (1988) with customers as clusters (Obuchowski 1997). With fewer than four customers a fold
    nothing is said: AUC 0.5 with an infinite error.
    """
    if real.customers < 4 * FOLDS:
        return TwoSample(0.5, float("inf"), ())
    names = figure_names(spec)
    table = np.concatenate([figures(spec, episodes) for episodes in (real, *simulated)])
    told = np.flatnonzero(np.isfinite(table).sum(axis=0) >= max(LEAST, 0.01 * len(table)))
    made_up = np.repeat([False, True], [real.customers, real.customers * len(simulated)])
    customer = np.tile(np.arange(real.customers), 1 + len(simulated))
    levels = np.stack([_levels(table[:, k]) for k in told], axis=1)
    auc, error, drops = _cross_validated(levels, made_up, customer, seed)
    best = told[np.argsort(-drops, kind="stable")[:NAMED]]
    giveaways = [
        Giveaway(names[k], float(drop), _spread(table[~made_up, k]), _spread(table[made_up, k]))
        for k, drop in zip(best, np.sort(drops)[::-1], strict=False)
        if drop > 0
    ]
    return TwoSample(auc, error, tuple(giveaways))


def figure_names(spec: Spec) -> list[str]:
    """What the columns of `figures` mean."""
    catalogue, names = spec.catalogue, list[str]()
    for kind in spec.kinds:
        names += [f"{kind.name}, {what}" for what in ("events", "late share", "place in the window", "days apart")]
        names += [f"{kind.name}, value of one"] if kind.value is not None else []
        names += [f"{kind.name}, per contact"] if kind.response else []
    names += [f"decisions by {c.name}" for c in catalogue.channels] + [
        f"decisions sent {t.name}" for t in catalogue.timings
    ]
    names += ["decisions", "contacts", "late share of contacts", "decisions between contacts"]
    return [*names, "days with events", "longest silence, days", "events in the fullest window", "return"]


def figures(spec: Spec, episodes: Episodes) -> Floats:
    """One row of numbers for each journey [J, F]: events of each kind, how many, when and how much; the mix of actions;
    gaps. NaN where a journey cannot say.
    """
    columns = [c for k in range(len(spec.kinds)) for c in _of_kind(spec, episodes, k)]
    return np.stack([*columns, *_of_actions(spec, episodes), *_of_time(spec, episodes)], axis=1)


def _of_kind(spec: Spec, episodes: Episodes, kind: int) -> Iterator[Floats]:
    mine: Bools = episodes.events.kind == kind
    events = episodes.events.take(mine)
    who, n = episodes.customer[events.row], episodes.customers
    count = _sum(who, np.ones(len(who)), n)
    yield count
    yield _share(_sum(who, _late(episodes)[events.row].astype(np.float64), n), count)
    start, end = episodes.decided_at[events.row], episodes.until[events.row]
    place = np.asarray((events.occurred_at - start) / np.maximum(end - start, 1e-9), np.float64)
    yield _share(_sum(who, place, n), count)
    order = np.lexsort((events.occurred_at, who))
    pairs = np.flatnonzero(who[order][1:] == who[order][:-1])
    of, at = who[order][pairs], events.occurred_at[order]
    yield _share(_sum(of, (at[pairs + 1] - at[pairs]) / DAY, n), _sum(of, np.ones(len(of)), n))
    if spec.kinds[kind].value is not None:
        yield _share(_sum(who, events.value, n), count)
    if spec.kinds[kind].response:
        yield _share(count, episodes.of_customers(1.0 * (episodes.action != HOLD)))


def _of_actions(spec: Spec, episodes: Episodes) -> Iterator[Floats]:
    """Shares of the decisions, and how the contacts lie in the journey."""
    catalogue, action = spec.catalogue, episodes.action
    decisions, contact = episodes.of_customers(np.ones(len(action))), action != HOLD
    for c in range(len(catalogue.channels)):
        yield _share(episodes.of_customers(1.0 * (contact & (catalogue.channel[action] == c))), decisions)
    for t in range(len(catalogue.timings)):
        yield _share(episodes.of_customers(1.0 * (contact & (catalogue.timing[action] == t))), decisions)
    contacts = episodes.of_customers(1.0 * contact)
    yield decisions
    yield contacts
    yield _share(episodes.of_customers(1.0 * (contact & _late(episodes))), contacts)
    order = np.flatnonzero(contact)[np.lexsort((episodes.step[contact], episodes.customer[contact]))]
    pairs = np.flatnonzero(episodes.customer[order][1:] == episodes.customer[order][:-1])
    of, apart = episodes.customer[order][pairs], 1.0 * np.diff(episodes.step[order])[pairs]
    yield _share(_sum(of, apart, episodes.customers), _sum(of, np.ones(len(of)), episodes.customers))


def _of_time(spec: Spec, episodes: Episodes) -> Iterator[Floats]:
    """Days with events, the longest silence, the fullest window, the return."""
    n, events = episodes.customers, episodes.events
    first, last = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(first, episodes.customer, episodes.decided_at)
    np.maximum.at(last, episodes.customer, episodes.until)
    who = np.concatenate([np.arange(n), episodes.customer[events.row], np.arange(n)])
    at = np.concatenate([first, events.occurred_at, last])
    day = np.unique(np.stack([who, ((at - first[who]) // DAY).astype(np.int64)], axis=1), axis=0)
    yield np.bincount(day[:, 0], minlength=n).astype(np.float64)
    order = np.lexsort((at, who))
    silence, same = np.diff(at[order]) / DAY, who[order][1:] == who[order][:-1]
    longest = np.zeros(n)
    np.maximum.at(longest, who[order][1:][same], silence[same])
    yield longest
    fullest = np.zeros(n)
    np.maximum.at(fullest, episodes.customer, np.bincount(events.row, minlength=len(episodes.step)).astype(np.float64))
    yield fullest
    yield episodes.returns(spec)


def _late(episodes: Episodes) -> Bools:
    """Bools [N]: in the second half of the longest journey."""
    return np.asarray(2 * (episodes.step + 1) > episodes.step.max() + 1, bool)


def _sum(who: Ints, what: Floats, n: int) -> Floats:
    return np.bincount(who, weights=what, minlength=n).astype(np.float64)


def _share(above: Floats, below: Floats) -> Floats:
    return np.asarray(np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0), np.float64)


def _cross_validated(table: Floats, made_up: Bools, customer: Ints, seed: int) -> tuple[float, float, Floats]:
    """Mean AUC over the folds, its standard error, and what it loses without each figure [F]."""
    customers, rng = int(customer.max()) + 1, np.random.default_rng(seed)
    fold = (rng.permutation(customers) % FOLDS)[customer]
    pull, aucs, drops = np.zeros(customers), [], np.zeros(table.shape[1])
    for k in range(FOLDS):
        seen, unseen = fold != k, np.flatnonzero(fold == k)
        judge = _judge(table[seen], made_up[seen], seed)
        rows, truth = table[unseen], made_up[unseen]
        auc, placed = placements(judge.decision_function(rows), truth)
        aucs.append(auc)
        side = np.where(truth, truth.sum(), (~truth).sum())
        np.add.at(pull, customer[unseen], (placed - auc) / side / FOLDS)
        for f in range(table.shape[1]):
            kept = rows[:, f].copy()
            rows[:, f] = rng.permutation(kept)
            drops[f] += (auc - placements(judge.decision_function(rows), truth)[0]) / FOLDS
            rows[:, f] = kept
    return float(np.mean(aucs)), float(np.sqrt((pull**2).sum())), drops


def _levels(column: Floats) -> Floats:
    """Numbers as one of at most 32 levels of equally many journeys: all that the trees look at. NaN stays."""
    edges = np.unique(np.nanquantile(column, np.arange(1, 32) / 32, method="inverted_cdf"))
    return np.where(np.isnan(column), np.nan, np.searchsorted(edges, column))


def _judge(table: Floats, made_up: Bools, seed: int) -> HistGradientBoostingClassifier:
    """Boosted trees: they find what is unlike in spread or in pairs, where a linear judge sees only means."""
    judge = HistGradientBoostingClassifier(
        max_iter=40, max_leaf_nodes=6, max_bins=32, learning_rate=0.15, early_stopping=False, random_state=seed
    )
    return judge.fit(table, made_up, sample_weight=np.where(made_up, (~made_up).sum() / made_up.sum(), 1.0))


def placements(score: Floats, made_up: Bools) -> tuple[float, Floats]:
    """The AUC of a score [N], higher for those of one sort, and of each the share of the other sort that it is rightly
    placed against [N].
    """
    a, b = np.sort(score[made_up]), np.sort(score[~made_up])

    def below(ordered: Floats, x: Floats) -> Floats:
        left, right = np.searchsorted(ordered, x, "left"), np.searchsorted(ordered, x, "right")
        return np.asarray((left + right) / (2 * max(1, len(ordered))), np.float64)

    placed = np.where(made_up, below(b, score), 1.0 - below(a, score))
    return float(placed[made_up].mean()), placed


def _spread(column: Floats) -> tuple[float, float]:
    """Mean and standard deviation of what is said; (0, 0) when nothing is."""
    said = column[np.isfinite(column)]
    return (float(said.mean()), float(said.std())) if len(said) else (0.0, 0.0)
