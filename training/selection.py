"""What is settled while an ensemble is trained: how hard it is for history to be heard, and how much effort pays.

All of it by how well the second sample, customers of whom no member has learned, is explained.
"""

from dataclasses import replace

import numpy as np

from envs.networks import Networks
from training.members import OutcomeSettings, Sample, Start, Told
from training.resampled import Trained, train_members

PENALTIES = (1.0, 2.0, 4.0, 8.0)
"""How hard it may be for a column of history to be heard; see `OutcomeSettings.penalty`."""
RELAXED = 0.25
"""What is left of the penalty once it is settled which columns are heard; see `_relaxed`."""
SHORT = 300
"""Steps at most of the trainings that settle the penalty, and of backgrounds."""
SHORT_DECAY = 1.0
"""Their weight decay: with less, they hear so much luck that hardly any history looks worth its price."""


def train_ensemble(samples: list[Sample], start: Start, settings: OutcomeSettings, told: Told) -> Networks:
    """The ensemble, with the penalty on history and the effort that the second sample asks for."""
    if settings.penalty is None:
        settings = replace(settings, penalty=_penalty(samples, start, settings, told.within(0.0, 0.2)))
    settings = _effort(samples, start, settings, told.within(0.2, 0.4))
    first = train_members(samples, start, settings, told.within(0.4, 0.7))
    found = _relaxed(samples, start, settings, first, told.within(0.7, 1.0))
    told.part(1.0)
    return found.networks


def _relaxed(samples: list[Sample], start: Start, settings: OutcomeSettings, first: Trained, told: Told) -> Trained:
    """An ensemble that hears only the history that all members of the first have heard, for a part of the price, if it
    explains the second sample better; else the first.

    The price chooses, and it shrinks what it has chosen: with it a customer who rests for a week looks like one who
    rests for three days. So who was chosen pays less (the relaxed lasso: Meinshausen, Computational Statistics & Data
    Analysis 2007).
    """
    priced = start.priced
    heard = priced[(np.linalg.norm(first.networks.weights[0][:, priced], axis=2) > 0.0).all(axis=0)]
    penalty = settings.penalty or 0.0
    if penalty <= PENALTIES[0] or not len(heard):
        return first  # the lowest price shrinks little
    chosen = replace(start, unheard=np.union1d(start.unheard, np.setdiff1d(priced, heard)))
    found = train_members(samples, chosen, replace(settings, penalty=RELAXED * penalty), told)
    return found if found.nll.mean() < first.nll.mean() else first


def _effort(samples: list[Sample], start: Start, settings: OutcomeSettings, told: Told) -> OutcomeSettings:
    """The settings of the last of `efforts` that explains the second sample clearly better than the one before, by one
    member each, in short trainings.

    What customers do is mostly luck, and a short training hears all that can be heard. A budget that shrinks by what
    was spent, or a score that answers each action, is nearly certain: there the likelihood goes on rising for as long
    as the networks are given room and time.
    """
    chosen, found, tries = settings, None, efforts(settings)
    for number, tried in enumerate(tries, 1):
        short = replace(tried, members=1, most_steps=settings.least_steps)
        now = train_members(samples, start, short, Told(None))
        told.part(number / len(tries))
        if found is not None and _as_good(found, now, 2.0):
            break
        chosen, found = tried, now
    return replace(chosen, members=settings.members)


def efforts(settings: OutcomeSettings) -> tuple[OutcomeSettings, ...]:
    """As they are; with less decay, more steps and twice the units."""
    wider = replace(
        settings,
        weight_decay=settings.weight_decay / 10,
        least_steps=5 * settings.least_steps // 2,
        hidden=2 * settings.hidden,
    )
    return settings, wider


def _penalty(samples: list[Sample], start: Start, settings: OutcomeSettings, told: Told) -> float:
    """The largest of PENALTIES that explains the second sample as well as the best, up to a standard error, in short
    trainings (the one-standard-error rule: Breiman, Friedman, Olshen & Stone 1984, 3.4).

    History often stands in for what it merely goes along with: who was targeted for what he is has a history that
    tells it. Both explain the log alike, but once actions change, history changes and he does not. So of models that
    explain alike the one is taken that hears the least of history.
    """
    short = replace(settings, members=min(2, settings.members), most_steps=SHORT, checks=4, weight_decay=SHORT_DECAY)
    found = list[Trained]()
    for number, penalty in enumerate(PENALTIES, 1):
        found.append(train_members(samples, start, replace(short, penalty=penalty), Told(None)))
        told.part(number / len(PENALTIES))
        best = min(found, key=lambda f: float(f.nll.mean()))
        if not _as_good(found[-1], best, 2.0):
            break  # and more would be worse
    return max(p for p, f in zip(PENALTIES, found, strict=False) if _as_good(f, best, 1.0))


def _as_good(one: Trained, best: Trained, errors: float) -> bool:
    """Does luck explain by how much `best` is better? Within so many standard errors, customers as clusters."""
    gap = one.nll - best.nll
    each = np.bincount(one.customer, weights=gap - gap.mean())
    return bool(gap.sum() <= errors * np.sqrt((each**2).sum()))
