"""Lists in parts: newest first, with a cursor that says where the next part begins."""

import base64
import binascii
from typing import Any

from sqlalchemy import ColumnElement, Select, tuple_

from cloud.api.problems import BadQuery
from wire.clock import from_iso


def since(text: str | None) -> int | None:
    """``updated_since`` as UTC nanoseconds; ``BadQuery`` when it is no zoned ISO 8601 time."""
    if text is None:
        return None
    try:
        return held(from_iso(text.replace(" ", "+")))  # a plus that was not escaped arrives as a space
    except ValueError as error:
        raise BadQuery(f"time: {error}") from error


def held(number: int) -> int:
    """Give back a number that the store can hold; ``ValueError`` for any other."""
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"{number} does not fit 64 bits")
    return number


def cursor_of(at: int, identity: str) -> str:
    return base64.urlsafe_b64encode(f"{at}:{identity}".encode()).decode().rstrip("=")


def after(
    query: Select[Any], at: ColumnElement[int], identity: ColumnElement[str], cursor: str | None, limit: int
) -> Select[Any]:
    """Cut the part of a query that follows ``cursor``, newest first, with one row too many: more follows."""
    if cursor is not None:
        try:
            moment, _, last = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(":")
            query = query.where(tuple_(at, identity) < tuple_(held(int(moment)), last))
        except (ValueError, binascii.Error) as error:
            raise BadQuery("cursor: take it from `next_cursor` of the part before") from error
    return query.order_by(at.desc(), identity.desc()).limit(limit + 1)
