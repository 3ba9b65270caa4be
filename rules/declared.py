"""Declared data (districts, rules, profiles, configurations): TOML read strictly, refused with place and cure."""

import contextlib
import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import PurePath
from typing import Self, TypeVar

import msgspec

from rules.lines import line_of

T = TypeVar("T")

_UNKNOWN = re.compile(r"unknown field `(?P<key>[^`]*)`(?: - at `(?P<path>[^`]*)`)?")
_AT = re.compile(r" - at `(?P<path>[^`]*)`$")
_SYNTAX = re.compile(r" \(at (?:line (?P<line>\d+), column \d+|end of document)\)$")
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|min|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class Refused(ValueError):  # noqa: N818 - named by what happened to the input; the caller shows it and stops
    """Input that was not taken: ``place`` says where it stands, ``why`` what is wrong and what would mend it.

    A place reads ``FILE:LINE: entry: key``, as far as each is known.
    """

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"{place}: {why}")
        self.place = place
        self.why = why


class Source(str):
    """The name of a file for messages, with its ``text`` at hand: what is refused in it is shown with its line."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, name: str, text: str) -> Self:
        source = super().__new__(cls, name)
        source.text = text
        return source


@contextlib.contextmanager
def located(place: str) -> Iterator[None]:
    """Give what is refused in a ``Source`` its line: ``x.toml: event theft: …`` becomes ``x.toml:41: event theft: …``.

    Any other place is left as it is: nobody knows its text.
    """
    try:
        yield
    except Refused as refused:
        within = refused.place.removeprefix(place)
        if not isinstance(place, Source) or f"{place}{within}" != refused.place or within[:2] not in ("", ": "):
            raise
        line = line_of(place.text, within.removeprefix(": "), refused.why)
        raise Refused(f"{place}:{line}{within}", refused.why) from refused.__cause__


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
    """Decode TOML into a record type; ``Refused`` names file, line, key and the nearest known key."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(str(error), text, place) from error
    with located(Source(place, text)):
        return convert(raw, into, place)


def convert(raw: object, into: type[T], place: str) -> T:
    """Turn parsed data into a record type, as ``decode`` does; there is no text, so no line."""
    try:
        return msgspec.convert(raw, into, dec_hook=_from_text)
    except msgspec.ValidationError as error:
        raise _refused(str(error), into, place) from error


def _not_toml(message: str, text: str, place: str) -> Refused:
    where = _SYNTAX.search(message)
    line = where["line"] if where and where["line"] else len(text.splitlines()) or 1
    return Refused(f"{place}:{line}", f"not TOML: {_SYNTAX.sub('', message)}")


def _refused(message: str, into: type, place: str) -> Refused:
    unknown = _UNKNOWN.search(message)
    if unknown is not None:
        path = f"{unknown['path'] or '$'}.{unknown['key']}".removeprefix("$.")
        near = difflib.get_close_matches(unknown["key"], sorted(_known_keys(into, set())), n=1)
        return Refused(place, f"unknown key `{path}`{f'; did you mean `{near[0]}`?' if near else ''}")
    at = _AT.search(message)
    key = at["path"].removeprefix("$").removeprefix(".") if at else ""
    return Refused(f"{place}{key and f': {key}'}", _AT.sub("", message))


def _from_text(kind: type, value: object) -> object:
    """Read what TOML writes as text: a path."""
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    raise NotImplementedError(f"no {kind.__name__} is read from TOML")


def _known_keys(of: object, seen: set[object]) -> set[str]:
    """Every key that may stand anywhere below a record type."""
    if isinstance(of, type) and issubclass(of, msgspec.Struct):
        if of in seen:
            return set()
        seen.add(of)
        fields = msgspec.structs.fields(of)
        return {field.encode_name for field in fields}.union(*(_known_keys(field.type, seen) for field in fields))
    return set[str]().union(*(_known_keys(part, seen) for part in getattr(of, "__args__", ())))
