"""A score as one self-contained page: figures on top, then every incident and nuisance on a line of its own.

Markup, style and drawings stand in the one file; it needs no script and no network.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib import resources

from streetwarden.drawing import Axis, bar, grid, scale, spot, stroke, wire
from streetwarden.matching import Case, Json, Matched, Nuisance, TruthFile, match
from streetwarden.score import Detail, Score, span
from streetwarden.told import Flaw, Told
from wire.clock import NANOSECONDS, from_iso, iso

LONG_S = 6 * 3600.0  # a longer run has too little room for minutes: each line is then drawn around its own onset
AROUND_S = (-600.0, 7200.0)  # what such a line shows
LINES = 200  # the others are counted
QUIET = 40  # with more lines than this, nuisances that nothing was told of are only counted
DETAILS = 300
PAIRS = 12
ENDED = ("closed", "cancelled")
AFTER_S = 600.0  # what is told of a device this long after a nuisance may still be its doing

_WATER, _LIGHT, _DEVICE = "water", "light", "device"
_HUES = {
    "flood": _WATER,
    "surcharge": _WATER,
    "standing_water": _WATER,
    "rain": _WATER,
    "cover": "cover",
    "gas": "gas",
    "lamp": _LIGHT,
    "day_burner": _LIGHT,
    "cycling": _LIGHT,
    "leakage": _LIGHT,
    "feeder": _LIGHT,
    "object": "object",
}
LEGEND = (
    '<span><i class="key true water"></i>what was true</span> <span><i class="key missed"></i>missed</span>'
    ' <span><i class="key false"></i>what only looked like it</span>'
    ' <span><i class="key delay"></i>onset to alert</span>'
    ' <span><i class="key alert"></i>alert</span> <span><i class="key alert held"></i>alert held back</span>'
    ' <span><i class="key order"></i>work order, a dot for each announcement</span>'
)
PATTERN = (
    '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
    '<pattern id="hatch" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="3" height="7"/></pattern></defs></svg>'
)


@dataclass(slots=True)
class _Line:
    """One incident, nuisance or order on nothing; ``trouble`` is a class of the style sheet, empty when in order.

    ``truth`` is from when to when it was so, ``raised`` when it was first told of (UTC ns).
    """

    at: int
    hazard: str
    name: str
    where: str
    said: str
    trouble: str = ""
    truth: tuple[int, int | None] | None = None
    false: bool = False
    raised: int | None = None
    levels: list[tuple[str, int]] = field(default_factory=list)
    alerts: list[Json] = field(default_factory=list)
    orders: list[Json] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Mark:
    """An instant of a long run: ``good``, ``warn`` or ``bad``."""

    at: int
    state: str
    about: str


def page(scored: Score, truth: TruthFile, told: Told) -> str:
    """Write the page of a run that has been scored."""
    matched = match(truth, told)
    axis = _whole(scored.run.length_s, truth, told)
    shown, remainder = _cut(_lines(scored, matched, truth, told))
    if scored.run.length_s > LONG_S or len(shown) > QUIET:
        whole = _overview(matched, told.audit.flaws, axis)
    else:
        whole = _samples(told.audit.flaws, axis)
    parts = (
        _head(scored, axis),
        _figures(scored),
        whole,
        _timelines(shown, remainder, axis, long=scored.run.length_s > LONG_S),
        _tables(scored),
        _details(scored.details),
    )
    style = (resources.files("streetwarden") / "timeline.css").read_text(encoding="utf-8")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_title(scored)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>\n'
        f"<body>{PATTERN}{''.join(parts)}</body></html>\n"
    )


def _whole(length_s: float, truth: TruthFile, told: Told) -> Axis:
    """Make the axis of a run: it ends when the truth was last told, and leaves out nothing that was true."""
    known = [truth.at] if truth.at else [order["updated_at"] for order in told.orders]
    ends = max((from_iso(at) for at in known), default=0)
    onsets = [from_iso(each.onset) for each in truth.incidents] + [from_iso(each.at) for each in truth.nuisances]
    return Axis(min([ends - int(length_s * NANOSECONDS), *onsets]), ends)


def _title(scored: Score) -> str:
    return f"{escape(scored.run.scenario)}, seed {scored.run.seed}"


def _head(scored: Score, axis: Axis) -> str:
    run, begins = scored.run, iso(axis.begins)[:16].replace("T", " ")
    clock = "fast time" if run.clock == "fast" else f"real time at {run.speed:g}×"
    said = f"{span(run.length_s)} of city time from {begins} UTC, in {clock}"
    return f"<header><h1>{_title(scored)}</h1><p>{said}</p></header>"


# --- figures ---


def _figures(scored: Score) -> str:
    incidents, orders, samples = scored.incidents, scored.orders, scored.samples
    useful = "–" if orders.useful_share is None else f"{orders.useful_share:.0%}"
    per = "–" if orders.per_incident is None else f"{orders.per_incident:g}"
    flaws = samples.lost + samples.doubled + samples.garbled + samples.aliens
    tiles = [
        ("incidents found", f"{incidents.found}<i> of {incidents.total}</i>", "", ""),
        ("missed", str(incidents.missed), "", "bad" if incidents.missed else "good"),
        ("late", str(incidents.late), "", "warn" if incidents.late else "good"),
        ("orders on nothing", str(orders.misfires), f"of {orders.opened} opened", "bad" if orders.misfires else "good"),
        ("orders doubled", str(orders.duplicates), f"{per} an incident", "bad" if orders.duplicates else "good"),
        ("useful share", useful, f"{orders.benign} benign", ""),
        ("onset to alert", _span(scored.delay_s.p50), f"p99 {_span(scored.delay_s.p99)}", ""),
        ("samples with a flaw", f"{flaws:,}", f"of {samples.emitted:,} emitted", "bad" if flaws else "good"),
    ]
    cells = "".join(
        f'<div class="tile {state}"><dt>{name}</dt><dd>{value}</dd><small>{more}</small></div>'
        for name, value, more, state in tiles
    )
    return f'<dl class="tiles">{cells}</dl>'


def _tables(scored: Score) -> str:
    samples, orders = scored.samples, scored.orders
    hazards = _table(
        ("hazard", "true", "found", "missed", "late", "orders", "on nothing", "p50", "p99", "most"),
        [
            (
                f'<span class="hue {_hue(row.hazard)}"></span>{escape(row.hazard)}',
                *(_number(each) for each in (row.incidents, row.found)),
                *(_number(each, bad=True) for each in (row.missed, row.late)),
                _number(row.orders),
                _number(row.misfires, bad=True),
                *(_span(each) for each in (row.delay_s.p50, row.delay_s.p99, row.delay_s.most)),
            )
            for row in scored.hazards
        ],
    )
    told = [
        *(("emitted", samples.emitted), ("acquired", samples.acquired), ("filtered", samples.filtered)),
        *(("dropped", samples.dropped), ("stored", samples.committed), ("compared one by one", samples.audited)),
        *(
            ("lost", samples.lost),
            ("doubled", samples.doubled),
            ("garbled", samples.garbled),
            ("alien", samples.aliens),
        ),
    ]
    return (
        f'<section><h2>By hazard</h2><div class="wide">{hazards}</div></section><div class="pairs">'
        + _pairs("Held back, by reason", orders.held_back.items())
        + _pairs("Orders on nothing, by device", orders.misfires_by_device.items())
        + _pairs("Orders on nothing, by rule", orders.misfires_by_rule.items())
        + _pairs("Samples", told)
        + _pairs("Samples missing, by device", samples.missing_by_device.items())
        + "</div>"
    )


def _details(details: Sequence[Detail]) -> str:
    if not details:
        return "<section><h2>Nothing is amiss</h2></section>"
    rows = [
        (
            f'<b class="kind {_trouble(each.kind)}">{each.kind}{f" ×{each.count:,}" if each.count > 1 else ""}</b>',
            escape(each.hazard),
            escape(each.device),
            escape(each.rule),
            f'<span class="time">{each.at[:19].replace("T", " ")}</span>',
            escape(each.stage),
            escape(each.reason),
        )
        for each in details[:DETAILS]
    ]
    more = f'<p class="more">and {len(details) - DETAILS:,} more, in the JSON</p>' if len(details) > DETAILS else ""
    head = ("what", "hazard", "device", "rule", "at", "stage", "reason")
    return f'<section><h2>What is amiss</h2><div class="wide text">{_table(head, rows)}</div>{more}</section>'


def _pairs(title: str, pairs: Iterable[tuple[str, int]]) -> str:
    """Write counts as a small table of bars, the first dozen of them; nothing where there are none."""
    counts = list(pairs)
    if not counts:
        return ""
    most = max(1, *(count for _, count in counts))
    rows = "".join(
        f'<tr><th>{escape(name) or "–"}</th><td class="bar"><i style="width:{100 * count / most:.1f}%"></i></td>'
        f"<td>{count:,}</td></tr>"
        for name, count in counts[:PAIRS]
    )
    more = f'<p class="more">and {len(counts) - PAIRS:,} more</p>' if len(counts) > PAIRS else ""
    return f"<section><h2>{title}</h2><table>{rows}</table>{more}</section>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{each}</th>" for each in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"


# --- lines ---


def _lines(scored: Score, matched: Matched, truth: TruthFile, told: Told) -> list[_Line]:
    missed = {detail.reason.partition(":")[0]: detail for detail in scored.details if detail.kind == "missed"}
    taken = {alert["id"] for case in matched.cases for alert in case.alerts}
    alerts: dict[str, list[Json]] = defaultdict(list)
    for alert in told.alerts:
        if alert["id"] not in taken:
            alerts[alert["device"]].append(alert)
    lines = [_of_case(case, missed.get(case.incident.id), alerts) for case in matched.cases]
    orders: dict[str, list[Json]] = defaultdict(list)
    for order, nuisance in (*matched.misfires, *matched.benign):
        if nuisance is None:
            lines.append(_of_nothing(order, alerts[order["device"]]))
        else:
            orders[nuisance.id].append(order)
    lines += [_of_nuisance(each, alerts[each.device], orders[each.id]) for each in truth.nuisances]
    return sorted(lines, key=lambda line: line.at)


def _of_case(case: Case, missed: Detail | None, others: Mapping[str, list[Json]]) -> _Line:
    incident, orders = case.incident, len(case.orders)
    line = _Line(from_iso(incident.onset), incident.hazard, incident.id, ", ".join(incident.devices), "")
    line.truth = (line.at, _maybe(incident.end))
    line.raised = None if case.first is None else from_iso(case.first["raised_at"])
    line.levels = [(level.name, from_iso(level.onset)) for level in incident.levels]
    line.alerts, line.orders = case.alerts, case.orders
    if missed is not None:
        line.trouble, line.said = "bad", f"<b>missed</b> at {missed.stage}"
        line.alerts = [
            *case.alerts,
            *(alert for device in incident.devices for alert in others.get(device, ()) if _near(alert, *line.truth)),
        ]
    else:
        after = f"after {span(case.delay_s)}" if case.delay_s is not None else "by a person"
        line.said = f"<b>{'late' if case.late else 'found'}</b> {after}"
        line.said += f"<small>{orders} orders</small>" if orders > 1 else ""
        line.trouble = "bad" if orders > 1 else "warn" if case.late else ""
    return line


def _of_nuisance(nuisance: Nuisance, alerts: Sequence[Json], orders: list[Json]) -> _Line:
    line = _Line(from_iso(nuisance.at), nuisance.hazard, nuisance.id, nuisance.device, "", false=True, orders=orders)
    line.name = nuisance.id if nuisance.id.startswith(nuisance.kind) else f"{nuisance.kind} {nuisance.id}"
    line.truth = (line.at, _maybe(nuisance.until))
    line.alerts = [alert for alert in alerts if _near(alert, *line.truth)]
    held = sorted({alert["decision"]["code"] for alert in line.alerts if alert["decision"] is not None})
    if orders and nuisance.role == "benign":
        line.trouble, line.said = "warn", "<b>order</b> on it, benign"
    elif orders:
        line.trouble, line.said = "bad", "<b>misfire</b>"
    else:
        line.said = f"held back<small>{escape(', '.join(held))}</small>" if held else "nothing told"
    return line


def _of_nothing(order: Json, alerts: Sequence[Json]) -> _Line:
    line = _Line(from_iso(order["decided_at"]), order["hazard"], "nothing", order["device"], "<b>misfire</b>", "bad")
    line.alerts = [alert for alert in alerts if alert["id"] in order["alerts"]]
    line.orders = [order]
    return line


def _near(alert: Json, begins: int, ends: int | None) -> bool:
    since, until = from_iso(alert["since"]), from_iso(alert["cleared_at"] or alert["decided_at"])
    return until >= begins and (ends is None or since <= ends + int(AFTER_S * NANOSECONDS))


def _cut(lines: list[_Line]) -> tuple[list[_Line], str]:
    """Choose what is shown where there is too much: first what is in trouble, nuisances that were quiet not at all."""
    loud = [line for line in lines if not line.false or line.alerts or line.orders] if len(lines) > QUIET else lines
    kept = sorted(loud, key=lambda line: not line.trouble)[:LINES]
    quiet, others = len(lines) - len(loud), len(loud) - len(kept)
    said = [f"{quiet:,} nuisances of which nothing was told"] if quiet else []
    said += [f"{others:,} lines beyond the first {LINES}; those in trouble come first"] if others else []
    return sorted(kept, key=lambda line: line.at), "; ".join(said)


def _timelines(lines: Sequence[_Line], remainder: str, axis: Axis, *, long: bool) -> str:
    if not lines:
        return "<section><h2>Timelines</h2><p>Nothing happened, and nothing was told.</p></section>"
    before, after = (int(each * NANOSECONDS) for each in AROUND_S)
    rows = "".join(_row(line, Axis(line.at + before, line.at + after, line.at) if long else axis) for line in lines)
    labels = scale(Axis(before, after, 0) if long else axis)
    note = "Each line is drawn around its own onset. " if long else ""
    more = f'<p class="more">Not shown: {remainder}.</p>' if remainder else ""
    return f'<section><h2>Timelines</h2><p class="legend">{note}{LEGEND}</p>{labels}{rows}{more}</section>'


def _row(line: _Line, axis: Axis) -> str:
    when, where = iso(line.at)[5:19].replace("T", " "), escape(line.where)
    return (
        f'<div class="row {line.trouble}"><div class="who"><span class="hue {_hue(line.hazard)}"></span>'
        f"<b>{escape(line.hazard)}</b> {escape(line.name)}"
        f'<small title="{where}">{when} · {where}</small></div>'
        f'<svg height="48" role="img" aria-label="{escape(line.hazard)} {escape(line.name)}">{grid(axis)}'
        f"{''.join((*_true(line, axis), *_alerts(line, axis), *_orders(line, axis)))}</svg>"
        f'<div class="said {line.trouble}">{line.said}</div></div>'
    )


def _true(line: _Line, axis: Axis) -> Iterator[str]:
    """Draw what was, in steps where it has levels, and how long it took to be told."""
    if line.truth is None:
        return
    onset, ends = line.truth
    missed = " missed" if line.trouble == "bad" and not line.orders else ""
    style = "false" if line.false else f"true {_hue(line.hazard)}{missed}"
    until = "" if ends is None else f" to {iso(ends)}"
    yield bar(axis, line.truth, 6, 14, style, f"{line.hazard} from {iso(onset)}{until}")
    for name, reached in line.levels[1:]:
        yield bar(axis, (reached, ends), 6, 14, "level", f"{name} from {iso(reached)}")
    if line.raised is not None:
        yield wire(
            axis, onset, line.raised, 27, "delay", f"{span((line.raised - onset) / NANOSECONDS)} from onset to alert"
        )


def _alerts(line: _Line, axis: Axis) -> Iterator[str]:
    for alert in line.alerts:
        over = alert["cleared_at"] or (None if alert["raised_at"] else alert["decided_at"])
        decision = alert["decision"] or {"verdict": "pending", "code": ""}
        style = "alert" if decision["verdict"] == "dispatched" else "alert held"
        about = f"{alert['rule']} on {alert['device']}: {alert['phase']}, {decision['verdict']} {decision['code']}"
        yield bar(axis, (from_iso(alert["raised_at"] or alert["since"]), _maybe(over)), 24, 6, style, about)


def _orders(line: _Line, axis: Axis) -> Iterator[str]:
    for order in line.orders:
        over = order["updated_at"] if order["state"] in ENDED else None
        about = f"order {order['number']}: {order['state']}, opened {order['opened_at']}"
        yield bar(axis, (from_iso(order["opened_at"]), _maybe(over)), 34, 8, "order", about)
        for each in order["announcements"]:
            yield spot(axis, from_iso(each["at"]), 38, 2.5, "announced", f"{each['level']} announced {each['at']}")


# --- the whole run ---


def _overview(matched: Matched, flaws: Sequence[Flaw], axis: Axis) -> str:
    """Draw a long run whole: a row for each hazard, one for orders on nothing and one for its samples."""
    rows: dict[str, list[_Mark]] = defaultdict(list)
    for case in matched.cases:
        incident = case.incident
        state, said = (
            ("bad", "missed") if case.found_at is None else ("warn", "late") if case.late else ("good", "found")
        )
        rows[incident.hazard].append(_Mark(from_iso(incident.onset), state, f"{incident.id}: {said}"))
    for order, _ in matched.misfires:
        about = f"{order['hazard']} on {order['device']}"
        rows["orders on nothing"].append(_Mark(from_iso(order["decided_at"]), "bad", about))
    drawn = "".join(_marks(name, marks, axis, f"{len(marks)}") for name, marks in rows.items())
    return f"<section><h2>The whole run</h2>{scale(axis)}{drawn}{_flawed(flaws, axis)}</section>"


def _samples(flaws: Sequence[Flaw], axis: Axis) -> str:
    if not flaws:
        return ""
    return f"<section><h2>Samples not as emitted</h2>{scale(axis)}{_flawed(flaws, axis)}</section>"


def _flawed(flaws: Sequence[Flaw], axis: Axis) -> str:
    marks = [
        _Mark(
            from_iso(flaw.first_at) if flaw.first_at else axis.begins,
            "bad",
            f"{flaw.count} {flaw.kind} of {flaw.device} {flaw.metric} at {flaw.stage}",
        )
        for flaw in flaws
    ]
    return _marks("samples", marks, axis, f"{sum(flaw.count for flaw in flaws):,} samples") if marks else ""


def _marks(name: str, marks: Sequence[_Mark], axis: Axis, said: str) -> str:
    """Draw one row of marks: what is in order as strokes, what is not as spots on top of them."""
    drawn = "".join(
        stroke(axis, mark.at, "good", mark.about)
        if mark.state == "good"
        else spot(axis, mark.at, 13, 5, mark.state, mark.about)
        for mark in sorted(marks, key=lambda mark: mark.state == "bad")
    )
    bad = sum(mark.state == "bad" for mark in marks)
    said = f"<b>{bad}</b> of {said}" if 0 < bad < len(marks) else f"<b>{said}</b>" if bad else said
    return (
        f'<div class="row"><div class="who"><span class="hue {_hue(name)}"></span><b>{escape(name)}</b></div>'
        f'<svg height="26" role="img" aria-label="{escape(name)}">{grid(axis)}{drawn}</svg>'
        f'<div class="said{" bad" if bad else ""}">{said}</div></div>'
    )


def _hue(hazard: str) -> str:
    return _HUES.get(hazard, _DEVICE)


def _trouble(kind: str) -> str:
    return "warn" if kind in {"late", "benign"} else "bad"


def _number(count: int, *, bad: bool = False) -> str:
    return f'<span class="{"bad" if bad and count else "none" if not count else ""}">{count:,}</span>'


def _span(seconds: float | None) -> str:
    return "–" if seconds is None else span(seconds)


def _maybe(at: str | None) -> int | None:
    return None if at is None else from_iso(at)
