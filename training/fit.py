"""Fitting the outcome model: an ensemble of small networks, all members trained side by side.

Each member sees its own resample of the training customers (bootstrap, Efron 1979) and starts from its own weights.
It stops where the validation customers are explained best. The likelihoods are those of `envs/laws.py`.
"""

from dataclasses import replace

import numpy as np

from engine.errors import TrainingError
from engine.records import Bools, Floats, Ints
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.laws import Evolution, Layout, Stream
from envs.networks import Inputs, Networks
from envs.outcomes import Turn
from training.evidence import context_evidence_of, evidence_of, evolutions_of, streams_of, turns
from training.journeys import Journeys
from training.likelihood import context_bias, context_loss, outcome_loss, outcome_start, polished
from training.means import with_means
from training.members import OutcomeSettings, Progress, Sample, Told, train_members
from training.network import moments

CONTEXT_WEIGHTS = (1.0, 4.0, 16.0)
"""How many standard deviations one of a context column may count, against those of history."""


def fit_outcome_model(
    spec: Spec,
    train: Journeys,
    valid: Journeys,
    settings: OutcomeSettings | None = None,
    progress: Progress | None = None,
) -> EnsembleOutcomeModel:
    """What the customers of `train` do, stopped early on those of `valid` (on `train` itself where that is empty).

    On a CPU the same log and seed give the same model. Raises TrainingError for a log without decisions or without
    events.
    """
    settings = settings or OutcomeSettings()
    if not len(train) or not len(train.events):
        what = "decisions" if not len(train) else "events after the decisions"
        raise TrainingError(f"training customers: found no {what}, expected some to learn what customers do")
    judge = valid if len(valid) else train
    turn = turns(spec, train)
    streams, inputs, evolutions = streams_of(spec, train, turn), inputs_of(spec, train), evolutions_of(spec, train)
    logs = [(train, turn), (judge, turns(spec, judge))]
    told = Told(progress, 2 if evolutions else 1)
    outcome = _outcome_networks(spec, logs, (inputs, streams), settings, told)
    context = _context_networks(spec, logs, (inputs, evolutions), settings, told) if evolutions else None
    return EnsembleOutcomeModel(spec, streams, evolutions, inputs, outcome, context)


Logs = list[tuple[Journeys, Turn]]
"""The journeys to learn from and those to judge by, with their turns."""


def _outcome_networks(
    spec: Spec, logs: Logs, known: tuple[Inputs, list[Stream]], settings: OutcomeSettings, told: Told
) -> Networks:
    """What the networks say of the events after a decision. Their evidence, the largest table there is, ends here."""
    inputs, streams = known
    paid, device = (spec.reward.each != 0) | (spec.reward.per_value != 0), settings.place()
    evidence = [evidence_of(spec, journeys, turn, inputs, streams) for journeys, turn in logs]
    samples = [
        Sample.of(e.inputs, e.told, outcome_loss(e, streams, paid, device), e.customer, device) for e in evidence
    ]
    bias, links = outcome_start(evidence[0], streams, spec.attributes.size)
    start = bias, links, Layout.of(streams).may_depend(spec.attributes.size)
    columns = np.flatnonzero([name.startswith("context:") for name in spec.encoder.names])
    factor = _weight_of_context(samples, columns, start, settings)
    _weigh(samples, columns, factor)
    networks = _unweighed(train_members(samples, start, settings, told)[0], columns, factor)
    _weigh(samples, columns, 1.0 / factor)  # exact for powers of two; on a CPU the evidence shares this memory
    return with_means(polished(networks, evidence[0], streams), evidence[0], streams)


def _weight_of_context(
    samples: list[Sample], columns: Ints, start: tuple[Floats, Floats, Bools], settings: OutcomeSettings
) -> float:
    """Which of CONTEXT_WEIGHTS explains the second sample best, in a short training.

    History often stands in for the context: who was targeted for what he is has a history that tells it. Both
    explain the log alike, but once actions change, history changes with them and the context does not. Columns that
    weigh more are learned first.
    """
    if not len(columns):
        return 1.0
    short = replace(settings, members=min(2, settings.members), epochs=2, most_steps=400, checks=3)
    found = []
    for factor in CONTEXT_WEIGHTS:
        _weigh(samples, columns, factor)
        found.append(train_members(samples, start, short, Told(None, 1))[1])
        _weigh(samples, columns, 1.0 / factor)
    return CONTEXT_WEIGHTS[int(np.argmin(found))]


def _weigh(samples: list[Sample], columns: Ints, factor: float) -> None:
    """Multiply these columns of the inputs, in place."""
    for sample in samples:
        sample.inputs[:, columns] *= factor


def _unweighed(networks: Networks, columns: Ints, factor: float) -> Networks:
    """The networks that say of plain inputs what these say of weighed ones."""
    first, *others = networks.weights
    first = first.copy()
    first[:, columns] *= factor
    return replace(networks, weights=(first, *others))


def _context_networks(
    spec: Spec, logs: Logs, known: tuple[Inputs, list[Evolution]], settings: OutcomeSettings, told: Told
) -> Networks:
    """What the networks say of the next context."""
    (inputs, evolutions), device = known, settings.place()
    found = [context_evidence_of(j, len(spec.kinds), inputs.of(turn), evolutions) for j, turn in logs]
    evidence = [e for e in found if len(e.inputs)]  # journeys of one decision have no next context
    samples = [
        Sample.of(e.inputs, e.inputs[:, :0], context_loss(e, evolutions, device), e.customer, device) for e in evidence
    ]
    start = context_bias(evidence[0], evolutions), np.zeros((0, 1)), np.zeros((0, 1), bool)
    return train_members([samples[0], samples[-1]], start, settings, told)[0]


def inputs_of(spec: Spec, journeys: Journeys) -> Inputs:
    """Normalisation by the training decisions; a constant column is left out."""
    centre, spread = moments(journeys.observation)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6)
    attributes = spec.attributes.encode(spec.catalogue)
    return Inputs(centre.astype(np.float32), scale.astype(np.float32), attributes)
