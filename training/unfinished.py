"""Trainings that were interrupted: which there are, and how two processes are kept from one run.

A run that says RUNNING may belong to a process that was killed. Whoever trains holds a lock on the folder of the run's
artifacts; the system lets go of it when the process ends, however it ends.
"""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from engine.bundle import Bundle
from engine.errors import BundleError, TrainingError
from training.recipe import FILE
from training.recorded import UNFINISHED
from training.story import Story
from training.tracking import Candidate, Tracking


@contextmanager
def held(tracking: Tracking, run_id: str) -> Iterator[None]:
    """For this process alone, until the end of the block. Raises TrainingError when another process has the run."""
    handle = _locked(tracking.artifact(run_id, ""))
    if handle is None:
        raise TrainingError(f"run {run_id}: another process is at work on it")
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def goes_on(command: str, story: Story) -> Iterator[None]:
    """Tells whoever interrupts the block how to go on: `command`, without the program's name."""
    try:
        yield
    except KeyboardInterrupt:
        story.command(f"what is finished is kept: [bold]nextbest {command}[/] goes on")
        raise


def latest_unfinished(tracking: Tracking, tags: Mapping[str, str]) -> str:
    """Run id of the last training with these tags that was interrupted: no process is at work on it, and it never
    finished. Raises TrainingError when there is none.
    """
    ids = [e.experiment_id for e in tracking.client.search_experiments()]
    wanted = "attributes.status != 'FINISHED' AND tags.kind = 'training'"
    found = tracking.client.search_runs(ids, wanted, order_by=["start_time DESC"]) if ids else []
    busy = ""
    for record in found:
        run_id = str(record.info.run_id)
        if any(record.data.tags.get(name) != value for name, value in tags.items()):
            continue
        try:
            tracking.artifact(run_id, FILE)
        except TrainingError:
            continue  # of an earlier version, stopped before it had begun, or its files are gone
        if (handle := _locked(tracking.artifact(run_id, ""))) is not None:
            os.close(handle)
            return run_id
        busy = f"; another process is at work on run {run_id}"
    of = " of this " + " and ".join(tags) if tags else ""
    raise TrainingError(f"{tracking.folder}: found no interrupted training{of}{busy}")


def whole_candidates(tracking: Tracking, parent: str) -> dict[str, Candidate]:
    """The candidates that a training had finished, by name. Those that are half-written are thrown away: their runs are
    marked FAILED and deleted, as MLflow deletes (they can be restored).
    """
    experiment = [tracking.record(parent).info.experiment_id]
    half = f"tags.mlflow.parentRunId = '{parent}' AND tags.kind = '{UNFINISHED}'"
    for record in tracking.client.search_runs(experiment, half):
        throw_away(tracking, str(record.info.run_id))
    found = {}
    for child in tracking.candidates(parent):
        try:
            Bundle.load(child.bundle)
        except BundleError:
            throw_away(tracking, child.run_id)
            continue
        if tracking.record(child.run_id).info.status != "FINISHED":
            tracking.client.set_terminated(child.run_id, "FINISHED")  # killed between its last word and its end
        found[child.name] = child
    return found


def throw_away(tracking: Tracking, run_id: str) -> None:
    """Mark a half-written run as FAILED and delete it, as MLflow deletes."""
    tracking.client.set_terminated(run_id, "FAILED")
    tracking.client.delete_run(run_id)


def _locked(folder: Path) -> int | None:
    """A handle that holds the lock on a folder until it is closed; None when another one does."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle
