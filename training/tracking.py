"""Everything that touches MLflow: runs, metrics, plots, bundles, the registry, the UI. No other file imports it.

The store is one folder: `mlflow.db` (sqlite) and `artifacts/`. A training is a parent run with one child per
candidate. Nothing here is global: two stores can be open side by side (except in `register`, which says why).
"""

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit
from urllib.request import url2pathname
from warnings import catch_warnings, simplefilter

from engine.bundle import Bundle
from engine.errors import StoreError, TrainingError

# Read by MLflow when it is imported: no reports home, no chatter between our own lines.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow.pyfunc
from matplotlib.figure import Figure
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, ViewType
from mlflow.entities import Run as Record
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME, MLFLOW_RUN_NOTE

from training.nextbest_policy import example

for _chatty in ("mlflow", "alembic"):
    logging.getLogger(_chatty).setLevel(logging.WARNING)
logging.getLogger("mlflow.store").setLevel(logging.CRITICAL)  # what it writes there, it raises as well

CHAMPION = "champion"
"""The alias of the model version that is served."""

BUNDLE, MODEL = "bundle", "policy"
"""Artifact folder of a candidate's bundle; name of its MLflow model."""

TABLE = "\n\n| metric | meaning |\n|---|---|\n"
_UNREAD = shutil.ignore_patterns("__pycache__", "*.md")
_REQUIREMENTS = ("numpy", "pandas", "pydantic", "onnxruntime", "tzdata")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A child run that holds a bundle: its name (`ppo`), run id and the bundle's folder on this machine."""

    name: str
    run_id: str
    bundle: Path


class Run:
    """One MLflow run that is being written."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self.id = client, run_id

    def params(self, values: Mapping[str, object]) -> None:
        """What was chosen before the start; shown as columns in the UI."""
        self._client.log_batch(self.id, params=[Param(k, str(v)) for k, v in values.items()])

    def tags(self, values: Mapping[str, object]) -> None:
        """Facts to filter runs by."""
        for key, value in values.items():
            self._client.set_tag(self.id, key, str(value))

    def metrics(self, values: Mapping[str, float], explained: Mapping[str, str]) -> None:
        """Numbers, each with one line that says what it is; the lines end up in the run's description.

        Raises ValueError for a number without its line.
        """
        missing = sorted(set(values) - set(explained))
        if missing:
            raise ValueError(f"metrics without an explanation: {', '.join(missing)}")
        now = _milliseconds()
        self._client.log_batch(self.id, metrics=[Metric(k, _readable(v), now, 0) for k, v in values.items()])
        text, _, table = self.note.partition(TABLE)
        rows = dict(line.strip("| ").split(" | ", 1) for line in table.splitlines())
        rows |= {f"`{k}`": explained[k] for k in values}
        lines = [f"| {k} | {v} |" for k, v in sorted(rows.items())]
        self._describe(text + TABLE + "\n".join(lines))

    def curve(self, name: str, steps: Sequence[int], values: Sequence[float]) -> None:
        """A metric over steps, drawn by the UI as a line."""
        now = _milliseconds()
        points = [Metric(name, float(v), now, int(s)) for s, v in zip(steps, values, strict=True)]
        for start in range(0, len(points), 900):  # MLflow takes at most 1,000 in a call
            self._client.log_batch(self.id, metrics=points[start : start + 900])

    def dataset(self, name: str, digest: str, source: str, profile: Mapping[str, int]) -> None:
        """What this run learned from; the UI shows it in a column and can filter by it."""
        found = Dataset(name, digest, "local", json.dumps({"uri": source}), profile=json.dumps(dict(profile)))
        self._client.log_inputs(self.id, datasets=[DatasetInput(found, [InputTag("mlflow.data.context", "training")])])

    def plot(self, name: str, figure: Figure) -> None:
        """A figure as `plots/<name>.png`."""
        self._client.log_figure(self.id, figure, f"plots/{name}.png", save_kwargs={"dpi": 130})

    def text(self, path: str, content: str) -> None:
        """A text artifact."""
        self._client.log_text(self.id, content, path)

    def files(self, source: Path, path: str | None = None) -> None:
        """A file, or what a folder holds, as artifacts below `path`."""
        log = self._client.log_artifacts if source.is_dir() else self._client.log_artifact
        log(self.id, str(source), path)

    def describe(self, text: str) -> None:
        """Markdown that stands at the head of the run's page, above the table of its metrics."""
        table = self.note.partition(TABLE)[2]
        self._describe(text + (TABLE + table if table else ""))

    @property
    def note(self) -> str:
        """The description as it stands."""
        return str(self._client.get_run(self.id).data.tags.get(MLFLOW_RUN_NOTE, ""))

    def _describe(self, text: str) -> None:
        self._client.set_tag(self.id, MLFLOW_RUN_NOTE, text)


class Tracking:
    """The store in `folder`; made if it is not there. Raises StoreError if that cannot be."""

    def __init__(self, folder: Path = Path("mlruns")) -> None:
        self.folder = folder.resolve()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError("no permission to write")
            self.client = MlflowClient(tracking_uri=self.uri)
            self.client.search_experiments(max_results=1)
        except (OSError, MlflowException) as problem:
            why = (str(problem).splitlines() or [type(problem).__name__])[0]
            raise StoreError(f"{self.folder}: cannot be opened as an MLflow store: {why}") from None

    @property
    def uri(self) -> str:
        """What `mlflow.set_tracking_uri` wants."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @contextmanager
    def run(self, name: str, experiment: str, parent: str | None = None) -> Iterator[Run]:
        """A new run; FINISHED at the end, FAILED after an error, KILLED after Ctrl-C. `parent`: a run id."""
        tags = {MLFLOW_RUN_NAME: name} | ({MLFLOW_PARENT_RUN_ID: parent} if parent else {})
        run_id = self.client.create_run(self._experiment(experiment), tags=tags).info.run_id
        with self._closing(run_id):
            yield Run(self.client, run_id)

    @contextmanager
    def reopened(self, run_id: str) -> Iterator[Run]:
        """A run of old, to add to; how it ended stays. Raises TrainingError if there is none with this id."""
        self.record(run_id)
        yield Run(self.client, run_id)

    @contextmanager
    def resumed(self, run_id: str) -> Iterator[Run]:
        """A run of old that goes on: RUNNING, then ended as by `run`. Raises TrainingError if there is none."""
        self.record(run_id)
        self.client.update_run(run_id, "RUNNING")
        with self._closing(run_id):
            yield Run(self.client, run_id)

    def record(self, run_id: str) -> Record:
        """A run's data (params, tags, metrics). Raises TrainingError if there is none with this id."""
        try:
            return self.client.get_run(run_id)
        except MlflowException:
            raise TrainingError(f"{self.folder}: found no run {run_id!r}") from None

    def latest(self, experiment: str | None = None) -> str:
        """Run id of the last finished training, in `experiment` or anywhere. Raises TrainingError if there is none."""
        experiments = self.client.search_experiments(view_type=ViewType.ACTIVE_ONLY)
        ids = [e.experiment_id for e in experiments if experiment in (None, e.name)]
        wanted = "attributes.status = 'FINISHED' AND tags.kind = 'training'"
        found = self.client.search_runs(ids, wanted, max_results=1, order_by=["start_time DESC"]) if ids else []
        if not found:
            where = f" in experiment {experiment!r}" if experiment else ""
            raise TrainingError(f"{self.folder}: found no finished training{where}; `nextbest train` makes one")
        return str(found[0].info.run_id)

    def candidates(self, parent: str) -> list[Candidate]:
        """The children of a training that hold a bundle, in the order in which they were made."""
        ids = [self.record(parent).info.experiment_id]
        wanted = f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}' AND tags.kind = 'candidate'"
        found = self.client.search_runs(ids, wanted, order_by=["start_time ASC"])
        return [Candidate(r.info.run_name, r.info.run_id, self.artifact(r.info.run_id, BUNDLE)) for r in found]

    def evaluated_before(self, parent: str) -> int:
        """How many other trainings of the same experiment have been evaluated (their tag says so)."""
        ids = [self.record(parent).info.experiment_id]
        return sum(r.info.run_id != parent for r in self.client.search_runs(ids, "tags.evaluated = 'yes'"))

    def artifact(self, run_id: str, path: str) -> Path:
        """A run's artifact on this machine. Raises TrainingError if it is not there."""
        # Not client.download_artifacts: it copies what lies here anyway.
        found = Path(url2pathname(urlsplit(self.record(run_id).info.artifact_uri).path)) / path
        if not found.exists():
            raise TrainingError(f"run {run_id}: found no artifact {path!r} in {self.folder}")
        return found

    def register(self, run_id: str, model: str, description: str, tags: Mapping[str, str] | None = None) -> str:
        """Make a candidate's bundle the champion of the registered model `model`, a new version with these `tags`,
        whose number is returned. It holds the bundle, the engine's source and `nextbest_policy.py` (see there for its
        table of inputs), and can be loaded with `mlflow.pyfunc.load_model` anywhere.
        """
        bundle, here = self.artifact(run_id, BUNDLE), Path(__file__).parent
        # Logging and registering a model go through MLflow's global store: set here, given back below.
        before, ended = mlflow.get_tracking_uri(), self.record(run_id).info
        mlflow.set_tracking_uri(self.uri)
        try:
            with mlflow.start_run(run_id=run_id), TemporaryDirectory() as folder, catch_warnings():
                simplefilter("ignore")  # MLflow's own: it compares pandas' indices in a way that pandas 3 dislikes
                code = shutil.copytree(here.parent / "engine", Path(folder) / "engine", ignore=_UNREAD)
                info = mlflow.pyfunc.log_model(
                    name=MODEL,
                    loader_module="nextbest_policy",
                    data_path=str(bundle),
                    code_paths=[str(code), str(here / "nextbest_policy.py")],
                    pip_requirements=list(_REQUIREMENTS),
                    signature=_signature(),
                    input_example=example(Bundle.load(bundle).spec),
                )
            if not self.client.search_registered_models(f"name = '{model}'"):
                self.client.create_registered_model(model, description=f"Policies; `{CHAMPION}` is the one to serve.")
            version = self.client.create_model_version(
                model, info.model_uri, run_id, dict(tags or {}), description=description
            )
        finally:
            mlflow.set_tracking_uri(before)
            self.client.set_terminated(run_id, ended.status, ended.end_time)  # as it was: this was no part of the run
        self.client.set_registered_model_alias(model, CHAMPION, version.version)
        return str(version.version)

    def registered(self, model: str) -> tuple[str, str, Path]:
        """(version, run id, bundle folder) of `name@alias`, `name/version` or `name` (= name@champion).

        Raises TrainingError that says what is registered.
        """
        name, at, alias = model.partition("@")
        name, slash, number = name.partition("/")
        try:
            if slash:
                version = self.client.get_model_version(name, number)
            else:
                version = self.client.get_model_version_by_alias(name, alias if at else CHAMPION)
        except MlflowException:
            known = ", ".join(m.name for m in self.client.search_registered_models()) or "none"
            raise TrainingError(f"{self.folder}: found no model {model!r}; registered: {known}") from None
        run_id = str(version.run_id)
        return str(version.version), run_id, self.artifact(run_id, BUNDLE)

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # The kind makes the UI open on tables and charts of runs instead of traces of language models.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(self.client.create_experiment(name, (self.folder / "artifacts").as_uri(), tags))

    @contextmanager
    def _closing(self, run_id: str) -> Iterator[None]:
        status = "FAILED"
        try:
            yield
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            self.client.set_terminated(run_id, status)


def _signature() -> ModelSignature:
    needed = [ColSpec(DataType.string, n) for n in ("request_id", "customer_id", "decided_at", "context")]
    spare = [ColSpec(DataType.string, n, required=False) for n in ("time_zone", "consents", "history")]
    texts = [ColSpec(DataType.string, n, required=False) for n in ("channel", "content", "timing", "send_at")]
    numbers = [ColSpec(DataType.double, "propensity"), ColSpec(DataType.long, "eligible")]
    return ModelSignature(Schema([*needed, *spare]), Schema([*texts, *numbers]))


def _readable(value: float) -> float:
    """Four digits, because the UI shows all that there are; counts are exact."""
    return float(value) if float(value).is_integer() else float(f"{value:.4g}")


def _milliseconds() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)
