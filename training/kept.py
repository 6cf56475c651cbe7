"""Finished stages of a training, kept as files of its run: what is kept is taken up, never done again.

A stage is written under another name, flushed, and renamed: it is whole or not there, whatever ended the process. What
was just made is read back before it is used, so that a training that was interrupted goes on from the same bytes as one
that was not.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Generic, TypeVar

import torch

from engine.bundle import flush
from engine.errors import TrainingError
from engine.spec import Spec
from envs.ensemble import EnsembleOutcomeModel
from training.clone import Fitted, Progress
from training.network import Shape, TwoTower
from training.pessimism import Pessimism
from training.ppo import Curve, Learned, PpoSettings
from training.recipe import revived
from training.story import Story

STAGES = "stages"
"""Where most of them lie among the run's artifacts."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """How one kind of thing becomes a file and comes back, bit by bit the same. where: its place in the run."""

    where: str
    write: Callable[[T, Path], None]
    read: Callable[[Path], T]


@dataclass(frozen=True, slots=True)
class Kept:
    """The files of one run. folder: its artifacts; None keeps nothing."""

    folder: Path | None = None

    def has(self, form: Form[T]) -> bool:
        """Is this stage finished?"""
        return self.folder is not None and (self.folder / form.where).is_file()

    def once(self, form: Form[T], make: Callable[[], T]) -> T:
        """What is kept; else what `make` makes, kept. Raises TrainingError if a file cannot be read or written."""
        return self.get(form) if self.has(form) else self.keep(form, make())

    def keep(self, form: Form[T], made: T) -> T:
        """What was just made, written and read back. Raises TrainingError if a file cannot be."""
        if self.folder is None:
            return made
        file = self.folder / form.where
        _whole(file, partial(form.write, made))
        return _read(form, file)

    def get(self, form: Form[T]) -> T:
        """What is kept. Raises TrainingError when it is not there or cannot be read."""
        if self.folder is None or not self.has(form):
            raise TrainingError(f"{self.folder}: found no {form.where}, expected a finished training")
        return _read(form, self.folder / form.where)

    def adopt(self, source: "Kept", *more: str) -> None:
        """Copies of all stages that another run has finished, and of these files of it."""
        assert self.folder is not None
        assert source.folder is not None
        stages = [f"{STAGES}/{file.name}" for file in sorted((source.folder / STAGES).glob("[!.]*"))]
        for where in (*stages, *more):
            if not (self.folder / where).is_file():
                copied = partial(shutil.copyfile, source.folder / where)
                _whole(self.folder / where, copied)

    def stage(self, story: Story, title: str, form: Form[T], make: Callable[[Progress], T]) -> T:
        """As `once`, told as a stage of the story."""
        if self.has(form):
            story.last = 0.0
            story.say(f"[bold]{title}[/] [dim](kept from before)[/]")
            return self.once(form, lambda: make(_silent))
        with story.stage(title) as progress:
            return self.once(form, lambda: make(progress))


def clone_form() -> Form[Fitted]:
    """The behaviour clone with its losses."""
    return Form(f"{STAGES}/clone.pt", _write_fitted, _read_fitted)


def model_form(spec: Spec, where: str) -> Form[EnsembleOutcomeModel]:
    """The outcome model."""
    return Form(where, lambda model, file: model.save(file), lambda file: EnsembleOutcomeModel.load(file, spec))


def certificate_form() -> Form[Mapping[str, Any]]:
    """What cards say of the environment (`Certificate.card`)."""
    return Form(f"{STAGES}/certificate.json", _write_json, lambda file: dict(json.loads(file.read_bytes())))


def pessimism_form() -> Form[Pessimism]:
    """How far the environment is distrusted."""
    return Form(
        f"{STAGES}/pessimism.json",
        lambda found, file: _write_json(asdict(found), file),
        lambda file: revived(Pessimism, json.loads(file.read_bytes())),
    )


def ppo_form(settings: PpoSettings) -> Form[Learned]:
    """One training of PPO, named after its settings: the same settings are never trained twice."""
    told = json.dumps(asdict(settings), sort_keys=True)
    return Form(f"{STAGES}/ppo-{sha256(told.encode()).hexdigest()[:12]}.pt", _write_learned, _read_learned)


def _whole(file: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file, which is then whole or not there. Raises TrainingError."""
    unfinished = file.with_name(f".{file.name}.unfinished")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write(unfinished)
        flush(unfinished)
        unfinished.replace(file)
        flush(file.parent)
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError where the disk is full
        unfinished.unlink(missing_ok=True)
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(f"{file}: cannot be written: {reason}") from None


def _read(form: Form[T], file: Path) -> T:
    try:
        return form.read(file)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(f"{file}: cannot be read: {reason}; delete it, and this stage is done again") from None


def _silent(done: int, total: int) -> None:
    """Nobody watches."""


def _write_json(value: Mapping[str, Any], file: Path) -> None:
    file.write_text(json.dumps(value, indent=2), "utf-8")


def _told(network: TwoTower) -> dict[str, Any]:
    shape, state = asdict(network.shape), network.state_dict()
    return {"shape": shape, "temperature": network.temperature, "epsilon": network.epsilon, "state": state}


def _network(told: Mapping[str, Any]) -> TwoTower:
    with torch.random.fork_rng(devices=[]):  # its first weights are drawn, and then replaced
        network = TwoTower(Shape(**told["shape"]), temperature=told["temperature"], epsilon=told["epsilon"])
    network.load_state_dict(told["state"])
    return network


def _write_fitted(fitted: Fitted, file: Path) -> None:
    losses = {"train_loss": fitted.train_loss, "valid_loss": fitted.valid_loss}
    torch.save({"network": _told(fitted.network), **losses}, file)


def _read_fitted(file: Path) -> Fitted:
    told = torch.load(file, weights_only=True)
    return Fitted(_network(told["network"]), tuple(told["train_loss"]), tuple(told["valid_loss"]))


def _write_learned(learned: Learned, file: Path) -> None:
    parts = {"value": float(learned.valid_value), "curve": asdict(learned.curve)}
    torch.save({"network": _told(learned.network), **parts}, file)


def _read_learned(file: Path) -> Learned:
    told = torch.load(file, weights_only=True)
    return Learned(_network(told["network"]), told["value"], revived(Curve, told["curve"]))
