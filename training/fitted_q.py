"""Fitted Q-iteration with gradient-boosted trees: what each action is worth over the whole journey, from the log alone.

Ernst, Geurts & Wehenkel ("Tree-based batch mode reinforcement learning", JMLR 2005), in the dueling form Q = V + A
(`advantages.py`), with λ-returns (Retrace, `transitions.py`) in place of one-step targets: rewards come long after what
caused them, and trees blur a little of it each time it is handed one step back. The first round learns from what really
followed: what an action is worth if the log goes on as before. Each further round asks what it is worth if one goes on
better.

It stays where the log is: the next decision's worth is that of actions drawn from the behaviour clone, weighed by exp(A
/ T) (Expected-Max Q-learning, Ghasemipour, Schuurmans & Gu, ICML 2021; batch-constrained, Fujimoto, Meger & Precup,
ICML 2019). So a hundred actions cost what a dozen do, and what nobody tried has no say. The trees of the last
round, alone or averaged with products of the first, at a few temperatures: validation customers choose (`choice.py`),
and the policy is distilled into the network.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from engine.records import Floats, Floats32, Ints
from engine.spec import Spec
from training.advantages import Advantages, Growth, Mean, Products, Trees, telling_columns
from training.choice import Chooser, Pick
from training.clone import Progress
from training.distil import Distilled, DistilSettings, distil
from training.fitted import Basis
from training.journeys import Journeys
from training.network import NetworkPolicy, TwoTower
from training.panels import probabilities_of
from training.tilted import Tilted
from training.transitions import Transitions


@dataclass(frozen=True, slots=True)
class FittedQSettings:
    """How Q is fitted. rounds: iterations. trace: λ of the returns. softness: temperature within the rounds, in
    standard deviations of the advantage. offered: actions drawn from the clone at each decision. decisions: training
    decisions used at most. columns: of the observation, at most. state, action: the trees of V and of A. temperatures:
    tried for the policy, in the same unit; the first where the log supports none. distil: of the network.
    """

    rounds: int = 3
    trace: float = 0.7
    softness: float = 0.5
    offered: int = 8
    decisions: int = 40_000
    columns: int = 32
    state: Growth = Growth()  # noqa: RUF009, frozen
    action: Growth = Growth(trees=40, leaves=6)  # noqa: RUF009, frozen
    temperatures: tuple[float, ...] = (0.5, 1.0, 0.2)
    distil: DistilSettings = field(default_factory=DistilSettings)
    seed: int = 0

    @staticmethod
    def of(seed: int) -> "FittedQSettings":
        """The usual ones, all that is random following `seed`."""
        usual = DistilSettings()
        return FittedQSettings(seed=seed, distil=replace(usual, fit=replace(usual.fit, seed=seed)))

    def told(self) -> dict[str, object]:
        """As parameters of a run."""
        return {key: value for key, value in asdict(self).items() if not isinstance(value, dict)}


@dataclass(frozen=True, slots=True)
class Round:
    """An iteration's end. advantages: A. spread: standard deviation of A among what the log does at a decision. value:
    mean V at first decisions under the policy of that round, in the currency; a model's own word.
    """

    advantages: Advantages
    spread: float
    value: float


@dataclass(frozen=True, slots=True)
class FittedQ:
    """The network, what was chosen for it, how well it learned the teacher, and the rounds of the form that won."""

    distilled: Distilled
    choice: Pick
    rounds: tuple[Round, ...]


def train_fitted_q(
    spec: Spec,
    data: tuple[Journeys, Journeys],
    clone: TwoTower,
    settings: FittedQSettings = FittedQSettings(),
    progress: Progress | None = None,
) -> FittedQ:
    """Fit Q on the customers of `data[0]`, choose on those of `data[1]`, distil. Deterministic given the seed.

    Fails where the log's noise is larger than what any action changes: it then stays near the clone, because nothing
    better is shown on the validation customers.
    """
    train, valid = data[0], _some(data[1], settings.decisions // 3)
    behaviour = NetworkPolicy(clone, spec.attributes.encode(spec.catalogue), "clone")
    panel = QPanel.of(spec, train, behaviour, settings)
    found = tuple(rounds(panel, settings, "trees"))
    products = next(rounds(panel, settings, "products"))
    both = Mean((found[-1].advantages, products.advantages))
    models: dict[str, Advantages] = {"trees and products": both, "trees": found[-1].advantages}
    chooser, teachers = Chooser(spec, valid, behaviour, settings.seed), {}
    by_trees, by_products = (m.of_all(valid.observation, valid.mask) for m in both.models)
    tables: dict[str, Floats32] = {"trees and products": (by_trees + by_products) / np.float32(2), "trees": by_trees}
    for form, model in models.items():
        spread = panel.spread(model)
        for softness in settings.temperatures:
            name = f"{form} at {softness:g}"
            teachers[name] = model, softness * spread
            chooser.consider_tilt(name, tables[form], softness * spread, settings.distil.epsilon)
            if progress:
                progress(len(teachers), len(models) * len(settings.temperatures) + 1)
    choice = chooser.best()
    model, temperature = teachers[choice.name]
    teacher = Tilted(behaviour, model.of_all, temperature, settings.distil.epsilon)
    distilled = distil(spec, teacher, clone, data, settings.distil)
    return FittedQ(distilled, choice, found)


def rounds(panel: "QPanel", settings: FittedQSettings, form: str) -> Iterator[Round]:
    """The iterations with A of this form (`trees` or `products`), each with what it found."""
    value = np.full(len(panel.chain.reward), panel.average())
    taken, trace = value, np.ones(len(value))
    for number in range(settings.rounds):
        target = panel.chain.returns(value, taken, trace)
        state = settings.state.grown(panel.seen, target, settings.seed + number)
        base = np.asarray(state.predict(panel.seen), np.float64)
        model = panel.fit(form, target - base, settings, number)
        own, offered = model.of(panel.observation, panel.action), panel.among(model)
        mean, spread = offered.mean(axis=1), _spread(offered)
        better, ratio = _tilting(own, offered, settings.softness * spread)
        value, taken = base - mean + better, base - mean + own
        trace = settings.trace * np.minimum(1.0, ratio)
        yield Round(model, spread, float(value[panel.chain.step == 0].mean()))


@dataclass(frozen=True, slots=True)
class QPanel:
    """What all rounds share. chain: the transitions. observation: [N, d]. columns: Ints, what trees look at; seen:
    these columns [N, c]. action: Ints [N]. offered: Ints [N, m], drawn from the clone. table: attributes [n, k]. basis,
    expected: see `Products.fit`.
    """

    chain: Transitions
    observation: Floats32
    columns: Ints
    seen: Floats32
    action: Ints
    offered: Ints
    table: Floats32
    basis: Basis
    expected: Floats32

    @staticmethod
    def of(spec: Spec, journeys: Journeys, behaviour: NetworkPolicy, settings: FittedQSettings) -> "QPanel":
        some = _some(journeys, settings.decisions)
        table = spec.attributes.encode(spec.catalogue)
        chain = Transitions.of(some)
        nothing = np.zeros(len(some))
        targets = chain.returns(nothing, nothing, nothing + 1.0), some.reward
        columns = telling_columns(
            some.observation, targets, spec.encoder.context_columns, settings.columns, settings.seed
        )
        likely = probabilities_of(behaviour, some.observation, some.mask)
        basis = Basis.of(some.observation, table, some.action)
        return QPanel(
            chain=chain,
            observation=some.observation,
            columns=columns,
            seen=some.observation[:, columns],
            action=some.action,
            offered=_drawn(likely, settings.offered, np.random.default_rng(settings.seed)),
            table=table[:, table.std(axis=0) > 1e-6],
            basis=basis,
            expected=likely @ basis.table,
        )

    def average(self) -> float:
        """Where the value of a state starts: the mean reward, for as long as the longest journey or as the discount
        lets it count.
        """
        discount = float(self.chain.discount[~self.chain.last].mean()) if (~self.chain.last).any() else 0.0
        ahead = self.chain.longest if discount >= 1 else min(self.chain.longest, 1 / (1 - discount))
        return float(self.chain.reward.mean()) * ahead

    def among(self, model: Advantages) -> Floats:
        """The advantage of the offered actions, [N, m]."""
        return np.stack([model.of(self.observation, column) for column in self.offered.T], axis=1)

    def spread(self, model: Advantages) -> float:
        """Standard deviation of the advantage among what the log does at a decision."""
        return _spread(self.among(model))

    def fit(self, form: str, residual: Floats, settings: FittedQSettings, number: int) -> Advantages:
        seen, action = self.observation, self.action
        if form == "products":
            return Products.fit(self.basis, seen, action, self.expected, residual)
        given = self.columns, self.table
        return Trees.fit(seen, action, residual, given, settings.action, settings.seed + number)


def _spread(offered: Floats) -> float:
    return max(float(offered.std(axis=1).mean()), 1e-9)


def _tilting(own: Floats, offered: Floats, temperature: float) -> tuple[Floats, Floats]:
    """Mean advantage [N] of the tilted policy among the offered [N, m], and π / μ of what was done [N]."""
    top = np.maximum(offered.max(axis=1), own)
    weight = np.exp((offered - top[:, None]) / temperature)
    mean = np.maximum(weight.mean(axis=1), 1e-12)
    return (weight * offered).mean(axis=1) / mean, np.exp((own - top) / temperature) / mean


def _some(journeys: Journeys, decisions: int) -> Journeys:
    """The first customers, as many as have so many decisions; at least one."""
    if len(journeys) <= decisions:
        return journeys
    until = np.searchsorted(journeys.customer[:decisions], journeys.customer[decisions])
    return journeys.take(np.arange(max(1, journeys.customer[max(until - 1, 0)] + 1)))


def _drawn(likely: Floats32, many: int, rng: np.random.Generator) -> Ints:
    """Actions [N, many] drawn from probabilities [N, n]."""
    cumulated = np.cumsum(likely, axis=1, dtype=np.float64)
    u = rng.random((len(likely), many)) * cumulated[:, -1:]
    found = np.stack([(cumulated <= u[:, [k]]).sum(axis=1) for k in range(many)], axis=1)
    return np.asarray(np.minimum(found, likely.shape[1] - 1), np.int64)
