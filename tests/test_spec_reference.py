"""docs/spec.md is complete: every key that a spec may have is there, in the section of its table; and its
examples make one spec.
"""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from engine import declarations
from engine.declarations import SpecTable
from engine.spec import Spec

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "spec.md").read_text()
SECTIONS: dict[str, type[BaseModel]] = {
    "Top level": declarations.SpecTable,
    "`[journey]`": declarations.JourneyTable,
    "`[context.<name>]`": declarations.ContextTable,
    "`[events.<kind>]`": declarations.EventTable,
    "`[channels.<name>]`": declarations.ChannelTable,
    "`[timings.<name>]`": declarations.TimingTable,
    "`[[contents]]`": declarations.ContentTable,
    "`[[guardrails.caps]]`": declarations.CapTable,
    "`[[guardrails.quiet_hours]]`": declarations.QuietHoursTable,
    "`[[guardrails.eligibility]]`": declarations.EligibilityTable,
    "`[reward]`": declarations.RewardTable,
}
INSIDE: dict[type[BaseModel], list[type[BaseModel]]] = {
    declarations.EligibilityTable: [declarations.PredicateTable],
    declarations.RewardTable: [declarations.WorthTable],
}
TABLES = {"journey", "context", "events", "channels", "timings", "contents", "guardrails", "reward"}


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, f"docs/spec.md has no section {title}"
    return found[1]


def keys(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def documented(text: str) -> set[str]:
    """The names in the first column of the section's tables."""
    cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    return {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_is_named_and_no_other(title: str) -> None:
    model = SECTIONS[title]
    expected = set.union(*(keys(m) for m in (model, *INSIDE.get(model, []))))
    if model is SpecTable:
        expected -= TABLES
    assert documented(section(title)) == expected


def test_every_table_has_a_section() -> None:
    models = {m for m in vars(declarations).values() if isinstance(m, type) and issubclass(m, BaseModel)}
    models = {m for m in models if m.__module__ == declarations.__name__ and not m.__name__.startswith("_")}
    covered = {*SECTIONS.values(), *(m for inner in INSIDE.values() for m in inner), declarations.GuardrailsTable}
    assert models == covered


def test_the_examples_make_one_spec() -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= len(SECTIONS) - 1
    assert all(tomllib.loads(block) for block in blocks)
    rest = """
        [context.stock]
        type = "number"
        [events.order]
        value = "EUR"
        [events.add_to_cart]
        [channels.push]
        [channels.sms]
        """
    spec = Spec.parse('name = "reference"\n' + "\n".join(blocks) + rest)
    assert len(spec.catalogue) == 3
    assert len(spec.fold.caps) == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("discount_per_day", 0.99),
        ("horizon_days", 28),
        ("half_lives_days", [1.0, 7.0]),
        ("moments", []),
        ("hold", True),
    ],
)
def test_defaults_of_the_journey_are_the_documented_ones(key: str, value: object) -> None:
    assert declarations.JourneyTable.model_fields[key].default == value
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    assert re.search(rf"^\| `{key}` \|[^|]*\| `{re.escape(shown)}` \|", section("`[journey]`"), re.MULTILINE)
