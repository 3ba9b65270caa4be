// The device list: state, the newest reading, and how often each one cried wolf.

import { h, svg } from "./dom.js";
import { symbol } from "./map.js";
import { columnName, percent, quantity, say, staleText, word } from "./text.js";

const FROM = 5; // below this many outcomes a percentage would pretend to know
const FIRST = { fault: 0, alert: 1, ok: 2 };
/** The reading that stands for a kind, in the one line a row has. */
const TELLING = {
  level_sensor: ["level"],
  rain_gauge: ["rain_total"],
  manhole_monitor: ["tilt_change", "level"],
  manhole_cover: ["tilt_change", "battery"],
  lamp_controller: ["power", "dim_level"],
  camera: ["standing_water"],
};

export const sortedDevices = (devices) =>
  [...devices].sort((a, b) => FIRST[a.state] - FIRST[b.state] || a.id.localeCompare(b.id));

export function misfireText({ misfire_rate: { n, mean, low, high }, outcomes: told }) {
  if (!n) return say("devices.none_yet");
  if (n < FROM || mean === null) return say("devices.few", { n, misfires: told?.misfire ?? 0, from: FROM });
  return say("devices.rate", { n, mean: percent(mean), low: percent(low), high: percent(high) });
}

const reading = (metric, { value, unit, quality }) =>
  `${columnName(metric)} ${quantity(value, unit)}${quality >= 16 ? " ×" : quality ? " ?" : ""}`;

function outcomes(device) {
  const told = Object.entries(device.outcomes ?? {}).filter(([, n]) => n);
  return told.map(([outcome, n]) => `${word("outcome", outcome)} ${n}`).join(" · ");
}

export function deviceRow(device, { selected, siteName }, select) {
  const telling = (TELLING[device.kind] ?? []).filter((metric) => device.latest?.[metric]);
  const all = Object.entries(device.latest ?? {}).map(([metric, value]) => reading(metric, value));
  return h(
    "li",
    { class: `row device-row ${device.state}${device.silence ? " stale" : ""}${selected ? " selected" : ""}`, "data-id": device.id },
    h(
      "button",
      {
        type: "button",
        class: "open",
        "data-focus": `device-${device.id}`,
        "aria-expanded": String(selected),
        onclick: () => select(device.id),
      },
      svg(
        "svg",
        { class: "icon", viewBox: "-12 -12 24 24", width: 22, height: 22, "aria-hidden": "true" },
        symbol(device),
      ),
      h("span", { class: "row-title" }, device.id, h("span", { class: "muted" }, ` ${word("kind", device.kind)}`)),
      h("span", { class: `state ${device.state}` }, say(`devices.${device.state}`)),
      h(
        "span",
        { class: "readings" },
        telling.map((metric) => reading(metric, device.latest[metric])).join(" · ") || say("devices.never"),
        device.silence && ` · ${staleText(device.silence)}`,
      ),
      h("span", { class: "misfire muted" }, misfireText(device)),
    ),
    selected &&
      h(
        "p",
        { class: "muted more" },
        [siteName(device.site), say("order.asset", { asset: device.asset }), ...all, outcomes(device)]
          .filter(Boolean)
          .join(" · "),
      ),
  );
}
