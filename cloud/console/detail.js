// One work order in full: where it stands, why it exists, the evidence, what to do, and everything done so far.

import { actionButtons } from "./actions.js";
import { pictures } from "./chart.js";
import { chip, clockOf, ENDED, nowText, titleOf } from "./entries.js";
import { h, keyed } from "./dom.js";
import { decisionText, duration, hourMinute, knows, pick, reasonText, say, timeOfDay, word } from "./text.js";

const LIFE = ["registered", "dispatched", "accepted", "arrived", "handled", "feedback", "verified", "closed"];
const at = (iso) => hourMinute(Date.parse(iso));

function head({ order, site }, close) {
  return h(
    "header",
    { class: `order-head ${order.severity}` },
    h(
      "div",
      { class: "line" },
      chip(order.severity),
      h("span", { class: "number" }, order.number),
      order.case === "device" && h("span", { class: "tag" }, say("case.device")),
      h(
        "button",
        {
          type: "button",
          class: "quiet close",
          "data-focus": "close-detail",
          onclick: close,
          "aria-label": say("page.close"),
        },
        "✕",
      ),
    ),
    h("h2", { id: "detail-title" }, titleOf(order)),
    h("p", { class: "muted" }, `${site} · ${order.device}`),
  );
}

function life({ order }) {
  const aside = !LIFE.includes(order.state);
  const here = aside ? LIFE.indexOf("dispatched") : LIFE.indexOf(order.state);
  const step = (state, n) =>
    h(
      "li",
      {
        class: n < here ? "past" : n === here && !aside ? "here" : "",
        "aria-current": n === here && !aside ? "step" : null,
      },
      say(`state.${state}`),
    );
  return h(
    "ol",
    { class: "life", "aria-label": say("order.life") },
    LIFE.map(step),
    aside && h("li", { class: "here aside", "aria-current": "step" }, say(`state.${order.state}`)),
  );
}

function timing({ order }) {
  const limit = say("order.due_at", { at: at(order.due_at), limit: duration(order.clock.limit_s) });
  if (ENDED.has(order.state)) return h("div", { class: "timing" }, h("p", { class: "muted" }, limit));
  const { state, text } = clockOf(order);
  return h(
    "div",
    { class: "timing" },
    h("p", { class: `big clock ${state}`, "data-clock": order.id, role: "timer" }, text),
    h("p", { class: "muted" }, limit),
  );
}

const fact = (key, ...content) =>
  content.flat().some(Boolean) ? [h("dt", null, say(`order.${key}`)), h("dd", null, content)] : [];

function why(order) {
  const reason = order.dispatch_reason;
  if (!reason || !knows(`dispatch.${reason.code}`)) return reason?.code;
  return say(`dispatch.${reason.code}`, {
    function: word("function", reason.function),
    territory: word("territory", reason.territory),
  });
}

function facts({ order }) {
  const { closure } = order;
  const announced = (order.announcements ?? []).map((one) =>
    h("li", null, h("time", { datetime: one.at }, at(one.at)), " ", chip(one.severity), " ", pick(one.level_title)),
  );
  return h(
    "dl",
    { class: "order-facts" },
    fact("reason", reasonText(order.reason)),
    fact("now", order.now && h("strong", { class: order.now.stands ? "now" : "now over" }, nowText(order.now))),
    fact("confirmation", decisionText(order.confirmation, order.reason)),
    fact("unit", h("strong", null, pick(order.unit.name)), h("span", { class: "muted block" }, why(order))),
    fact("announcements", announced.length > 0 && h("ul", { class: "plain" }, announced)),
    fact(
      "closure",
      closure &&
        h(
          "strong",
          { class: closure.lifted_at ? "" : "shut" },
          closure.lifted_at
            ? say("order.closure.lifted", { at: at(closure.closed_at), lifted: at(closure.lifted_at) })
            : say("order.closure.closed", { at: at(closure.closed_at) }),
        ),
    ),
    fact("finding", order.finding && word("finding", order.finding)),
    fact(
      "outcome",
      order.outcome && [word("outcome", order.outcome), order.cause && ` · ${word("cause", order.cause)}`],
    ),
    order.sensor_abnormal && h("p", { class: "warning" }, `⚠ ${say("order.sensor_abnormal")}`),
  );
}

/** How wide the evidence may be drawn in a panel: its share of the two columns, or all of a narrow one. */
const wide = (panel) => Math.round(panel.clientWidth > 620 ? panel.clientWidth * 0.56 : panel.clientWidth - 40);

function evidence({ order, evidence: shown, width }) {
  const severities = new Map((order.announcements ?? []).map((one) => [one.level, one.severity]));
  const drawn = shown
    ? pictures(shown, order, { width, pick, severityOf: (level) => severities.get(level) ?? "" })
    : [];
  return h(
    "section",
    { class: "evidence" },
    h("h3", null, say("order.evidence")),
    drawn.length
      ? drawn.map(({ title, drawing, notes }) =>
          h("figure", null, h("figcaption", { class: "muted" }, [title, ...notes].join("   ")), drawing),
        )
      : h("p", { class: "muted" }, say("order.evidence.none")),
  );
}

function runbook({ order }) {
  const told = order.runbook;
  if (!told) return h("section");
  const row = (key) => [h("dt", null, say(`order.runbook.${key}`)), h("dd", null, pick(told[key]))];
  return h(
    "section",
    { class: "runbook" },
    h("h3", null, say("order.runbook")),
    h("dl", null, ["response", "cause", "consequence", "source"].map(row)),
  );
}

/** What an entry of the trail adds to its action, as far as a person wants it here; all of it is in the export. */
const detailText = (detail) =>
  ["severity", "device", "finding", "outcome", "cause"]
    .map((key) => detail?.[key] && word(key, detail[key]))
    .filter(Boolean)
    .join(" · ");

function trail({ trail: told }) {
  const mark = told && (told.valid ? ["good", "order.trail.valid"] : ["shut", "order.trail.invalid"]);
  return h(
    "section",
    { class: "trail" },
    h("h3", null, say("order.trail"), " ", mark && h("span", { class: `mark-valid ${mark[0]}` }, say(mark[1]))),
    h(
      "ol",
      { class: "plain" },
      (told?.entries ?? []).map((entry) =>
        h(
          "li",
          null,
          h("time", { datetime: entry.at }, timeOfDay(Date.parse(entry.at))),
          h("strong", null, word("trail", entry.action)),
          h("span", null, [entry.why, detailText(entry.detail)].filter(Boolean).join(" · ")),
          h("span", { class: "muted" }, word("role", entry.who)),
          h("code", { title: entry.hash }, entry.hash.slice(0, 8)),
        ),
      ),
    ),
  );
}

/**
 * Show an order in two panels, section by section, so that a form being filled in stays while the rest moves on.
 * `shown` is `{order, site (its name), evidence, trail}`.
 */
export function showDetail(panels, { order, site, evidence: told, trail: done }, { close, send, context }) {
  const { actions, announcements, clock, confirmation, runbook: steps, version, ...rest } = order;
  const { id, state, due_at, opened_at } = order;
  const show = (panel, sections) =>
    keyed(
      panel,
      sections,
      (section) => section.key,
      (section) => section.build(section.data),
      context + id,
    );
  show(panels.head, [
    { key: "head", data: { order: rest, site }, build: (data) => head(data, close) },
    { key: "timing", data: { order: { id, state, due_at, clock } }, build: timing },
    { key: "actions", data: { order: { id, actions } }, build: (data) => actionButtons(data.order, send) },
  ]);
  show(panels.body, [
    { key: "life", data: { order: { state } }, build: life },
    { key: "facts", data: { order: { ...rest, announcements, confirmation } }, build: facts },
    {
      key: "evidence",
      data: { order: { id, device: order.device, opened_at, announcements }, evidence: told, width: wide(panels.body) },
      build: evidence,
    },
    { key: "runbook", data: { order: { runbook: steps } }, build: runbook },
    { key: "trail", data: { trail: done }, build: trail },
  ]);
}
