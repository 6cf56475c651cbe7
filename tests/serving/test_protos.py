"""The wire contract: generated code is current, every field says what it is."""

import re
from pathlib import Path

import pytest

from serving.generate import PROTOS, TARGET, generate

FIELD = re.compile(r"^\s+(?:repeated |optional )?(?:map<[^>]+>|[\w.]+) (?P<name>\w+) = \d+;$")
DECLARED = re.compile(r"^\s*(?:message|service|rpc|oneof|enum) (?P<name>\w+)")
FILES = sorted(PROTOS.rglob("*.proto"))


def test_generated_code_is_current(tmp_path: Path) -> None:
    generate(PROTOS, tmp_path)
    made = {p.relative_to(tmp_path): p.read_text() for p in tmp_path.rglob("*.py*")}
    kept = {p.relative_to(TARGET): p.read_text() for p in TARGET.rglob("*.py*") if "__pycache__" not in p.parts}
    assert made == kept, "run `make protos`"


def test_a_broken_proto_is_not_generated(tmp_path: Path) -> None:
    (tmp_path / "broken.proto").write_text('syntax = "proto3"; message {')
    with pytest.raises(RuntimeError, match="could not compile"):
        generate(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_field_says_what_it_is(path: Path) -> None:
    lines = path.read_text().splitlines()
    named = [(i, m["name"]) for i, line in enumerate(lines) if (m := FIELD.match(line) or DECLARED.match(line))]
    assert named
    for i, name in named:
        start = i
        while lines[start - 1].strip().startswith("//"):
            start -= 1
        comment = " ".join(line.strip(" /") for line in lines[start:i])
        assert comment.startswith(f"{name} "), (
            f"{path.name}:{i + 1}: the comment of {name} starts with {comment[:30]!r}"
        )
        assert comment.endswith("."), f"{path.name}:{i + 1}: the comment of {name} is no sentence"


def test_the_field_finder_finds_all_fields() -> None:
    text = "\n".join(path.read_text() for path in FILES)
    numbered = re.findall(r"= \d+;", text)
    assert len([line for line in text.splitlines() if FIELD.match(line)]) == len(numbered)
