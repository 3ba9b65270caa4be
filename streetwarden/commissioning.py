"""``streetwarden profile check``, ``profile probe`` and ``bus scan``: what an installer sees of models and devices."""

import asyncio
import math
import sys
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from edge.doubts import shown
from edge.drivers.address import Address, Parity
from edge.drivers.modbus import Failed
from edge.hearing import Strange
from edge.messages import probe_message
from edge.plan import plan
from edge.probed import Probed, Row
from edge.probing import AGAIN_S, probe
from edge.profile import Field, Profile, Register, load_profiles
from edge.scanning import BAUDS, PARITIES, SCORE, UNITS, Found, Likely, Scan, settings
from rules.declared import Refused, nearest
from wire.batch import Malformed

FINE, DOUBTS, NOTHING, STOPPED = 0, 1, 2, 130  # exit codes
STDIN = "-"
_WIDE = 110  # characters of output that no terminal limits

T = TypeVar("T")


def check(profile: Profile) -> str:
    """Tell in one line what a profile that is in order holds, and what its maintainer should know."""
    counts = (
        (len(plan(profile.point, profile.limits)), "read"),
        (len(profile.point), "point"),
        (len(profile.field), "field"),
        (len(profile.derived), "derived"),
        (len(profile.command), "command"),
        (len(profile.text), "text"),
    )
    told = [f"{count} {name}{'s' if count > 1 and name != 'derived' else ''}" for count, name in counts if count]
    return "; ".join((f"{profile.id}: in order, {', '.join(told)}", *_worth_knowing(profile)))


def _worth_knowing(profile: Profile) -> Iterator[str]:
    reads = len(plan(profile.point, profile.limits))
    whole = len(plan(profile.point, msgspec.structs.replace(profile.limits, max_hole=125)))
    if whole < reads and not profile.limits.one_field_per_request:
        yield f"max_hole = {profile.limits.max_hole} makes {reads} reads instead of {whole}"
    boundless = [each.metric for each in profile.measured if each.range is None and _is_measured(each)]
    if boundless:
        yield f"no range: {', '.join(boundless)}"


def _is_measured(each: Register | Field) -> bool:
    """Tell whether a range could show a wrong scale or place: not of codes and flags, nor of totals."""
    return each.unit != "1" and not (isinstance(each, Register) and each.counter)


def profile_of(name: str, folder: Path | None) -> Profile:
    """Find a profile by its id, among the shipped ones or in a folder, or by its file; ``Refused`` if there is none."""
    if name.endswith(".toml"):
        (profile,) = load_profiles(Path(name)).values()
        return profile
    profiles = load_profiles(folder)
    if name not in profiles:
        raise Refused(f"PROFILE {name}", f"no such profile is known{nearest(name, profiles)}")
    return profiles[name]


def numbers_of(install: Sequence[str]) -> dict[str, float]:
    """Read ``NAME=VALUE`` pairs."""
    numbers = {}
    for pair in install:
        name, _, value = pair.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError:
            raise Refused(f"--install {pair}", "is written NAME=VALUE, as in mounting_height_m=3.5") from None
    return numbers


def address_of(name: str, **how: Any) -> Address:
    """Make an address of a host or of a terminal's path, with the keys of ``Address``; ``Refused`` where it is none."""
    where = {"serial": name} if is_terminal(name) else {"host": name}
    unknown = {"port", "framing"} if is_terminal(name) else {"baud", "parity", "stop_bits"}
    try:
        return msgspec.convert({**where, **{key: how[key] for key in how.keys() - unknown}}, Address)
    except msgspec.ValidationError as error:
        raise Refused(name, str(error)) from error


def is_terminal(name: str) -> bool:
    return name.startswith("/") or Path(name).is_char_device()


def units_of(text: str) -> tuple[int, ...]:
    """Read ``1-32`` or ``1-8,20``."""
    units: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            units.update(range(int(first), int(last if dash else first) + 1))
        except ValueError:
            raise Refused(f"--units {text}", "is written as in 1-32 or 1-8,20") from None
    if not units or not units.issubset(UNITS):
        raise Refused(f"--units {text}", f"unit ids lie between {UNITS[0]} and {UNITS[-1]}")
    return tuple(sorted(units))


# --- profile probe


def probe_device(
    address: Address, unit: int, profile: Profile, base: int, install: Mapping[str, float], *, clearing: bool
) -> int:
    """Read a live device and show it; the exit code."""
    if profile.limits.single_session and address.host:
        _say("warning: this model serves one master at a time; a gateway that polls it loses it until this ends")
    with _progress() as progress:
        task = progress.add_task(f"reading {address.name} unit {unit}")

        def tell(asked: int, questions: int) -> None:
            progress.update(task, completed=asked, total=questions)

        try:
            probed = _run(probe(address, unit, profile, base, install, clearing=clearing, tell=tell))
        except Failed as failure:
            progress.stop()
            _say(f"cannot be read: {failure}")
            _say(f"Is it wired, and are unit id and framing its own? streetwarden bus scan {address.name} tells.")
            return NOTHING
    title = f", {address.name} unit {unit}{f' base {base}' if base else ''}"
    return _show(profile, title, probed, with_registers=True)


def probe_told(source: str, profile: Profile, install: Mapping[str, float]) -> int:
    """Read one message from a file or from standard input and show it; the exit code."""
    if profile.point:
        raise Refused(f"PROFILE {profile.id}", "its devices are asked: name a host, or the terminal of a line")
    if source != STDIN and not Path(source).is_file():
        how = f"streetwarden profile probe - {profile.id} < message"
        why = f"its devices are not asked, they tell: save a message of one, then {how}"
        raise Refused(f"PROFILE {profile.id}", why)
    try:
        payload = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
        probed = probe_message(profile, install, payload, time.time_ns())
    except OSError as error:
        raise Refused(source, f"cannot be read: {error.strerror}") from error
    except (Malformed, Strange) as error:
        _say(f"cannot be read: {error}")
        return NOTHING
    return _show(profile, ", one message", probed, with_registers=False)


def _show(profile: Profile, title: str, probed: Probed, *, with_registers: bool) -> int:
    head = profile.profile
    console = _console()
    console.print(Text.assemble((profile.id, "bold"), f", {head.maker} {head.model}{title}"), soft_wrap=True)
    console.print(Padding(_table(probed.rows, with_registers=with_registers), (1, 0)))
    doubts = [(row.name, doubt) for row in probed.rows for doubt in row.doubts]
    doubts += [("", doubt) for doubt in probed.doubts]
    lines = Table.grid(padding=(0, 2))
    for name, doubt in doubts:
        lines.add_row(Text("doubt", style="yellow"), name, Text(doubt, overflow="fold"))
    for note in probed.notes:
        lines.add_row(Text("note", style="dim"), "", Text(note, overflow="fold"))
    if lines.row_count:
        console.print(lines)
    if not probed.any_value:
        console.print(Text("nothing could be read", style="red"))
        return NOTHING
    count = f"{len(doubts)} doubt{'s' if len(doubts) > 1 else ''}"
    console.print(Text(count, style="yellow") if doubts else Text("no doubts", style="green"))
    return DOUBTS if doubts else FINE


def _table(rows: Sequence[Row], *, with_registers: bool) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    columns = ["point", "fn", "address", "raw", "value", "unit", f"{AGAIN_S:g} s later", "quality"]
    hidden = set() if with_registers else {"fn", f"{AGAIN_S:g} s later"}
    chosen = [number for number, column in enumerate(columns) if column not in hidden]
    for number in chosen:
        table.add_column(columns[number], no_wrap=True, justify="right" if columns[number] == "value" else "left")
    for row in rows:
        style = "yellow" if row.doubts else "dim" if math.isnan(row.value) and not row.raw else ""
        cells = (row.name, row.function, row.address, row.raw, _value(row.value), row.unit, _again(row), row.quality)
        table.add_row(*(cells[number] for number in chosen), style=style)
    return table


def _value(value: float) -> str:
    return "" if math.isnan(value) else shown(value)


def _again(row: Row) -> str:
    return "same" if shown(row.again) == shown(row.value) != "nan" else _value(row.again)


# --- bus scan


def addresses_of(
    port: str, framing: str, baud: int | None, parity: Parity | None, timeout_s: float
) -> tuple[Address, ...]:
    """Give all that a search goes through: the settings of a line, or one endpoint; ``Refused`` when it is neither."""
    if is_terminal(port):
        bauds, parities = (baud,) if baud else BAUDS, (parity,) if parity else PARITIES
        address_of(port, baud=bauds[0], timeout_s=timeout_s)
        return settings(port, bauds, parities, timeout_s)
    host, _, number = port.rpartition(":")
    if not (host and number.isdecimal()):
        raise Refused(f"PORT {port}", "is the terminal of a line, as in /dev/ttyUSB0, or HOST:PORT")
    return (address_of(host.strip("[]"), port=int(number), framing=framing, timeout_s=timeout_s),)


def scan_bus(addresses: Sequence[Address], units: Sequence[int], profiles: Mapping[str, Profile]) -> int:
    """Search a bus and show what was found, also when it is stopped by Ctrl-C; the exit code."""
    with _progress() as progress:
        task = progress.add_task("")
        told = 0

        def tell(scan: Scan) -> None:
            nonlocal told
            for found in scan.found[told:]:
                progress.console.print(f"found: {_setting(found.address)}unit {found.unit} answers {found.answer}")
            told = max(told, len(scan.found))
            progress.update(task, completed=scan.asked, total=scan.questions, description=_setting(scan.at))

        scan = Scan(addresses, units, profiles.values(), tell)
        stopped = False
        try:
            _run(scan.run())
        except KeyboardInterrupt:
            stopped = True
    console = _console()
    if scan.found:
        console.print(_found(scan.found))
        console.print(Padding(Text(SCORE.replace("\n", " "), style="dim"), (1, 0, 0, 0)))
    else:
        console.print(f"nobody answers: {len(addresses) - len(scan.unable)} settings, {len(units)} unit ids each")
    for note in scan.notes:
        console.print(note)
    if scan.unable:
        names = ", ".join(filter(None, (_setting(address).strip() for address in scan.unable)))
        console.print(f"not searched{f': {names}' if names else ''} ({next(iter(scan.unable.values()))})")
    if stopped:
        console.print(f"stopped after {scan.asked} of {scan.questions} questions")
        return STOPPED
    if len(scan.unable) == len(addresses):
        return NOTHING
    return FINE if scan.found else DOUBTS


def _setting(address: Address) -> str:
    return f"{address.baud} {address.parity} " if address.serial else ""


def _found(found: Sequence[Found]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("setting", "unit", "answers", "likely profile", "score", "because"):
        table.add_column(column, justify="right" if column in ("unit", "score") else "left")
    for each in found:
        first = (_setting(each.address).strip() or each.address.name, str(each.unit), each.answer)
        if not each.likely:
            table.add_row(*first, "not looked into" if each.likely is None else "none fits", "", "")
        for likely in each.likely or ():
            table.add_row(*first, likely.profile, f"{likely.score:.1f}", _because(likely))
            first = ("", "", "")
    return table


def _because(likely: Likely) -> str:
    refused = f", {likely.missing} refused" if likely.missing else ""
    says = f", says “{likely.says}”" if likely.says else ""
    return f"{likely.fitting} of {likely.asked} points in range{refused}{says}"


# --- both


def _console() -> Console:
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else _WIDE)


def _progress() -> Progress:
    console = Console(stderr=True, highlight=False, markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} of {task.total}"))
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
