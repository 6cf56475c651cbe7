"""A large catalogue in a file of its own: one content a row, every further column an attribute."""

import csv
import io
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.catalogue import Attribute
from engine.declarations import ContentTable
from engine.errors import SpecError
from engine.wording import worded


def contents_text(path: Path) -> str:
    """A CSV file's text; a Parquet file (needs pyarrow) as CSV. Raises OSError, ImportError."""
    if path.suffix != ".parquet":
        return path.read_text("utf-8-sig")  # spreadsheets like to begin with a byte order mark
    import pyarrow.csv
    import pyarrow.parquet

    sink = io.BytesIO()
    pyarrow.csv.write_csv(pyarrow.parquet.read_table(path), sink)
    return sink.getvalue().decode()


def read_contents(path: Path, text: str) -> list[ContentTable]:
    """The contents in a CSV text: id, channels and timings (separated by ;), cost, valid_from, valid_until, attributes.

    An empty cell means: not given. Raises SpecError that names file, row, key, what was found and what is expected.
    """
    rows = csv.DictReader(io.StringIO(text))
    return [_content(path, number, row) for number, row in enumerate(rows, start=2)]


def _content(path: Path, number: int, row: dict[str, Any]) -> ContentTable:
    declared: dict[str, Any] = {"attributes": {}}
    for column, cell in row.items():
        if column is None or cell is None:
            raise SpecError(f"{path}: row {number}: has more or fewer cells than the header")
        if cell == "":
            continue
        if column in ("channels", "timings"):
            declared[column] = [part.strip() for part in cell.split(";")]
        elif column in ("valid_from", "valid_until"):
            declared[column] = _moment(cell)
        elif column == "id":
            declared[column] = cell
        elif column == "cost":
            declared[column] = _attribute(cell)
        else:
            declared["attributes"][column] = _attribute(cell)
    try:
        return ContentTable.model_validate(declared)
    except ValidationError as error:
        raise SpecError(worded(error, f"{path}: row {number}")) from None


def _attribute(text: str) -> Attribute:
    """true/false, a number, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text


def _moment(text: str) -> datetime | str:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text
