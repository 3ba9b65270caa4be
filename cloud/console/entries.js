// The two columns: what was dispatched and what was held back, each entry with its reason in words and numbers.

import { h } from "./dom.js";
import { age, cityNow, countdown, hourMinute, pick, say, sentence, whyText, word } from "./text.js";

const RANK = { I: 4, II: 3, III: 2, IV: 1, info: 0 };
export const ENDED = new Set(["closed", "cancelled"]);
const SOON = 0.25; // the last quarter of the limit is "due soon"

export const chip = (severity) => h("span", { class: `chip ${severity}` }, say(`severity.${severity}`));
export const ago = (at) => h("time", { class: "age", datetime: at, "data-age": at }, age(at));
export const titleOf = (entry) => [pick(entry.title), pick(entry.level_title)].filter(Boolean).join(" · ");

const HANDLED = new Set(["handled", "feedback", "verified", "closed", "cancelled"]); // the case clock stands still

/** Where an order's clock stands: the class and words, running with the city's clock until the crew has handled it. */
export function clockOf(order) {
  const stopped = HANDLED.has(order.state);
  const left = stopped ? order.clock.remaining_s : (Date.parse(order.due_at) - cityNow()) / 1000;
  const state = left < 0 ? "overdue" : stopped || left > order.clock.limit_s * SOON ? "left" : "due_soon";
  return { state, text: `${say(`order.${state}`)} ${countdown(left)}${stopped && state === "left" ? " ✓" : ""}` };
}

/** Move what the clock alone moves below `root`: ages, and the time left of `orders`. */
export function runClocks(root, orders) {
  const known = new Map(orders.map((order) => [order.id, order]));
  for (const node of root.querySelectorAll("[data-age]")) node.textContent = age(node.dataset.age);
  for (const node of root.querySelectorAll("[data-clock]")) {
    if (!known.has(node.dataset.clock)) continue;
    const { state, text } = clockOf(known.get(node.dataset.clock));
    node.textContent = text;
    node.classList.remove("left", "due_soon", "overdue");
    node.classList.add(state);
  }
}

export const clockTag = (order) => {
  const { state, text } = clockOf(order);
  return h("span", { class: `clock ${state}`, "data-clock": order.id }, text);
};

const STANDING = new Set(["raised", "updated"]);
export const stands = (alert) => STANDING.has(alert.phase);
const newest = (times) => times.filter(Boolean).sort((a, b) => Date.parse(a) - Date.parse(b)).at(-1);

/**
 * What is true now of an order: the gravest of its alerts that stand, or when the last was over; and when others joined.
 * Null when one of its alerts is not among `alerts`. `silenceOf` tells a silent gateway's `{since}`.
 */
export function nowOf(order, alerts, silenceOf) {
  const mine = alerts.filter((alert) => alert.work_order === order.id || order.alerts.includes(alert.id));
  const known = new Set(mine.map((alert) => alert.id));
  if (!mine.length || !order.alerts.every((id) => known.has(id))) return null;
  const [gravest] = mine.filter(stands).sort((a, b) => (RANK[b.severity] ?? 0) - (RANK[a.severity] ?? 0));
  const later = mine.filter((alert) => alert.decision?.code === "joined_incident").map((a) => a.decision.decided_at);
  return {
    stands: Boolean(gravest),
    level_title: gravest?.level_title,
    silence: gravest && silenceOf(gravest.gateway),
    cleared_at: gravest ? null : newest(mine.map((alert) => alert.cleared_at ?? alert.updated_at)),
    joined_at: newest(later.filter((at) => Date.parse(at) > Date.parse(order.opened_at))),
  };
}

const clockTime = (at) => at && hourMinute(Date.parse(at));

export function nowText(now) {
  if (!now) return "";
  const level = pick(now.level_title) || say("order.now.alarm");
  const state = now.silence
    ? say("order.now.stale", { level, at: clockTime(now.silence.since) })
    : now.stands
      ? say("order.now.level", { level })
      : say("order.now.cleared", { at: clockTime(now.cleared_at) });
  return sentence(state, now.joined_at && say("order.now.joined", { at: clockTime(now.joined_at) }));
}

const entry = (classes, id, ...parts) => h("li", { class: `entry ${classes}`, "data-id": id }, ...parts);

/** Open orders first, the gravest on top; then those that came to an end. */
export function sortedOrders(orders) {
  const ended = (order) => Number(ENDED.has(order.state));
  return [...orders].sort(
    (a, b) =>
      ended(a) - ended(b) ||
      (ended(a) ? 0 : (RANK[b.severity] ?? 0) - (RANK[a.severity] ?? 0)) ||
      Date.parse(b.opened_at) - Date.parse(a.opened_at),
  );
}

export function orderEntry(order, { siteName, selected }, select) {
  const ended = ENDED.has(order.state);
  return entry(
    order.severity + (ended ? " ended" : "") + (selected ? " selected" : ""),
    order.id,
    h(
      "div",
      { class: "line meta" },
      chip(order.severity),
      h("span", { class: "number" }, order.number),
      ago(order.opened_at),
    ),
    h(
      "h3",
      null,
      h(
        "button",
        {
          type: "button",
          class: "open",
          "data-focus": order.id,
          "aria-pressed": String(selected),
          onclick: () => select(order.id),
        },
        titleOf(order),
      ),
    ),
    h("p", { class: "why" }, whyText(order.reason, order.confirmation)),
    order.now && h("p", { class: order.now.stands ? "now" : "now over" }, nowText(order.now)),
    h(
      "p",
      { class: "muted" },
      [siteName(order.site), order.device, pick(order.unit?.name)].filter(Boolean).join(" · "),
    ),
    h(
      "div",
      { class: "line" },
      h("span", { class: "tag" }, say(`state.${order.state}`)),
      order.case === "device" && h("span", { class: "tag" }, say("case.device")),
      order.closure && !order.closure.lifted_at && h("span", { class: "tag shut" }, say("map.closed")),
      ended ? order.outcome && h("span", { class: "tag" }, word("outcome", order.outcome)) : clockTag(order),
    ),
  );
}

export function heldEntry(alert, { siteName }, dispatch) {
  const waiting = alert.decision?.verdict === "waiting";
  return entry(
    alert.severity,
    alert.id,
    h(
      "div",
      { class: "line meta" },
      chip(alert.severity),
      h("span", { class: "number" }, waiting ? say("decision.tag.waiting") : say(`phase.${alert.phase}`)),
      ago(alert.updated_at ?? alert.decided_at),
    ),
    h("h3", null, titleOf(alert)),
    h("p", { class: "why" }, whyText(alert.reason, alert.decision)),
    h("p", { class: "muted" }, [siteName(alert.site), alert.device].filter(Boolean).join(" · ")),
    !alert.work_order &&
      alert.severity !== "info" &&
      h(
        "div",
        { class: "line" },
        h(
          "button",
          { type: "button", class: "quiet", "data-focus": `dispatch-${alert.id}`, onclick: () => dispatch(alert) },
          say("held.dispatch"),
        ),
      ),
  );
}

export function alertRow(alert, select) {
  const text = [
    h("span", { class: "phase" }, say(`phase.${alert.phase}`)),
    h("span", { class: "row-title" }, titleOf(alert)),
    h(
      "span",
      { class: "muted" },
      [
        alert.device,
        hourMinute(Date.parse(alert.since)),
        alert.decision?.verdict === "waiting" && say("decision.tag.waiting"),
      ]
        .filter(Boolean)
        .join(" · "),
    ),
  ];
  const properties = { class: `row ${alert.severity} ${alert.phase}` };
  return alert.work_order
    ? h(
        "li",
        properties,
        h(
          "button",
          { type: "button", class: "open", "data-focus": `alert-${alert.id}`, onclick: () => select(alert.work_order) },
          text,
        ),
      )
    : h("li", properties, h("div", { class: "open" }, text));
}
