"""Which line of a TOML text a message is about; the parser does not tell. The text is known to be TOML."""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

KeyPath = tuple[str | int, ...]

_WORD = r"""(?:[\w-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
_KEY = rf"{_WORD}(?:[ \t]*\.[ \t]*{_WORD})*"
_STATEMENT = re.compile(
    rf"""
    (?: \s | \#[^\n]* )*  # blank lines and comments before it
    (?: (?P<array>\[\[) [ \t]* (?P<row>{_KEY}) [ \t]* \]\]
      | \[ [ \t]* (?P<table>{_KEY}) [ \t]* \]
      | (?P<key>{_KEY}) [ \t]* = )
    """,
    re.VERBOSE,
)
_VALUE = re.compile(
    r'''
    """ (?: \\. | [^\\] )*? """ "{0,2}
    | \'\'\' .*? \'\'\' \'{0,2}
    | "(?: \\. | [^"\\\n] )*"
    | '[^'\n]*'
    | \#[^\n]*
    | (?P<open>[\[{])
    | (?P<close>[\]}])
    | (?P<line>\n)
    | [^"'\#\[\]{}\n]+
    ''',
    re.VERBOSE | re.DOTALL,
)
_ENTRY = re.compile(r"(?:(?P<of>\w+) )?(?P<name>\S+)")
_NAMES = ("id", "site", "metric", "device", "hazard", "name")  # keys that messages call a row by
_STEP = re.compile(r"(?P<name>[^.\[\]]+)|\[(?P<index>\d+)\]")


def line_of(text: str, entry: str, why: str = "") -> int:
    """Find the line, from 1, that a message is about: its entry's, or that of the key or value in it that it names.

    An entry is a key's path (``event[3].window``), or a row of an array of tables by its name and what is in it
    (``event theft: window``). What has no line of its own has that of what it stands in.
    """
    path, known = _meant(tomllib.loads(text), entry, why), lines(text)
    return next(known[path[:step]] for step in range(len(path), -1, -1) if path[:step] in known)


def lines(text: str) -> dict[KeyPath, int]:
    """List the line of every table and key outside inline tables, by its path; the path of the whole text is ()."""
    found: dict[KeyPath, int] = {(): 1}
    rows: dict[KeyPath, int] = {}  # of each array of tables, so far
    table: KeyPath = ()
    for line, statement in _statements(text):
        if statement["key"] is None:
            table = _inside((), _words(statement["row"] or statement["table"]), rows)
            if statement["array"]:
                rows[table] = rows.get(table, 0) + 1
                found.setdefault(table, line)
                table = (*table, rows[table] - 1)
            path = table
        else:
            path = (*table, *_words(statement["key"]))
        for step in range(1, len(path) + 1):
            found.setdefault(path[:step], line)
    return found


def _inside(table: KeyPath, words: list[str], rows: dict[KeyPath, int]) -> KeyPath:
    """Extend a path by a header's words: inside an array of tables, they mean its newest row."""
    for word in words:
        if table in rows:
            table = (*table, rows[table] - 1)
        table = (*table, word)
    return table


def _statements(text: str) -> Iterator[tuple[int, "re.Match[str]"]]:
    """Walk the headers and the keys with their lines; a value is skipped whole, however many lines it takes."""
    at, line, counted = 0, 1, 0
    while statement := _STATEMENT.match(text, at):
        begins = next(start for name in ("row", "table", "key") if (start := statement.start(name)) >= 0)
        line, counted = line + text.count("\n", counted, begins), begins
        yield line, statement
        at = statement.end()
        depth = 0
        while (part := _VALUE.match(text, at)) and not (part["line"] and depth == 0):
            depth += bool(part["open"]) - bool(part["close"])
            at = part.end()


def _words(key: str) -> list[str]:
    return [word.strip("\"'") for word in re.findall(_WORD, key)]


def _path_of(written: str) -> KeyPath:
    """Take a key's path apart as messages write it: ``event[3].window[0]`` is (event, 3, window, 0)."""
    steps = _STEP.finditer(written.removeprefix("$"))
    return tuple(step["name"] if step["index"] is None else int(step["index"]) for step in steps)


def _meant(raw: dict[str, Any], entry: str, why: str) -> KeyPath:
    """Find the path of what a message is about."""
    path: KeyPath = ()
    for part in entry.split(": ") if entry else ():
        path = (*path, *(_path_of(part) if path else _entry(raw, part)))
    table = _get(raw, path)
    if not isinstance(table, dict):
        return path
    named = [_path_of(word) for word in re.findall(r"`([^`]+)`", why)]
    values = [(key,) for key, value in table.items() if key not in _NAMES and _says(why, value)]
    return (*path, *next((key for key in (*named, *values) if key and key[0] in table), ()))


def _entry(raw: dict[str, Any], part: str) -> KeyPath:
    """Find an entry: a key's path, or a row of an array of tables by its name (``event theft``, ``level.of``)."""
    path = _path_of(part)
    if path[0] in raw:
        return path
    match = _ENTRY.fullmatch(part)
    if match is None:
        return ()
    rows = [
        (key, number, row)
        for key, value in raw.items()
        if match["of"] in (None, key) and isinstance(value, list)
        for number, row in enumerate(value)
        if isinstance(row, dict)
    ]
    # The last of that name: of two, it is the one too many.
    for key, number, row in reversed(rows):
        for name in (row[each] for each in _NAMES if each in row):
            if name == match["name"]:
                return key, number
            if match["of"] is None and match["name"].startswith(f"{name}."):
                return key, number, *_path_of(match["name"].removeprefix(f"{name}."))
    return ()


def _get(raw: Any, path: KeyPath) -> Any:
    """Follow a path as far as it goes; None where it leads nowhere."""
    for step in path:
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _says(why: str, value: Any) -> bool:
    """Whether a message is about a value: it quotes one of its texts, or has them all."""
    texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
    if set(texts) & set(re.findall(r"'([^']+)'", why)):
        return True
    return bool(texts) and all(re.search(rf"(?<!\w){re.escape(text)}(?!\w)", why) for text in texts)
