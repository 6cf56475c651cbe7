"""One table of a log while it is checked: each column in the type that the code works with, or an error that
names the row.

Rows count from 1 and leave out a header line. NaN, null and the empty text all mean: missing.
"""

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import LogError, nearest
from engine.records import Bools
from training.sources import RawTable
from training.tables import Finding

INSTANT = pa.timestamp("us", "UTC")
TEXTS = pa.list_(pa.string())
_ZONED = r"\d{2}:\d{2}.*([zZ]|[+-]\d{2}(:?\d{2})?)$"
_TRUE, _FALSE = ("true", "t", "yes", "1"), ("false", "f", "no", "0")


class Sheet:
    """A raw table, asked column by column. Every method raises LogError: file, row, column, found, expected."""

    def __init__(self, raw: RawTable) -> None:
        self.where, self.names, self.rows = raw.where, raw.names, raw.table.num_rows
        self._table = raw.table

    def has(self, column: str) -> bool:
        return column in self._table.column_names

    def error(self, column: str, wrong: Bools, expected: str) -> LogError:
        """The message about the first row where `wrong` [rows] holds, and how many there are."""
        row = int(np.argmax(wrong))
        more = f" ({int(wrong.sum()):,} such rows)" if wrong.sum() > 1 else ""
        found = repr(self._table[column][row].as_py())
        return LogError(f"{self.where}: row {row + 1}: column {column}: found {found}, expected {expected}{more}")

    def need(self, column: str, expected: str) -> None:
        if not self.has(column):
            hint = nearest(column, self.names) if self.names else ""
            raise LogError(f"{self.where}: column {column}: is missing, expected {expected}{hint}")

    def text(self, column: str, required: bool = False, known: Sequence[str] | None = None) -> pa.ChunkedArray:
        """Names and ids. Whole numbers become their digits. Missing where the column is; `known`: the names
        there may be.
        """
        if required:
            self.need(column, "a text in every row")
        if not self.has(column):
            return pa.chunked_array([pa.nulls(self.rows, pa.string())])
        texts = self._as_text(column)
        texts = pc.if_else(pc.equal(texts, ""), None, texts)
        if required:
            self._all_there(column, texts, "a text in every row")
        if known is not None:
            self._all_known(column, texts, known)
        return texts

    def number(self, column: str, required: bool = False) -> pa.ChunkedArray:
        """Finite numbers as float64; NaN becomes null. Missing where the column is."""
        if not self.has(column):
            return pa.chunked_array([pa.nulls(self.rows, pa.float64())])
        raw = self._table[column]
        if _is_text(raw.type):
            texts = self.text(column).to_pandas()
            parsed = pd.to_numeric(texts, errors="coerce")
            wrong = (texts.notna() & parsed.isna()).to_numpy()
            if wrong.any():
                raise self.error(column, wrong, "a number")
            raw = pa.chunked_array([pa.array(parsed.to_numpy(np.float64), from_pandas=True)])
        elif not (pa.types.is_integer(raw.type) or pa.types.is_floating(raw.type) or pa.types.is_decimal(raw.type)):
            self._wrong_type(column, "numbers")
        values = pc.cast(raw, pa.float64(), safe=False)
        wrong = _bools(pc.is_inf(values))
        if wrong.any():
            raise self.error(column, wrong, "a finite number")
        values = pc.if_else(pc.is_nan(values), None, values)
        if required:
            self._all_there(column, values, "a finite number in every row")
        return values

    def flag(self, column: str, required: bool = False) -> pa.ChunkedArray:
        """True and false; also 1 and 0, and the texts true, false, yes, no, t, f, 1, 0. Missing where the
        column is.
        """
        if not self.has(column):
            return pa.chunked_array([pa.nulls(self.rows, pa.bool_())])
        raw = self._table[column]
        if pa.types.is_boolean(raw.type):
            flags = raw
        else:
            texts = pc.replace_substring_regex(pc.utf8_lower(self.text(column)), r"^([01])\.0$", r"\1")
            yes, no = pc.is_in(texts, pa.array(_TRUE)), pc.is_in(texts, pa.array(_FALSE))
            wrong = _bools(pc.and_(pc.is_valid(texts), pc.invert(pc.or_(yes, no))))
            if wrong.any():
                raise self.error(column, wrong, "true or false")
            flags = pc.if_else(pc.is_valid(texts), yes, None)
        if required:
            self._all_there(column, flags, "true or false in every row")
        return flags

    def instant(self, column: str, required: bool = False) -> pa.ChunkedArray:
        """Instants as timestamp[us, UTC], from timestamps with a zone or ISO-8601 texts with a zone."""
        if required:
            self.need(column, "a timestamp with a time zone in every row")
        if not self.has(column):
            return pa.chunked_array([pa.nulls(self.rows, INSTANT)])
        raw = self._table[column]
        if pa.types.is_timestamp(raw.type) and raw.type.tz is not None:
            instants = pc.cast(raw, INSTANT, safe=False)
        elif _is_text(raw.type):
            instants = self._parsed(column)
        elif pa.types.is_timestamp(raw.type):
            mend = "in pandas: df[c].dt.tz_localize('Europe/Berlin') with the zone in which it was written down"
            found = f"found timestamps without a time zone (first: {self._first(column)})"
            raise LogError(f"{self.where}: column {column}: {found}, expected timestamps with one; {mend}")
        else:
            self._wrong_type(column, "timestamps with a time zone, or texts such as 2026-03-01T09:00:00Z")
        if required:
            self._all_there(column, instants, "a timestamp with a time zone in every row")
        return instants

    def texts(self, column: str) -> pa.ChunkedArray:
        """Lists of texts; also one text with ; between the items, or a JSON list. Missing where the column is."""
        if not self.has(column):
            return pa.chunked_array([pa.nulls(self.rows, TEXTS)])
        raw = self._table[column]
        if pa.types.is_list(raw.type) or pa.types.is_large_list(raw.type):
            return pc.cast(raw, TEXTS)
        encoded = self.text(column).combine_chunks().dictionary_encode()
        lists = pa.array([_items(text) for text in encoded.dictionary.to_pylist()], TEXTS)
        return pa.chunked_array([lists.take(encoded.indices)])

    def without_twins(self, table: pa.Table, key: str, notes: list[Finding]) -> pa.Table:
        """`table` without the rows that wholly repeat another one, which is noted. Raises LogError for two different
        rows of one key; a missing key repeats nothing.
        """
        ids = table[key].to_pandas()
        again = np.asarray(ids.duplicated() & ids.notna(), bool)
        if not again.any():
            return table
        some = np.flatnonzero(ids.isin(ids[again].unique()).to_numpy())
        distinct = table.take(pa.array(some)).to_pandas().map(str).drop_duplicates()
        other = distinct.index[distinct[key].duplicated()].to_numpy()
        if len(other):
            wrong = np.isin(np.arange(len(table)), some[other])
            raise self.error(key, wrong, f"a {key} of its own, or a row that repeats the other one wholly")
        notes.append(
            Finding("warning", "duplicates", f"{self.where}: {again.sum():,} rows repeat another one; dropped")
        )
        return table.filter(pa.array(~again))

    def note_misspelt(self, known: Sequence[str], notes: list[Finding]) -> None:
        """A column that is not read, but nearly has the name of one that is known and missing, was probably meant."""
        absent = [name for name in known if not self.has(name)]
        for name in self.names:
            close = get_close_matches(name, absent, n=1, cutoff=0.8)
            if not self.has(name) and close:
                message = f"{self.where}: column {name} is not read; did you mean {close[0]}?"
                notes.append(Finding("warning", "column", message))

    def _as_text(self, column: str) -> pa.ChunkedArray:
        raw = self._table[column]
        if pa.types.is_dictionary(raw.type):
            raw = raw.cast(raw.type.value_type)
        if pa.types.is_floating(raw.type):  # whole numbers that a missing value turned into floats: 7.0 is the id 7
            whole = _bools(pc.equal(raw, pc.floor(raw)))
            there = _bools(pc.invert(pc.is_null(raw, nan_is_null=True)))
            if not (whole | ~there).all():
                raise self.error(column, there & ~whole, "a text or a whole number")
            raw = pc.if_else(pc.is_nan(raw), None, raw).cast(pa.int64())
        if not any(check(raw.type) for check in (_is_text, pa.types.is_integer, pa.types.is_boolean, pa.types.is_null)):
            self._wrong_type(column, "texts")
        return raw.cast(pa.string())

    def _parsed(self, column: str) -> pa.ChunkedArray:
        texts = self.text(column)
        zoned = _bools(pc.fill_null(pc.match_substring_regex(texts, _ZONED), True))
        if not zoned.all():
            raise self.error(column, ~zoned, "a time with a zone such as 2026-03-01T09:00:00Z or …+01:00")
        parsed = pd.to_datetime(texts.to_pandas(), utc=True, format="ISO8601", errors="coerce")
        wrong = parsed.isna().to_numpy() & _bools(texts.is_valid())
        if wrong.any():
            raise self.error(column, wrong, "an ISO-8601 time such as 2026-03-01T09:00:00Z")
        plain = pa.array(parsed.dt.tz_convert(None).to_numpy()).cast(pa.timestamp("us"), safe=False)
        return pa.chunked_array([plain.cast(INSTANT)])

    def _all_there(self, column: str, values: pa.ChunkedArray, expected: str) -> None:
        if values.null_count:
            raise self.error(column, _bools(values.is_null()), expected)

    def _all_known(self, column: str, texts: pa.ChunkedArray, known: Sequence[str]) -> None:
        unknown = _bools(pc.and_(texts.is_valid(), pc.invert(pc.is_in(texts, pa.array(list(known), pa.string())))))
        if unknown.any():
            found = texts[int(np.argmax(unknown))].as_py()
            raise self.error(column, unknown, f"a {column} that the spec declares{nearest(found, known)}")

    def _wrong_type(self, column: str, expected: str) -> None:
        found = f"found {self._table[column].type} (first: {self._first(column)})"
        raise LogError(f"{self.where}: column {column}: {found}, expected {expected}")

    def _first(self, column: str) -> str:
        values = self._table[column].drop_null()
        return repr(values[0].as_py()) if len(values) else "none"


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _bools(values: Any) -> Bools:
    """An Arrow boolean array as numpy; null = False."""
    return np.asarray(pc.fill_null(values, False).to_numpy(zero_copy_only=False), bool)


def _items(text: str) -> list[str]:
    if text.startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            return [text]
        return [str(item) for item in found]
    return [item.strip() for item in text.split(";") if item.strip()]
