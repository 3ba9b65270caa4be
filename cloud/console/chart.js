// The evidence of a work order: what was measured, with the limits it was judged by and the instants that mattered.

import { svg } from "./dom.js";
import { columnName, hourMinute, number, quantity, say } from "./text.js";

const LEFT = 52;
const RIGHT = 14;
const ROW = 16; // one line of mark labels
const HEIGHT = [92, 150, 240]; // px: a companion, one with limits of its own, the first
const BAD = 16; // qualities from here on are bad (rules.samples.Quality)

/** Round steps of 1, 2 or 5 that cut `low…high` into about `count` parts. */
function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((n) => n * power >= raw) * power;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, n) => (first + n) * step);
}

function timeTicks(from, until, count) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 360, 720, 1440].map((minutes) => minutes * 60000);
  const step = steps.find((n) => (until - from) / n <= count) ?? steps.at(-1);
  const first = Math.ceil(from / step);
  return Array.from({ length: Math.max(0, Math.floor(until / step) - first + 1) }, (_, n) => (first + n) * step);
}

const isSwitch = (series) =>
  series.unit === "1" && series.points.every(([, value]) => value === 0 || value === 1 || value === null);

/** A line through the good points, broken where a bad one lies; a switch (0 or 1) is drawn as steps. */
function path(series, x, y) {
  let line = "";
  let last = null;
  for (const [at, value, quality] of series.points) {
    if (quality >= BAD || value === null) {
      last = null;
      continue;
    }
    if (last && isSwitch(series)) line += `H${x(at).toFixed(1)}`;
    line += `${last ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    last = at;
  }
  return line;
}

function quality(series, x, y, floor) {
  return series.points.flatMap(([at, value, quality]) => {
    if (quality >= BAD) {
      const [cx, cy] = [x(at), floor - 6];
      return svg("path", { class: "bad", d: `M${cx - 3} ${cy - 3}l6 6m0 -6l-6 6` });
    }
    return quality ? svg("circle", { class: "uncertain", cx: x(at), cy: y(value), r: 3 }) : [];
  });
}

/**
 * One series as a picture, `width` px wide. `marks` are `[{name, at}]` (ms), told in words when `labels` says so;
 * `severityOf` gives a limit's severity by its level, for the colour of its line.
 */
function picture(series, { from, until, marks, labels, width, height, severityOf, pick }) {
  const top = (labels ? marks.length * ROW : 0) + (series.limits.length ? 22 : 8);
  const floor = height - 22;
  const values = series.points.filter(([, value, q]) => q < BAD && value !== null).map(([, value]) => value);
  const limits = isSwitch(series) ? [] : series.limits;
  const all = [...values, ...limits.map((limit) => limit.value)];
  const low = Math.min(0, ...all);
  const high = (Math.max(...all, low) - low) * 1.08 + low || 1;
  const x = (at) => LEFT + ((at - from) / (until - from || 1)) * (width - LEFT - RIGHT);
  const y = (value) => floor - ((value - low) / (high - low)) * (floor - top);
  const scale = isSwitch(series) ? [0, 1] : ticks(low, high, height > 140 ? 4 : 2);
  const digits = Math.max(0, Math.min(3, Math.ceil(-Math.log10(scale[1] - scale[0] || 1))));

  const summary = say("chart.summary", {
    device: series.device,
    metric: columnName(series.metric),
    from: hourMinute(from),
    until: hourMinute(until),
    low: values.length ? quantity(Math.min(...values), series.unit) : "–",
    high: values.length ? quantity(Math.max(...values), series.unit) : "–",
  });
  return svg(
    "svg",
    { class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": summary },
    scale.map((value) => [
      svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, number(value, digits, digits)),
    ]),
    timeTicks(from, until, Math.floor(width / 90)).map((at) => [
      svg("line", { class: "grid", x1: x(at), x2: x(at), y1: floor, y2: floor + 4 }),
      svg("text", { class: "tick", x: x(at), y: floor + 17, "text-anchor": "middle" }, hourMinute(at)),
    ]),
    limits.map((limit) =>
      svg(
        "g",
        { class: `limit ${severityOf(limit.level)}` },
        svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(limit.value), y2: y(limit.value) }),
        svg(
          "text",
          { x: LEFT + 6, y: y(limit.value) - 5 },
          `${pick(limit.title) || limit.level} ${quantity(limit.value, series.unit)}`,
        ),
      ),
    ),
    marks.map(({ name, at }, row) => {
      const leftward = x(at) > width - 130;
      return svg(
        "g",
        { class: "mark" },
        svg("line", { x1: x(at), x2: x(at), y1: labels ? row * ROW + 4 : 0, y2: floor }),
        labels &&
          svg(
            "text",
            { x: x(at) + (leftward ? -5 : 5), y: row * ROW + 14, "text-anchor": leftward ? "end" : "start" },
            `${name} ${hourMinute(at)}`,
          ),
      );
    }),
    svg("path", { class: "line", d: path(series, x, y) }),
    quality(series, x, y, floor),
    svg("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: floor, y2: floor }),
  );
}

/**
 * All series of an answer of `/evidence` on one time axis, what the order's own device was judged by first:
 * `[{title, drawing, notes}]`.
 */
export function pictures(evidence, { device, opened_at: openedAt }, options) {
  const weight = (one) => 2 * Number(one.device === device) + Number(one.limits.length > 0);
  const series = evidence.series.filter((one) => one.points.length).sort((a, b) => weight(b) - weight(a));
  if (!series.length) return [];
  const marks = [
    { name: say("chart.onset"), at: Date.parse(evidence.since) },
    { name: say("chart.decision"), at: Date.parse(evidence.decided_at) },
    { name: say("chart.dispatch"), at: Date.parse(openedAt) },
  ].filter(({ at }) => Number.isFinite(at));
  const times = [...series.flatMap((one) => [one.points[0][0], one.points.at(-1)[0]]), ...marks.map(({ at }) => at)];
  const [from, until] = [Math.min(...times), Math.max(...times)];
  return series.map((one, place) => {
    const unit = isSwitch(one) || one.unit === "1" ? "" : one.unit === "deg" ? "°" : one.unit;
    return {
      title: [columnName(one.metric), unit && `[${unit}]`, "·", one.device].filter(Boolean).join(" "),
      drawing: picture(one, {
        ...options,
        from,
        until,
        marks,
        labels: place === 0,
        height: HEIGHT.at(place ? Number(one.limits.length > 0) : -1),
      }),
      notes: [
        one.points.some(([, , q]) => q >= BAD) && say("chart.bad"),
        one.points.some(([, , q]) => q > 0 && q < BAD) && say("chart.uncertain"),
      ].filter(Boolean),
    };
  });
}
