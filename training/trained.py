"""What a training left behind in MLflow: candidates as bundles, the environment, and which log it all came from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from engine.bundle import Bundle
from engine.errors import TrainingError
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from training.candidates import rank_of
from training.journeys import Journeys, Shares
from training.logs import read_log
from training.tracking import CHAMPION, Tracking

OUTCOME_MODEL = "environment/outcome_model.zip"
"""Artifact of the parent run: the learned outcome model."""

SHARES = "shares"
"""Parameter of the parent run: the shares of training, validation and test customers."""

EARLIER = "[0.6, 0.2, 0.2]"
"""What they were in runs that do not say so."""


@dataclass(frozen=True, slots=True)
class Trained:
    """One training. run: its id; title: its name. bundles: by candidate's name; runs: name → run id of the child; log:
    folder or URL; seed, shares: of the split of its customers.
    """

    run: str
    title: str
    bundles: Mapping[str, Bundle]
    runs: Mapping[str, str]
    log: str
    seed: int
    shares: Shares
    tracking: Tracking

    @staticmethod
    def of(tracking: Tracking, run: str | None = None) -> "Trained":
        """The training with this run id (default: the latest). Raises TrainingError when there is none, or when it
        has no candidate yet.
        """
        parent = run or tracking.latest()
        children = sorted(tracking.candidates(parent), key=lambda child: rank_of(child.name))
        if not children:
            raise TrainingError(f"run {parent}: found no candidate with a bundle; `nextbest train` makes them")
        record = tracking.record(parent)
        data = record.data
        return Trained(
            run=parent,
            title=record.info.run_name,
            bundles={child.name: Bundle.load(child.bundle) for child in children},
            runs={child.name: child.run_id for child in children},
            log=data.tags["log"],
            seed=int(data.params["seed"]),
            shares=tuple(json.loads(data.params.get(SHARES, EARLIER))),
            tracking=tracking,
        )

    @property
    def spec(self) -> Spec:
        return next(iter(self.bundles.values())).spec

    def held_out(self) -> Journeys:
        """The log's customers that no learner has seen. Raises LogError when the log cannot be read any more."""
        return self.parts()[2]

    def parts(self) -> tuple[Journeys, Journeys, Journeys]:
        """The log's training, validation and test customers. Raises LogError when it cannot be read any more."""
        return Journeys.of(self.spec, read_log(self.spec, self.log)).split(self.seed, self.shares)

    def model(self) -> EnsembleOutcomeModel:
        """The learned outcome model. Raises TrainingError when it is not there."""
        return EnsembleOutcomeModel.load(self.tracking.artifact(self.run, OUTCOME_MODEL), self.spec)


def champion_of(tracking: Tracking, model: str) -> str | None:
    """NAME/VERSION of the champion of a registered model; None when it has none."""
    try:
        return f"{model}/{tracking.registered(f'{model}@{CHAMPION}')[0]}"
    except TrainingError:
        return None
