"""Frozen records to rows and back: a table's columns are its record's fields."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Row

T = TypeVar("T", bound=msgspec.Struct)


def from_row(row: Row[Any], into: type[T]) -> T:
    """Read the record in a row; nested records stand in JSON columns."""
    # SQLAlchemy marks a column name that is a word of SQL as its own kind of string.
    return msgspec.convert({str(key): value for key, value in row._mapping.items()}, into)  # noqa: SLF001 - its public name


def to_values(record: msgspec.Struct) -> Mapping[str, Any]:
    """Lay out a record's fields as column values."""
    values: Mapping[str, Any] = msgspec.to_builtins(record)
    return values
