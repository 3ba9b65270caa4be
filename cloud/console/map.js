// The district from its own shapes: roads, sites, devices. Positions are WGS 84; no tiles, no network.

import { svg } from "./dom.js";
import { hourMinute, pick, quantity, say, staleText, word } from "./text.js";

const METRES_PER_DEGREE = 111320;
const CLOSE_UP = 440; // metres across, when one order is in hand

/** Each kind of device has a shape of its own, drawn about (0, 0) within 7 px. */
const SHAPES = {
  level_sensor: () => [svg("path", { d: "M0 6L-6.5 -5H6.5Z" })],
  rain_gauge: () => [svg("path", { d: "M0 -7C4 -2 5.5 0.5 5.5 2.5A5.5 5 0 0 1 -5.5 2.5C-5.5 0.5 -4 -2 0 -7Z" })],
  manhole_monitor: () => [svg("circle", { r: 6 }), svg("circle", { class: "inner", r: 2 })],
  manhole_cover: () => [svg("circle", { r: 6 }), svg("path", { class: "inner", d: "M-3 0H3M0 -3V3" })],
  lamp_controller: () => [svg("path", { d: "M0 -7L6.5 0L0 7L-6.5 0Z" })],
  camera: () => [svg("path", { d: "M-6.5 -4.5H3V4.5H-6.5ZM3 -1L7 -4V4L3 1Z" })],
};

export const symbol = (device) =>
  svg(
    "g",
    { class: `symbol ${device.state}${device.silence ? " stale" : ""}` },
    svg("g", { class: "shape" }, (SHAPES[device.kind] ?? SHAPES.manhole_monitor)()),
    device.state === "alert" && svg("circle", { class: "ring", r: 11 }),
    device.state === "fault" && svg("path", { class: "cross", d: "M-8 -8L8 8M8 -8L-8 8" }),
  );

/** Metres east and north, drawn into `width` × `height` px about `centre`; returns the projection and its scale (px/m). */
function projection(positions, width, height, pad) {
  const latitude = (positions[0]?.[1] ?? 0) * (Math.PI / 180);
  const metres = ([lon, lat]) => [lon * METRES_PER_DEGREE * Math.cos(latitude), -lat * METRES_PER_DEGREE];
  const xs = positions.map((position) => metres(position)[0]);
  const ys = positions.map((position) => metres(position)[1]);
  const [west, east, north, south] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const wide = Math.max(east - west, CLOSE_UP);
  const high = Math.max(south - north, (CLOSE_UP * height) / width);
  const scale = Math.min((width - 2 * pad) / wide, (height - 2 * pad) / high);
  const at = (position) => {
    const [x, y] = metres(position);
    return [width / 2 + (x - (west + east) / 2) * scale, height / 2 + (y - (north + south) / 2) * scale];
  };
  return { at, scale };
}

const points = (line) => line.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");

function pressable(properties, act, ...children) {
  const onkeydown = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    act();
  };
  return svg("g", { role: "button", tabindex: 0, onclick: act, onkeydown, ...properties }, ...children);
}

/** Where a line crosses `value` on `axis` (0: x, 1: y): the other coordinate, or the line's start beyond its ends. */
function crossing(line, axis, value) {
  for (let n = 1; n < line.length; n++) {
    const [a, b] = [line[n - 1], line[n]];
    const share = (value - a[axis]) / (b[axis] - a[axis]);
    if (share >= 0 && share <= 1) return a[1 - axis] + share * (b[1 - axis] - a[1 - axis]);
  }
  return line[0][1 - axis];
}

const extent = (ring) => {
  const [xs, ys] = [ring.map(([x]) => x), ring.map(([, y]) => y)];
  return { left: Math.min(...xs), right: Math.max(...xs), top: Math.min(...ys), bottom: Math.max(...ys) };
};

/** Roads, each with its name where it covers no site; one that is a site too is named there. */
function roads(district, { at, scale }, width, height) {
  const lines = district.roads.map((road) => ({ ...road, drawn: road.line.map(at), name: pick(road.name) }));
  const taken = district.sites.map((site) => extent(site.outline.map(at)));
  const named = new Set(district.sites.map((site) => pick(site.name)));
  const lift = Math.max(4, 15 * scale) + 7;

  function spots({ drawn }) {
    const { left, right, top, bottom } = extent(drawn);
    const down = right - left < bottom - top;
    const [low, high] = down
      ? [Math.max(20, top), Math.min(height - 12, bottom)]
      : [Math.max(10, left), Math.min(width - 110, right)];
    return [0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1].map((share) => {
      const along = low + share * (high - low);
      return down ? [crossing(drawn, 1, along) + lift, along] : [along, crossing(drawn, 0, along) - lift];
    });
  }
  const isFree = ([x, y], text) =>
    taken.every(
      (box) =>
        x > box.right + 40 || x + 13 * text.length < box.left - 40 || y < box.top - 26 || y - 14 > box.bottom + 26,
    );

  return [
    lines.map((road) =>
      svg("polyline", {
        class: "road",
        points: points(road.drawn),
        "stroke-width": Math.max(4, road.width_m * scale * 1.4),
      }),
    ),
    lines.map((road) => {
      const spot = spots(road).find(
        (one) => isFree(one, road.name) && one[0] > 0 && one[0] < width && one[1] > 12 && one[1] < height,
      );
      return !named.has(road.name) && spot && svg("text", { class: "road-name", x: spot[0], y: spot[1] }, road.name);
    }),
  ];
}

const noEntry = (x, y) =>
  svg(
    "g",
    { class: "no-entry", transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` },
    svg("circle", { r: 9 }),
    svg("path", { d: "M-5 0H5" }),
  );

function place(site, facts, { at }, act) {
  const ring = site.outline.map(at);
  const { left, right, top, bottom } = extent(ring);
  const x = (left + right) / 2;
  const flood = facts.flooded && say("map.flooded", { depth: facts.depth === null ? "" : quantity(facts.depth, "m") });
  const since = facts.silence?.since;
  const stale = facts.silence && say("map.stale", { at: since && hourMinute(Date.parse(since)) });
  const state = [flood, stale, facts.closed && say("map.closed")].filter(Boolean).join(" · ");
  const classes = [
    "site",
    site.kind,
    facts.flooded && "flooded",
    facts.silence && "stale",
    facts.closed && "closed",
    facts.selected && "selected",
  ];
  return pressable(
    {
      class: classes.filter(Boolean).join(" "),
      "data-focus": `site-${site.id}`,
      "aria-label": [pick(site.name), state].filter(Boolean).join(": "),
    },
    act,
    svg("polygon", { class: "ground", points: points(ring) }),
    facts.flooded && svg("polygon", { class: "water", points: points(ring) }),
    svg("text", { class: "site-name", x, y: bottom + 18, "text-anchor": "middle" }, pick(site.name)),
    state && svg("text", { class: "site-state", x, y: top - 9, "text-anchor": "middle" }, state),
    facts.closed && [left, right].map((end) => noEntry(end, (top + bottom) / 2)),
  );
}

function scaleBar(scale, height) {
  const metres = [50, 100, 200, 500, 1000].findLast((length) => length * scale <= 140) ?? 50;
  const y = height - 14;
  return svg(
    "g",
    { class: "scale", "aria-hidden": "true" },
    svg("path", { d: `M14 ${y - 5}V${y}H${14 + metres * scale}V${y - 5}` }),
    svg("text", { x: 20 + metres * scale, y: y + 1 }, `${metres} m`),
  );
}

/**
 * Draw the district. `facts(site)` tells `{flooded, depth, silence, closed, selected}` of a site; with one selected, the drawing is
 * a close-up of it. `on.site(id)` and `on.device(id)` are called when one is pressed.
 */
export function drawMap({ district, devices, facts, selectedDevice, width, height }, on) {
  const told = new Map(district.sites.map((site) => [site.id, facts(site)]));
  const near = district.sites.filter((site) => told.get(site.id).selected);
  const shown = near.length ? near : district.sites;
  const view = projection(
    shown.flatMap((site) => site.outline),
    width,
    height,
    30,
  );
  const waves = svg(
    "pattern",
    { id: "waves", width: 16, height: 8, patternUnits: "userSpaceOnUse" },
    svg("path", { d: "M0 4Q4 0 8 4T16 4" }),
  );
  return svg(
    "svg",
    {
      class: near.length ? "map near" : "map",
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: "group",
      "aria-label": say("map.title"),
    },
    svg("defs", null, waves),
    roads(district, view, width, height),
    district.sites.map((site) => place(site, told.get(site.id), view, () => on.site(site.id))),
    // Quiet devices step back as the view widens; what is in alarm keeps its size and lies on top.
    [...devices]
      .sort((a, b) => (a.state !== "ok") - (b.state !== "ok"))
      .map((device) => {
        const size = device.state === "ok" ? Math.min(1, Math.max(0.6, view.scale * 2.9)) : 1;
        const [x, y] = view.at([device.lon, device.lat]);
        const label = `${device.id}, ${word("kind", device.kind)}, ${say(`devices.${device.state}`)}${device.silence ? `, ${staleText(device.silence)}` : ""}`;
        return pressable(
          {
            class: device.id === selectedDevice ? "device selected" : "device",
            transform: `translate(${x.toFixed(1)} ${y.toFixed(1)}) scale(${size.toFixed(2)})`,
            "aria-label": label,
            "data-focus": `map-${device.id}`,
            "data-device": device.id,
          },
          () => on.device(device.id),
          svg("title", null, label),
          svg("circle", { class: "touch", r: 11 }),
          symbol(device),
        );
      }),
    scaleBar(view.scale, height),
  );
}
