"""The file of a learned outcome model: arrays and JSON in one .npz, no pickled code, written whole or not at all."""

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from engine.errors import TrainingError
from engine.spec import Spec
from envs.carryover import Carryover
from envs.effects import Effects
from envs.excitation import Excitation, Traces
from envs.laws import Evolution, Scale, Stream
from envs.networks import Inputs, Networks

FORMAT = 5
INPUTS = ("centre", "scale", "attributes", "column", "level")
TRACES = ("column", "mix", "trait")
CARRIED = ("column", "effect", "most")
EFFECTS = ("column", "query", "key")

Arrays = dict[str, NDArray[Any]]
Parts = tuple[list[Stream], list[Evolution], Inputs, Networks, Networks | None]


class Saved(Protocol):
    """What a learned model consists of."""

    spec: Spec
    streams: tuple[Stream, ...]
    evolutions: tuple[Evolution, ...]
    inputs: Inputs
    outcome: Networks
    context: Networks | None


def write_model(path: Path, model: Saved) -> None:
    """Raises TrainingError when the file cannot be written."""
    arrays: Arrays = {f"inputs.{name}": getattr(model.inputs, name) for name in INPUTS}
    for name, networks in (("outcome", model.outcome), ("context", model.context)):
        for i in range(0 if networks is None else len(networks.weights)):
            assert networks is not None
            arrays[f"{name}.weight.{i}"], arrays[f"{name}.bias.{i}"] = networks.weights[i], networks.biases[i]
            arrays[f"{name}.links"] = networks.links
            if networks.effects is not None:
                arrays |= {f"{name}.effects.{part}": getattr(networks.effects, part) for part in EFFECTS}
            if networks.excitation is not None:
                arrays |= _excitation_arrays(name, networks.excitation)
            if networks.carryover is not None:
                arrays |= {f"{name}.carried.{part}": getattr(networks.carryover, part) for part in CARRIED}
    header = {
        "format": FORMAT,
        "spec": _of_spec(model.spec),
        "streams": [_stream_json(s, f"stream.{i}", arrays) for i, s in enumerate(model.streams)],
        "evolutions": [_evolution_json(e, f"evolution.{i}", arrays) for i, e in enumerate(model.evolutions)],
        "layers": {
            "outcome": len(model.outcome.weights),
            "context": len(model.context.weights) if model.context else 0,
        },
    }
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    unfinished = path.with_name(path.name + ".part")
    try:
        with unfinished.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise TrainingError(f"outcome model {path}: cannot be written: {error}") from None


def read_model(path: Path, spec: Spec) -> Parts:
    """Raises TrainingError for a file that is missing, corrupt, or fitted to another spec."""
    try:
        # numpy leaves a file open that it cannot read; its bytes it cannot
        with np.load(BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays: Arrays = {name: file[name] for name in file.files}
        header = json.loads(arrays["header"].tobytes())
        if header["format"] != FORMAT:
            what = f"found format {header['format']}, expected {FORMAT}: another version of NextBest fitted it"
            raise TrainingError(f"outcome model {path}: {what}; train again")
        parts = _parts(header, arrays)
    except OSError as error:
        raise TrainingError(f"outcome model {path}: cannot be read: {error}") from None
    except (BadZipFile, KeyError, ValueError, TypeError, EOFError) as error:
        raise TrainingError(f"outcome model {path}: is corrupt: {error}") from None
    for name, expected in _of_spec(spec).items():
        if header["spec"].get(name) != expected:
            raise TrainingError(f"outcome model {path}: was fitted to a spec with other {name}")
    return parts


def _of_spec(spec: Spec) -> dict[str, list[str]]:
    return {
        "event kinds": [k.name for k in spec.kinds],
        "observation columns": list(spec.encoder.names),
        "action attributes": list(spec.attributes.names),
        "actions": [str(a) for a in spec.catalogue.actions],
    }


def _parts(header: dict[str, Any], arrays: Arrays) -> Parts:
    layers = header["layers"]
    return (
        [_stream(s, f"stream.{i}", arrays) for i, s in enumerate(header["streams"])],
        [_evolution(e, f"evolution.{i}", arrays) for i, e in enumerate(header["evolutions"])],
        Inputs(*(arrays[f"inputs.{name}"] for name in INPUTS)),
        _networks("outcome", layers["outcome"], arrays),
        _networks("context", layers["context"], arrays) if layers["context"] else None,
    )


def _networks(name: str, layers: int, arrays: Arrays) -> Networks:
    names: Sequence[int] = range(layers)
    return Networks(
        tuple(arrays[f"{name}.weight.{i}"] for i in names),
        tuple(arrays[f"{name}.bias.{i}"] for i in names),
        arrays[f"{name}.links"],
        Effects(*(arrays[f"{name}.effects.{part}"] for part in EFFECTS)) if f"{name}.effects.key" in arrays else None,
        _excitation(name, arrays) if f"{name}.rate" in arrays else None,
        _carryover(name, arrays) if f"{name}.carried.effect" in arrays else None,
    )


def _excitation_arrays(name: str, excitation: Excitation) -> Arrays:
    found: Arrays = {f"{name}.trace.{part}": getattr(excitation.traces, part) for part in TRACES}
    return found | {f"{name}.rate": excitation.rate}


def _excitation(name: str, arrays: Arrays) -> Excitation:
    return Excitation(Traces(*(arrays[f"{name}.trace.{part}"] for part in TRACES)), arrays[f"{name}.rate"])


def _carryover(name: str, arrays: Arrays) -> Carryover:
    return Carryover(*(arrays[f"{name}.carried.{part}"] for part in CARRIED))


def _stream_json(stream: Stream, name: str, arrays: Arrays) -> dict[str, Any]:
    arrays |= {f"{name}.edges": stream.edges, f"{name}.pairs": stream.pairs, f"{name}.shares": stream.shares}
    return {
        "kind": stream.kind,
        "answer": stream.answer,
        "most": stream.most,
        "match": stream.match,
        "values": _scale_json(stream.values, name, arrays),
    }


def _stream(data: dict[str, Any], name: str, arrays: Arrays) -> Stream:
    return Stream(
        kind=data["kind"],
        answer=data["answer"],
        most=data["most"],
        edges=arrays[f"{name}.edges"],
        values=_scale(data["values"], name, arrays),
        match=data["match"],
        pairs=arrays[f"{name}.pairs"],
        shares=arrays[f"{name}.shares"],
    )


def _evolution_json(evolution: Evolution, name: str, arrays: Arrays) -> dict[str, Any]:
    arrays[f"{name}.outcomes"] = evolution.outcomes
    if evolution.given is not None:
        arrays[f"{name}.given"] = evolution.given
    scale = _scale_json(evolution.scale, name, arrays)
    return {"column": evolution.column, "scale": scale, "own": evolution.own}


def _evolution(data: dict[str, Any], name: str, arrays: Arrays) -> Evolution:
    scale, given = _scale(data["scale"], name, arrays), arrays.get(f"{name}.given")
    return Evolution(data["column"], arrays[f"{name}.outcomes"], scale, data["own"], given)


def _scale_json(scale: Scale | None, name: str, arrays: Arrays) -> dict[str, Any] | None:
    if scale is None:
        return None
    arrays |= {f"{name}.level": scale.level, f"{name}.upto": scale.upto}
    return {"steps": scale.steps}


def _scale(data: dict[str, Any] | None, name: str, arrays: Arrays) -> Scale | None:
    return None if data is None else Scale(arrays[f"{name}.level"], arrays[f"{name}.upto"], data["steps"])
