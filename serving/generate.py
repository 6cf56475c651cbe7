"""Generates serving/pb from protos/: `python -m serving.generate`. Needs grpcio-tools; a test compares.

protoc writes imports for a top-level package `nextbest`, which is the name of the front door; here the package
is `serving.pb.nextbest`. The names on the wire stay as the protos say.
"""

import re
import shutil
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).parents[1] / "protos"
TARGET = Path(__file__).parent / "pb"
_IMPORT = re.compile(r"^from nextbest\.", re.MULTILINE)


def generate(protos: Path, target: Path) -> None:
    """Writes modules and type stubs for all of `protos` into `target`, which is emptied of earlier ones.

    Raises RuntimeError when protoc refuses; it says why on stderr.
    """
    shutil.rmtree(target / "nextbest", ignore_errors=True)
    target.mkdir(parents=True, exist_ok=True)
    with resources.as_file(resources.files("grpc_tools") / "_proto") as google:
        outputs = [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
        files = [str(p.relative_to(protos)) for p in sorted(protos.rglob("*.proto"))]
        if protoc.main(["protoc", f"-I{protos}", f"-I{google}", *outputs, *files]):
            raise RuntimeError(f"protoc could not compile {protos}")
    for module in sorted(target.rglob("*_pb2*.py*")):
        module.write_text(_IMPORT.sub("from serving.pb.nextbest.", module.read_text()))
        (module.parent / "__init__.py").touch()
    for stub in target.rglob("*_pb2_grpc.py"):
        if "Stub" not in stub.read_text():
            stub.unlink()  # protos without a service need none
    (target / "__init__.py").touch()
    (target / "nextbest" / "__init__.py").touch()


if __name__ == "__main__":
    generate(PROTOS, TARGET)
