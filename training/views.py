"""The page of the MLflow UI that compares the candidates of a training: which runs, which columns, in which order.

MLflow keeps a shared view as a tag of the experiment and opens it by its key in the address.
"""

import json
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from engine.errors import ServiceError, TrainingError
from training.tracking import Tracking

TAGS = ("verdict",)
COLUMNS = (
    *("gain", "gain_lower", "gain_upper", "gain_bound", "true_gain", "value", "value_lower", "value_upper", "ess"),
    *("over_constant_lower", "contacts_per_week", "environment_value", "distance_from_log"),
)
"""Tags and metrics in the order in which one asks for them; those that do not exist yet do not show."""

_TAG = "mlflow.sharedViewState."


def keep_view(tracking: Tracking, parent: str, order_by: str, columns: Sequence[str] = COLUMNS) -> None:
    """Make the view of a training: its candidates, best `order_by` first, with what the gate said and these metrics as
    columns.
    """
    names = [*(f"tags.`{name}`" for name in TAGS), *(f"metrics.`{name}`" for name in columns)]
    view = {
        "selectedColumns": names,
        "columnOrder": names,
        "columnWidths": dict.fromkeys(names, 110),
        "orderByKey": f"metrics.`{order_by}`",
        "orderByAsc": False,
        "searchFilter": f"tags.mlflow.parentRunId = '{parent}'",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
    }
    experiment = tracking.record(parent).info.experiment_id
    tracking.client.set_experiment_tag(experiment, _TAG + parent, json.dumps(view))


def address(tracking: Tracking, parent: str, root: str) -> str:
    """Where the UI at `root` (http://127.0.0.1:5000) shows the view of a training."""
    experiment = tracking.record(parent).info.experiment_id
    return f"{root}/#/experiments/{experiment}/runs?viewStateShareKey={parent}&workflowType=machine_learning"


def ui(folder: Path = Path("mlruns"), port: int = 5000, host: str = "127.0.0.1") -> None:
    """The `ui` verb: serve the MLflow UI on the store in `folder` until Ctrl-C.

    Prints where the candidates of the latest training stand side by side. Raises ServiceError if the port is taken.
    """
    store, root = Tracking(folder), f"http://{host}:{port}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as problem:
            raise ServiceError(f"port {port}: {problem.strerror or problem}; choose another with --port") from None
    console = Console(soft_wrap=True)
    console.print(f"MLflow on {store.folder}: {root} (Ctrl-C ends it)", highlight=False)
    with suppress(TrainingError):
        console.print(f"the latest training: {address(store, store.latest(), root)}", highlight=False)
    sys.stdout.flush()
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store.uri, "--host", host]
    quiet = ["--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level warning"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    os.execve(sys.executable, [*command, *quiet], environment)  # signals then reach MLflow itself
