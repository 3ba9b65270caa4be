"""Declared data (districts, rules, profiles, configurations): TOML read strictly, refused with place and cure."""

import difflib
import re
import tomllib
from collections.abc import Iterable
from pathlib import PurePath
from typing import TypeVar

import msgspec

T = TypeVar("T")

_UNKNOWN = re.compile(r"unknown field `(?P<key>[^`]*)`(?: - at `(?P<path>[^`]*)`)?")
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|min|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class Refused(ValueError):  # noqa: N818 - named by what happened to the input; the caller shows it and stops
    """Input that was not taken: ``place`` says where it stands, ``why`` what is wrong and what would mend it."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"{place}: {why}")
        self.place = place
        self.why = why


def seconds(text: str) -> float:
    """Read a duration such as ``"30s"``, ``"5min"``, ``"2h"`` as seconds; ``ValueError`` names the cure."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a number with ms, s, min, h or d, as in '30s'")
    return float(match["number"]) * _SECONDS[match["unit"]]


def nearest(name: str, known: Iterable[str]) -> str:
    """Say what a wrong name could have meant, as the end of a message: the nearest known one, or all there are."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; there is {', '.join(names) or 'none'}"


def decode(text: str, into: type[T], place: str) -> T:
    """Decode TOML into a record type; ``Refused`` names ``place``, the key's path and the nearest known key."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Refused(place, f"not TOML: {error}") from error
    return convert(raw, into, place)


def convert(raw: object, into: type[T], place: str) -> T:
    """Turn parsed data into a record type, as ``decode`` does."""
    try:
        return msgspec.convert(raw, into, dec_hook=_from_text)
    except msgspec.ValidationError as error:
        raise Refused(place, _with_suggestion(str(error), into)) from error


def _from_text(kind: type, value: object) -> object:
    """Read what TOML writes as text: a path."""
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    raise NotImplementedError(f"no {kind.__name__} is read from TOML")


def _with_suggestion(message: str, into: type) -> str:
    unknown = _UNKNOWN.search(message)
    if unknown is None:
        return message
    path = f"{unknown['path'] or '$'}.{unknown['key']}".removeprefix("$.")
    near = difflib.get_close_matches(unknown["key"], sorted(_known_keys(into, set())), n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    return f"unknown key `{path}`{hint}"


def _known_keys(of: object, seen: set[object]) -> set[str]:
    """Every key that may stand anywhere below a record type."""
    if isinstance(of, type) and issubclass(of, msgspec.Struct):
        if of in seen:
            return set()
        seen.add(of)
        fields = msgspec.structs.fields(of)
        return {field.encode_name for field in fields}.union(*(_known_keys(field.type, seen) for field in fields))
    return set[str]().union(*(_known_keys(part, seen) for part in getattr(of, "__args__", ())))
