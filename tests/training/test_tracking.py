import json
import os
import shlex
import socket
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest

from engine.bundle import Bundle
from engine.clock import parse_instant
from engine.decider import Decider
from engine.errors import NextBestError, ServiceError, StoreError, TrainingError
from engine.records import Request, Value
from nextbest import main
from tests.training.small_log import SPEC
from training import export, tracking, views
from training.network import Shape, TwoTower
from training.report import Line, learning_curve
from training.tracking import Run, Tracking


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    """One store for the module: making its tables takes seconds."""
    return Tracking(tmp_path_factory.mktemp("store") / "mlruns")


def child(store: Tracking, parent: Run, name: str, folder: Path) -> str:
    network = TwoTower(Shape(SPEC.encoder.size, SPEC.attributes.size, embedding=4, hidden=8), epsilon=0.1)
    export.export_bundle(network, SPEC, {"name": name}, folder / name)
    with store.run(name, "shop", parent.id) as run:
        run.tags({"kind": "candidate"})
        run.files(folder / name, tracking.BUNDLE)
    return run.id


def status(store: Tracking, run: Run) -> str:
    return str(store.record(run.id).info.status)


def test_trainings_that_were_evaluated_are_counted(store: Tracking) -> None:
    runs = list[str]()
    for evaluated in (True, True, False):
        with store.run("training", "counted") as run:
            run.tags({"kind": "training"} | ({"evaluated": "yes"} if evaluated else {}))
        runs.append(run.id)
    assert [store.evaluated_before(run) for run in runs] == [1, 1, 2]


def test_a_run_keeps_what_it_is_told(store: Tracking) -> None:
    with store.run("one", "shop") as run:
        run.params({"seed": 3})
        run.describe("**one**: a run")
        run.metrics({"value": 1.5, "margin": 0.2}, {"value": "what it is worth", "margin": "how sure"})
        run.metrics({"value": 2.5}, {"value": "what it is worth now"})
        run.curve("training/value", range(2000), np.linspace(0, 1, 2000).tolist())
        run.plot("curve", learning_curve([Line("a", [0, 1], [0.0, 1.0])], None, "x", "y"))
        run.dataset("shop", "abc", "logs/shop", {"decisions": 7})
    record = store.record(run.id)
    assert record.info.status == "FINISHED"
    assert record.data.params == {"seed": "3"}
    assert record.data.metrics == {"value": 2.5, "margin": 0.2, "training/value": 1.0}
    assert run.note.splitlines()[0] == "**one**: a run"
    assert run.note.splitlines()[-2:] == ["| `margin` | how sure |", "| `value` | what it is worth now |"]
    assert store.artifact(run.id, "plots/curve.png").read_bytes()[:4] == b"\x89PNG"
    assert record.inputs is not None
    assert record.inputs.dataset_inputs[0].dataset.digest == "abc"
    assert store.artifact(run.id, "plots").is_relative_to(store.folder)


def test_a_metric_without_an_explanation_is_refused(store: Tracking) -> None:
    with store.run("two", "shop") as run, pytest.raises(ValueError, match="without an explanation: mystery"):
        run.metrics({"mystery": 1.0}, {})


def test_how_a_run_ends_is_written_down(store: Tracking) -> None:
    with pytest.raises(KeyboardInterrupt), store.run("stopped", "shop") as stopped:
        raise KeyboardInterrupt
    with pytest.raises(ZeroDivisionError), store.run("broken", "shop") as broken:
        raise ZeroDivisionError
    assert (status(store, stopped), status(store, broken)) == ("KILLED", "FAILED")


def test_the_latest_training_and_its_candidates(store: Tracking, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="found no finished training in experiment 'nothing'"):
        store.latest("nothing")
    with store.run("old", "shop") as old:
        old.tags({"kind": "training"})
    with store.run("new", "shop") as new:
        new.tags({"kind": "training"})
        ids = [child(store, new, name, tmp_path) for name in ("ppo", "hold")]
        assert store.latest("shop") == old.id  # the new one is not finished
    assert store.latest("shop") == store.latest() == new.id
    found = store.candidates(new.id)
    assert [(c.name, c.run_id) for c in found] == list(zip(("ppo", "hold"), ids, strict=True))
    assert Bundle.load(found[0].bundle).card["name"] == "ppo"
    with store.reopened(ids[0]) as again:
        again.tags({"estimated": "yes"})
    assert store.record(ids[0]).data.tags["estimated"] == "yes"
    with pytest.raises(TrainingError, match="found no run 'nope'"), store.reopened("nope"):
        pass


def test_a_registered_policy_decides_as_the_service_would(store: Tracking, tmp_path: Path) -> None:
    with store.run("parent", "shop") as parent:
        run_id = child(store, parent, "ppo", tmp_path)
    before, ended = mlflow.get_tracking_uri(), store.record(run_id).info.end_time
    assert store.register(run_id, "shop", "the first") == "1"
    assert store.register(run_id, "shop", "the second") == "2"
    assert mlflow.get_tracking_uri() == before
    assert store.record(run_id).info.end_time == ended  # else the run seems to have taken until now
    assert store.registered("shop")[:2] == store.registered("shop@champion")[:2] == ("2", run_id)
    assert store.registered("shop/1")[0] == "1"
    with pytest.raises(TrainingError, match="found no model 'shop@best'; registered: shop"):
        store.registered("shop@best")

    mlflow.set_tracking_uri(store.uri)
    try:
        model = mlflow.pyfunc.load_model("models:/shop@champion")
    finally:
        mlflow.set_tracking_uri(before)
    bundle, noon = Bundle.load(tmp_path / "ppo"), "2026-03-25T12:00:00+01:00"
    history = [
        {"kind": "view", "occurred_at": "2026-03-24T12:00:00Z"},
        {"channel": "email", "content": "tips", "timing": "now", "decided_at": "2026-03-24T13:00:00Z"},
        {"channel": "email", "content": "tips", "timing": "now", "decided_at": "2026-03-24T14:00:00Z"},
        {"kind": "order", "value": 9.0, "channel": "email", "occurred_at": "2026-03-26T12:00:00Z"},
    ]
    context: dict[str, Value] = {"loyalty": "new", "balance": 3.5, "online": True}
    table = pd.DataFrame(
        {
            "request_id": ["r1", "r1"],
            "customer_id": ["anna", "anna"],
            "decided_at": [noon, noon],
            "context": [json.dumps(context)] * 2,
            "time_zone": ["Europe/Berlin"] * 2,
            "history": [None, json.dumps(history)],
        },
        index=[7, 8],
    )
    found = model.predict(table)
    assert list(found.index) == [7, 8]
    decider = Decider(bundle.spec, bundle.policy, "nextbest")
    now = np.array([parse_instant(noon, "now")])
    expected = decider.decide([Request("r1", "anna", context, "Europe/Berlin")], bundle.spec.fold.empty(1), now)[0]
    assert found["propensity"][7] == expected.propensity
    assert found["channel"][7] == expected.action.channel
    assert found["eligible"][7] == len(expected.eligible)
    # Two contacts within the week: the cap leaves only hold. What happened after the decision does not count.
    assert found.loc[8, ["channel", "content", "timing", "send_at"]].isna().all()
    assert found.loc[8, ["propensity", "eligible"]].tolist() == [1.0, 1]


def test_the_export_verb_fetches_a_registered_bundle(
    store: Tracking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with store.run("parent", "shop") as parent:
        store.register(child(store, parent, "ppo", tmp_path), "other", "")
    monkeypatch.chdir(store.folder.parent)
    out = tmp_path / "a folder [new]"
    export.run("other@champion", out)
    assert Bundle.load(out).version == Bundle.load(tmp_path / "ppo").version
    shown = capsys.readouterr().out
    assert "version 1" in shown
    # What it says to do next is a command with all that it needs, as it would be typed.
    door, verb, *arguments = shlex.split(shown.splitlines()[-1].removeprefix("next:"))
    told = main.commands[verb].make_context(verb, arguments).params
    assert (door, verb) == ("nextbest", "serve")
    assert (told["bundle"], told["store"]) == (out, tmp_path / f"{SPEC.name}.db")
    with pytest.raises(NextBestError, match="not empty"):
        export.run("other", out)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be opened"):
        Tracking(tmp_path / "mlruns")


def test_a_store_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlruns").write_text("a file")
    with pytest.raises(StoreError, match="cannot be opened as an MLflow store"):
        Tracking(tmp_path / "mlruns")


def test_the_ui_says_that_its_port_is_taken(store: Tracking) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=f"port {port}: Address already in use"):
            views.ui(store.folder, port)
