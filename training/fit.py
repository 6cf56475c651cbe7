"""Fitting the outcome model: an ensemble of small networks, all members trained side by side.

Each member sees its own resample of the training customers (bootstrap, Efron 1979) and starts from its own weights.
It stops where the validation customers are explained best. The likelihoods are those of `envs/laws.py`.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from engine.errors import TrainingError
from engine.policy import Policy
from engine.records import Floats32, Ints
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from envs.laws import Evolution, Layout, Stream
from envs.networks import Inputs, Networks
from envs.outcomes import Turn
from training.evidence import Evidence, context_evidence_of, evidence_of, streams_of, turns
from training.evolutions import evolutions_of
from training.excited import beside, excitation_of
from training.innovations import Innovations, innovations_of
from training.journeys import Journeys
from training.likelihood import context_bias, context_loss, outcome_loss
from training.means import with_means
from training.members import OutcomeSettings, Progress, Sample, Start, Told
from training.network import moments
from training.regressions import outcome_start, polished
from training.resampled import train_members
from training.selection import SHORT, SHORT_DECAY, train_ensemble

USUAL = 2.0
"""How hard it is for history to be heard by a background; see `_background`."""
ROUNDS = 2
"""How often the background and what is excited beside it are fitted, each given the other (backfitting: Buja, Hastie &
Tibshirani, Annals of Statistics 1989); once where nothing is excited."""
LEVELS = 16
"""A number of the context with so few values is told to the networks value by value as well."""


def fit_outcome_model(
    spec: Spec,
    train: Journeys,
    valid: Journeys,
    settings: OutcomeSettings | None = None,
    progress: Progress | None = None,
    behaviour: Policy | None = None,
) -> EnsembleOutcomeModel:
    """What the customers of `train` do, stopped early on those of `valid` (on `train` itself where that is empty).

    behaviour: how the log decided, as it was or cloned; None = no luck is told from what was to be expected.

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
    told, first = Told(progress), 0.5 if evolutions else 1.0
    innovations = None if behaviour is None else innovations_of(spec, train, behaviour, inputs.attributes)
    outcome = _outcome_networks(spec, logs, (inputs, streams, innovations), settings, told.within(0.0, first))
    known = inputs, evolutions
    context = _context_networks(spec, logs, known, settings, told.within(first, 1.0)) if evolutions else None
    return EnsembleOutcomeModel(spec, streams, evolutions, inputs, outcome, context)


Logs = list[tuple[Journeys, Turn]]
"""The journeys to learn from and those to judge by, with their turns."""


def _outcome_networks(
    spec: Spec,
    logs: Logs,
    known: tuple[Inputs, list[Stream], Innovations | None],
    settings: OutcomeSettings,
    told: Told,
) -> Networks:
    """What the networks say of the events after a decision, and what past contacts excite and carry over beside them.
    Their evidence, the largest table there is, ends here.
    """
    inputs, streams, innovations = known
    evidence = [evidence_of(spec, journeys, turn, inputs, streams) for journeys, turn in logs]
    bias, links = outcome_start(evidence[0], streams, spec.attributes.size)
    start = Start(
        bias,
        links,
        Layout.of(streams).may_depend(spec.attributes.size),
        _history(spec),
        names=columns_of_names(spec, evidence[0].told.shape[1]),
        attributes=spec.encoder.size + np.arange(spec.attributes.size),
        streams=len(streams),
    )
    excitation, seen = None, [turn.observation for _, turn in logs]
    for _ in range(ROUNDS):
        background = _background(spec, _samples(spec, evidence, streams, settings), start, settings)
        excitation = excitation_of(spec, seen[0], evidence[0], streams, background)
        evidence = [beside(e, excitation, observation) for e, observation in zip(evidence, seen, strict=True)]
        if excitation is None:
            break
    networks = train_ensemble(_samples(spec, evidence, streams, settings), start, settings, told)
    networks = replace(networks, excitation=excitation)
    return with_means(polished(networks, evidence[0], streams, innovations), evidence[0], streams)


def _samples(
    spec: Spec, evidence: Sequence[Evidence], streams: list[Stream], settings: OutcomeSettings
) -> list[Sample]:
    paid, device = (spec.reward.each != 0) | (spec.reward.per_value != 0), settings.place()
    return [Sample.of(e.inputs, e.told, outcome_loss(e, streams, paid, device), e.customer, device) for e in evidence]


def _background(spec: Spec, samples: list[Sample], start: Start, settings: OutcomeSettings) -> Networks:
    """What comes by itself, beside what is excited so far: one member, in a short training, that hears nothing of past
    contacts. What else it hears of history has to earn its place.
    """
    short = replace(settings, members=1, most_steps=SHORT, weight_decay=SHORT_DECAY, penalty=USUAL)
    deaf = replace(start, unheard=spec.encoder.contact_columns)
    return train_members(samples, deaf, short, Told(None)).networks


def _history(spec: Spec) -> Ints:
    """The columns of the inputs that are neither context nor action: what the fold and the clock tell."""
    return np.setdiff1d(np.arange(spec.encoder.size), spec.encoder.context_columns)


def columns_of_names(spec: Spec, told: int = 0) -> tuple[Ints, Ints]:
    """Columns that only name a content: in the inputs, and in what the links carry, whose last `told` columns are the
    action's attributes. None where contents have no attributes: then names are all there is.
    """
    identity, none = np.arange(spec.attributes.size)[spec.attributes.identity], np.zeros(0, np.int64)
    if not spec.attributes.columns:
        return none, none
    return spec.encoder.size + identity, told - spec.attributes.size + identity if told else none


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
    bias = context_bias(evidence[0], evolutions)
    start = Start(bias, np.zeros((0, 1)), np.zeros((0, 1), bool), _history(spec), names=columns_of_names(spec))
    return train_ensemble([samples[0], samples[-1]], start, settings, told)


def inputs_of(spec: Spec, journeys: Journeys) -> Inputs:
    """Normalisation by the training decisions; a constant column is left out. Attributes are 1 where they are largest:
    a price cut of 0.2 and one of 20 percent are the same.
    """
    centre, spread = moments(journeys.observation)
    scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6)
    attributes = spec.attributes.encode(spec.catalogue)
    largest: Floats32 = np.abs(attributes).max(axis=0, initial=0.0)
    attributes = np.asarray(attributes / np.where(largest > 0.0, largest, 1.0), np.float32)
    column, level = _levels(spec, journeys)
    return Inputs(centre.astype(np.float32), scale.astype(np.float32), attributes, column, level)


def _levels(spec: Spec, journeys: Journeys) -> tuple[Ints, Floats32]:
    """The values of each number of the context that has at least three and at most LEVELS in the log."""
    columns, levels = list[Ints](), list[Floats32]()
    for name in (f"context:{f.name}" for f in spec.context.features if f.type == "number"):
        column = spec.encoder.names.index(name)
        found = np.unique(journeys.observation[:, column])
        if 3 <= len(found) <= LEVELS:
            columns.append(np.full(len(found), column))
            levels.append(found)
    none = np.zeros(0)
    return np.concatenate([none, *columns]).astype(np.int64), np.concatenate([none, *levels]).astype(np.float32)
