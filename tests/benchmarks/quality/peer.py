"""A learner that somebody else wrote as a policy of ours: it runs in another Python, at the end of a pipe.

It learns from the same encoded observations, masks, actions, propensities and rewards as ours, and meets customers as
ours does: through the fold, the encoder and the mask.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Self

import numpy as np

from engine.records import DAY, Bools, Floats32
from engine.spec import Spec
from tests.benchmarks.quality.interpreters import Interpreter
from training.journeys import Journeys

DRIVER = Path(__file__).with_name("peer_driver.py")
PYTHON = Interpreter(
    "d3rlpy-2.8.1-vowpalwabbit-9.11.9",
    (
        ("torch==2.13.0", "numpy==2.4.6", "scipy==1.17.1", "scikit-learn==1.9.1"),
        ("gymnasium==1.0.0", "gym==0.26.2", "h5py==3.16.0", "d3rlpy==2.8.1", "vowpalwabbit==9.11.9"),
    ),
)
"""d3rlpy wants exactly this gymnasium, which is not ours."""
STAND_IN = "ridge"
"""The driver's own peer, for tests: it needs no other Python."""
PEERS = ("VW mtr", "VW dr", "d3rlpy DiscreteCQL", "d3rlpy DiscreteBC")


class Peer:
    """A `Policy`: of what is eligible, what the peer scores highest, with certainty. Use it as a context.

    seconds: CPU time of its learning. Raises RuntimeError with the last thing it said where the other end stops.
    """

    def __init__(self, name: str, spec: Spec, seen: Journeys, steps: int, seed: int) -> None:
        """name: one of PEERS, or STAND_IN. steps: of d3rlpy, batches of its default size."""
        self.version = name
        self._folder = TemporaryDirectory()
        log, said = Path(self._folder.name) / "log.npz", Path(self._folder.name) / "said"
        np.savez(log, **arrays(spec, seen), steps=steps, seed=seed)
        python = Path(sys.executable) if name == STAND_IN else PYTHON.path()
        with said.open("wb") as errors:
            self._process = subprocess.Popen(
                [python, "-W", "ignore", str(DRIVER), name, str(log)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._said = said
        self.seconds = float(json.loads(self._pipe(self._process.stdout).readline() or self._stopped())["seconds"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *why: object) -> None:
        self._pipe(self._process.stdin).close()
        self._process.wait()
        self._pipe(self._process.stdout).close()
        self._folder.cleanup()

    def probabilities(self, observation: Floats32, mask: Bools) -> Floats32:
        """1 for one eligible action of each of [B, n], 0 for all others."""
        asking, answering = self._pipe(self._process.stdin), self._pipe(self._process.stdout)
        asking.write(json.dumps({"rows": len(mask)}).encode() + b"\n")
        asking.write(np.ascontiguousarray(observation, np.float32).tobytes())
        asking.write(np.ascontiguousarray(mask, np.bool_).tobytes())
        asking.flush()
        answer = answering.read(4 * mask.size)
        if len(answer) < 4 * mask.size:
            self._stopped()
        scores = np.frombuffer(answer, np.float32).reshape(mask.shape)
        best = np.where(mask, scores, -np.inf).argmax(axis=1)
        chosen = np.zeros(mask.shape, np.float32)
        chosen[np.arange(len(mask)), best] = 1.0
        return chosen

    def _stopped(self) -> bytes:
        status, said = self._process.wait(), self._said.read_text("utf-8", "replace").splitlines()
        raise RuntimeError(f"{self.version} stopped with status {status}: {said[-1] if said else 'it said nothing'}")

    @staticmethod
    def _pipe(end: IO[bytes] | None) -> IO[bytes]:
        assert end is not None
        return end


def arrays(spec: Spec, seen: Journeys) -> dict[str, Any]:
    """A log as the driver reads it; decisions are already sorted by customer and time."""
    last = np.append(seen.customer[1:] != seen.customer[:-1], True)
    gaps = np.diff(seen.decided_at)[~last[:-1]] / DAY
    columns = ("observation", "mask", "action", "propensity", "reward", "decided_at")
    return {
        **{name: getattr(seen, name) for name in columns},
        "terminal": last & seen.ended,
        "timeout": last & ~seen.ended,
        "attributes": spec.attributes.encode(spec.catalogue),
        "discount": seen.discount_per_day ** (float(gaps.mean()) if len(gaps) else 0.0),
    }
