"""What the Markdown pages promise: links resolve, commands exist, examples run.

Every page of the repository is held to it. Code blocks are read by their first word:

    ```python        runs; the blocks of one page share a namespace and an empty folder with a copy of examples/
    ```toml, ```json parses
    ```sh or none    lines that start with `nextbest` or `make` name verbs, options and targets that exist

Anything else (```console, ```text, ```js) is shown only.
"""

import json
import re
import shlex
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from nextbest import main

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = {".venv", "node_modules", "runs", "mlruns", "dist", ".pytest_cache"}
FENCE = re.compile(r"^```(?P<kind>\w*)[^\n]*\n(?P<text>.*?)^```\s*?$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the word after the fence, its text and the page's line that it starts after."""

    kind: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(found["kind"], found["text"], text[: found.start("text")].count("\n")) for found in FENCE.finditer(text)
    ]


PAGES = [
    page
    for page in sorted(ROOT.rglob("*.md"))
    if not SKIPPED & set(page.relative_to(ROOT).parts[:-1]) or page == ROOT / "mlruns" / "README.md"
]
each_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
running = [page for page in PAGES if any(block.kind == "python" for block in blocks(page))]


@each_page
def test_links_resolve(page: Path) -> None:
    prose = FENCE.sub("", page.read_text())
    for target in (found["target"] for found in LINK.finditer(prose)):
        if "://" in target or target.startswith("mailto:"):
            continue
        place, _, anchor = target.partition("#")
        there = (page.parent / place).resolve() if place else page
        assert there.exists(), f"link to {target}"
        assert there.is_relative_to(ROOT), f"{target} is outside the repository"
        if anchor:
            assert anchor in _anchors(there), f"no heading for {target}"


def _anchors(page: Path) -> set[str]:
    """Anchors as GitHub makes them from headings."""
    headings = HEADING.findall(FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@each_page
def test_data_blocks_parse(page: Path) -> None:
    for block in blocks(page):
        if block.kind == "toml":
            tomllib.loads(block.text)
        if block.kind == "json":
            json.loads(block.text)


@each_page
def test_commands_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in _commands(page):
        if words[0] == "make":
            asked = {word for word in words[1:] if "=" not in word}
            assert asked <= targets, f"make has no target {asked - targets}"
        else:
            _assert_verb(words[1:])


def _commands(page: Path) -> list[list[str]]:
    """The words of each command for make or nextbest in the page's shell blocks."""
    shell = "\n".join(block.text for block in blocks(page) if block.kind in {"", "sh", "bash"})
    lines = [line.strip().removeprefix("$ ") for line in shell.replace("\\\n", " ").splitlines()]
    mine = [line for line in lines if re.match(r"(\.venv/bin/)?(nextbest|make)(\s|$)", line)]
    return [shlex.split(re.split(r"[|;&>]", line)[0].removeprefix(".venv/bin/"), comments=True) for line in mine]


def _assert_verb(words: list[str]) -> None:
    if not words or words[0].startswith("-") or words[0] == "<verb>":
        return
    verb = main.commands.get(words[0])
    assert verb, f"nextbest has no verb {words[0]}"
    options = {text for p in verb.params if isinstance(p, click.Option) for text in (*p.opts, *p.secondary_opts)}
    asked = {word.split("=")[0] for word in words if word.startswith("-")}
    assert asked <= options | {"--help", "-h"}, f"nextbest {words[0]} has no {asked - options}"


def test_the_front_page_shows_every_verb_and_the_two_commands() -> None:
    page = (ROOT / "README.md").read_text()
    first_screen = "\n".join(page.splitlines()[:40])
    assert "make demo" in first_screen
    assert "make test" in first_screen
    assert not [verb for verb in main.commands if f"nextbest {verb}" not in page]


@pytest.mark.parametrize("page", running, ids=[str(page.relative_to(ROOT)) for page in running])
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(
        ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("node_modules", "__pycache__")
    )
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        if block.kind == "python":
            source = "\n" * block.line + block.text  # so that a traceback shows the page's own line
            exec(compile(source, str(page), "exec"), namespace)
