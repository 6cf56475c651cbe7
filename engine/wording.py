"""What pydantic found wrong with a spec, in the words of the spec: table, key, found, expected."""

from collections.abc import Sequence
from datetime import date
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from engine.declarations import known_keys
from engine.errors import nearest

_EXPECTED = {
    "bool_type": "true or false",
    "datetime_type": "a time with a zone such as 2026-01-01T00:00:00Z",
    "dict_type": "a table",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "model_type": "a table",
    "string_pattern_mismatch": "letters, digits and _ . - only",
    "string_too_long": "at most 100 letters",
    "string_type": "a text",
    "too_long": "fewer items",
    "too_short": "at least one item",
}
_UNION_PARTS = {"float", "bool", "str", "list[union[constrained-float,bool,str]]", "constrained-float"}
"""What pydantic adds to a path for each type that a value might have had."""


def worded(error: ValidationError, where: str) -> str:
    """One line per place that is wrong, each beginning with `where`."""
    places: dict[tuple[Any, ...], list[Any]] = {}
    for one in error.errors():
        path = tuple(part for part in one["loc"] if part not in _UNION_PARTS)
        places.setdefault(path, []).append(one)
    # A required key that is misspelt is one mistake, not also a missing key.
    meant = {_meant(path) for path, found in places.items() if found[0]["type"] == "extra_forbidden"}
    places = {path: f for path, f in places.items() if f[0]["type"] != "missing" or path not in meant}
    return "\n".join(_line(where, path, found) for path, found in places.items())


def _meant(path: tuple[Any, ...]) -> tuple[Any, ...]:
    """The path with its last key replaced by the known key that it resembles."""
    return (*path[:-1], *get_close_matches(str(path[-1]), known_keys(path[:-1]), n=1))


def _line(where: str, path: tuple[Any, ...], found: Sequence[Any]) -> str:
    """The line for one place; `found` are the errors for each type that its value might have had."""
    first = found[0]
    if first["type"] == "value_error" and isinstance(first["input"], dict):
        return f"{_place(where, path, '')}: expected {_expected(first)}"
    items = [part + 1 for part in path if isinstance(part, int)][-1:] if path and isinstance(path[-1], int) else []
    path = path[: len(path) - len(items)]
    key = str(path[-1]) + "".join(f", item {number}" for number in items)
    place = _place(where, path[:-1], key)
    if first["type"] == "extra_forbidden":
        return f"{place}: unknown key{nearest(key, known_keys(path[:-1]))}"
    expected = " or ".join(dict.fromkeys(_expected(one) for one in found))
    if first["type"] == "missing":
        return f"{place}: is missing"
    value = first["input"]
    return f"{place}: found {str(value) if isinstance(value, date) else repr(value)}, expected {expected}"


def _place(where: str, table: Sequence[Any], key: str) -> str:
    """`where: [table] key`; items of lists count from 1."""
    name = ".".join(str(part + 1) if isinstance(part, int) else str(part) for part in table)
    words = ([f"[{name}]"] if name else []) + ([key] if key else [])
    return f"{where}: {' '.join(words)}" if words else where


def _expected(error: Any) -> str:
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    return _EXPECTED.get(error["type"], text)
