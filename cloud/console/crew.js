// The crew's page on a phone: the open orders, and one big button for the next thing to report.

import { call, Refusal } from "./api.js";
import { byId, h, keyed } from "./dom.js";
import { ago, chip, clockTag, runClocks, titleOf } from "./entries.js";
import { currentLanguage, loadWords, pick, reasonText, say, setClock, switchLanguage, word } from "./text.js";

const ORDERS = "/crew/api/work-orders";
const LOOK = 4000; // ms between two looks: a phone in a pocket is spared a standing connection
let orders = [];
let places = new Map();
let unread = false; // the last look failed: its message goes when one succeeds, a refused report's stays

/** The code's one-time token becomes a cookie, and leaves the address bar and the history. */
async function enter() {
  const address = new URL(location.href);
  const token = address.searchParams.get("token");
  if (!token) return;
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
  await call("/crew/session", { token });
}

const tell = (text) => (byId("told").textContent = text);

function explain(error) {
  if (error instanceof TypeError) return say("crew.offline");
  if (error instanceof Refusal && (error.status === 401 || error.status === 403)) return say("crew.expired");
  return say("page.refused", { why: error.message });
}

async function look() {
  try {
    const [page, clock] = await Promise.all([call(ORDERS), call("/crew/api/clock")]);
    orders = page.items;
    setClock(clock);
    if (unread) tell("");
    unread = false;
  } catch (error) {
    unread = true;
    tell(explain(error));
  }
  show();
}

async function report(order, action, more = {}) {
  tell("");
  try {
    await call(`${ORDERS}/${encodeURIComponent(order.id)}/actions`, {
      action,
      by: "crew",
      role: "crew",
      version: order.version,
      ...more,
    });
  } catch (error) {
    return tell(explain(error));
  }
  await look();
}

function steps(order) {
  const big = (key, act, kind = "primary") =>
    h("button", { type: "button", class: kind, "data-act": key, onclick: act }, say(key));
  if (order.actions.includes("accept")) return big("action.accept", () => report(order, "accept"));
  if (order.actions.includes("arrive")) return big("action.arrive", () => report(order, "arrive"));
  if (!order.actions.includes("handle")) return h("p", { class: "good" }, `✓ ${say("crew.sent")}`);
  const note = h("textarea", { rows: 2 });
  const handled = (finding) => () => report(order, "handle", { finding, why: note.value });
  return [
    h("label", { class: "note" }, say("crew.note"), note),
    big("crew.handled", handled("handled")),
    big("crew.nothing_there", handled("nothing_there"), "quiet"),
  ];
}

function card(order) {
  return h(
    "li",
    { class: `entry ${order.severity}`, "data-id": order.id },
    h(
      "div",
      { class: "line" },
      chip(order.severity),
      h("span", { class: "tag" }, word("state", order.state)),
      ago(order.opened_at),
    ),
    h("h2", null, titleOf(order)),
    h("p", null, h("strong", null, pick(places.get(order.site)) || order.site), ` · ${order.device}`),
    h("p", null, reasonText(order.reason)),
    h("p", { class: "muted" }, pick(order.runbook?.response)),
    h("div", { class: "line" }, h("span", { class: "number" }, order.number), clockTag(order)),
    h("div", { class: "actions" }, steps(order)),
  );
}

function show() {
  byId("title").textContent = document.title = say("crew.title");
  byId("language").textContent = say("page.language");
  const mine = orders.filter((order) =>
    ["dispatched", "accepted", "arrived", "handled", "feedback"].includes(order.state),
  );
  keyed(byId("orders"), mine, (order) => order.id, card, currentLanguage());
  runClocks(document, orders);
  byId("none").textContent = say("crew.none");
  byId("none").hidden = mine.length > 0;
}

byId("language").onclick = () => {
  switchLanguage();
  show();
};
await loadWords();
show();
try {
  await enter();
} catch (error) {
  tell(explain(error)); // an old code may still be covered by an earlier cookie: look all the same
}
try {
  places = new Map((await call("/crew/api/district")).sites.map((site) => [site.id, site.name]));
} catch (error) {
  if (!(error instanceof Refusal)) tell(explain(error)); // without names the ids of the places are shown
}
await look();
setInterval(() => document.hidden || look(), LOOK);
setInterval(() => runClocks(document, orders), 1000);
