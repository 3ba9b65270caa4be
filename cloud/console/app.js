// The duty desk: reads the district once, then re-reads what the event stream says has changed.

import { askWhy, roleOf } from "./actions.js";
import { call, coalesced, follow, list, Refusal } from "./api.js";
import { demoOffer, demoPanel, nameTargets } from "./demo.js";
import { showDetail } from "./detail.js";
import { deviceRow, sortedDevices } from "./devices.js";
import { byId, keyed } from "./dom.js";
import { alertRow, ENDED, heldEntry, nowOf, orderEntry, runClocks, sortedOrders, stands, titleOf } from "./entries.js";
import { balanceLine, clockFace } from "./header.js";
import { drawMap } from "./map.js";
import {
  cityNow,
  currentLanguage,
  loadWords,
  pick,
  say,
  setClock,
  switchLanguage,
  timeOfDay,
  whyText,
} from "./text.js";

const PAUSE = 300; // ms between two re-reads: a burst of events is answered a few times a second at most
const HEARTBEAT = 5000; // ms: a gateway that falls silent sends no event, so the balance is also looked at unasked
const READS = {
  clock: async () => setClock(await call("clock")),
  district: async () => (seen.district = await call("district")),
  devices: async () => (seen.devices = await list("devices")),
  alerts: async () => (seen.alerts = await list("alerts")),
  held: async () => (seen.held = await list("held-back")),
  orders: async () => (seen.orders = await list("work-orders")),
  balance: async () => (seen.balance = await call("balance")),
  selected: readSelected,
  demo: async () => offer && (offer = (await demoOffer()) ?? offer), // a button's target changes
};
const CONCERNS = {
  alert: ["alerts", "held", "devices", "selected"],
  work_order: ["orders", "held", "alerts", "devices", "selected"],
  balance: ["balance"],
  device: ["devices"],
};

const seen = {
  district: null,
  devices: [],
  alerts: [],
  held: [],
  orders: [],
  balance: null,
  evidence: null,
  trail: null,
};
let offer = null;
const chosen = { order: null, device: null };
let link = "wait";
let streaming = false;
let lostAt = 0;

// --- reading --------------------------------------------------------------------------------------------------------

async function readSelected() {
  const id = chosen.order;
  if (!id) return;
  const path = `work-orders/${encodeURIComponent(id)}`;
  const [trail, evidence] = await Promise.all([call(`${path}/trail`), call(`${path}/evidence`)]);
  if (chosen.order === id) Object.assign(seen, { trail, evidence });
}

const read = coalesced(async (names) => {
  const answered = await Promise.all(
    [...names].map(async (name) => {
      try {
        await READS[name]();
      } catch (error) {
        if (error instanceof Refusal && error.status < 500) return true; // asking again would not help
        setTimeout(() => read(name), 2000);
        return false;
      }
      return true;
    }),
  );
  if (answered.includes(false)) setLink("lost");
  else if (streaming) setLink("live");
  show();
}, PAUSE);

const readAll = () => read(...Object.keys(READS));

function setLink(state) {
  if (state === "lost" && link !== "lost") lostAt = cityNow();
  link = state;
  const words = say(`link.${state}`, { at: timeOfDay(lostAt) });
  const line = byId("link");
  line.className = `link ${state}`;
  if (line.textContent !== words) line.textContent = words;
}

// --- showing --------------------------------------------------------------------------------------------------------

const siteName = (id) => pick(seen.district?.sites.find((site) => site.id === id)?.name) || id;
const placeName = (id) => pick(seen.district?.gateways.find((gateway) => gateway.id === id)?.name) || siteName(id);
const context = () => currentLanguage();

/** `{since}` while a gateway is silent: what its devices say is then the last that is known. */
function silenceOf(id) {
  const gateway = seen.balance?.gateways.find((one) => one.id === id);
  return gateway?.state === "silent" ? { since: gateway.last_seen_at } : null;
}

const withNow = (order) => ({ ...order, now: nowOf(order, seen.alerts, silenceOf) });
const withSilence = (device) => ({ ...device, silence: silenceOf(device.gateway) });

function showColumns() {
  const orders = sortedOrders(seen.orders).map(withNow);
  const open = orders.filter((order) => !ENDED.has(order.state));
  const ended = orders.filter((order) => ENDED.has(order.state));
  const build = (order) => orderEntry(order, { siteName, selected: order.id === chosen.order }, selectOrder);
  const held = seen.held.filter((alert) => alert.decision?.verdict !== "dispatched");
  const by = (entry) => entry.id;
  keyed(byId("orders"), open, by, build, context() + chosen.order);
  keyed(byId("ended"), ended, by, build, context() + chosen.order);
  keyed(byId("held-list"), held, by, (alert) => heldEntry(alert, { siteName }, askDispatch), context());
  keyed(byId("alerts"), seen.alerts, by, (alert) => alertRow(alert, selectOrder), context());
  byId("ended-title").textContent = say("column.done", { n: ended.length });
  byId("ended-title").hidden = ended.length === 0;
  for (const [name, entries] of [
    ["orders", open],
    ["held", held],
    ["alerts", seen.alerts],
  ])
    byId(`${name}-none`).hidden = entries.length > 0;
  for (const [name, entries] of [
    ["dispatched", open],
    ["held", held],
    ["alerts", seen.alerts],
    ["devices", seen.devices],
  ])
    byId(`${name}-count`).textContent = entries.length;
}

function showDevices() {
  const build = (device) => deviceRow(device, { selected: device.id === chosen.device, siteName }, selectDevice);
  const devices = sortedDevices(seen.devices).map(withSilence);
  keyed(byId("devices"), devices, (device) => device.id, build, context() + chosen.device);
}

function showOrder() {
  const order = seen.orders.find((one) => one.id === chosen.order);
  const panels = { head: byId("order-head"), body: byId("order-body") };
  byId("lists").hidden = Boolean(order);
  byId("right").classList.toggle("in-hand", Boolean(order));
  panels.head.hidden = panels.body.hidden = !order;
  if (!order) return Object.values(panels).forEach((panel) => panel.replaceChildren());
  const { trail, evidence } = seen;
  const shown = { order: withNow(order), site: siteName(order.site), evidence, trail };
  showDetail(panels, shown, { close: () => selectOrder(null), send, context: context() });
}

/** What the map says of a site: water on it, how deep, whether that is news; a closure called for; in hand. */
function siteFacts(site) {
  const floods = seen.alerts.filter(
    (alert) => alert.site === site.id && alert.hazard === "flood" && stands(alert),
  );
  const silences = floods.map((alert) => silenceOf(alert.gateway));
  const silence = silences.every(Boolean) ? (silences[0] ?? null) : null; // one flood that is news makes it news
  const depths = seen.devices
    .filter((device) => device.site === site.id && device.kind === "level_sensor")
    .filter((device) => device.latest?.level?.quality === 0 && Boolean(silenceOf(device.gateway)) === Boolean(silence))
    .map((device) => device.latest.level.value);
  const orders = seen.orders.filter((order) => order.site === site.id);
  return {
    flooded: floods.length > 0,
    silence,
    depth: depths.length ? Math.max(...depths) : null,
    closed: orders.some((order) => order.closure && !order.closure.lifted_at),
    selected: orders.some((order) => order.id === chosen.order),
  };
}

function showMap() {
  if (!seen.district) return;
  const box = byId("map");
  const { clientWidth: width, clientHeight: height } = box;
  if (!width || !height) return;
  const facts = Object.fromEntries(seen.district.sites.map((site) => [site.id, siteFacts(site)]));
  const devices = seen.devices
    .map(withSilence)
    .map(({ id, kind, lon, lat, state, silence }) => ({ id, kind, lon, lat, state, silence }));
  const drawn = { district: seen.district, devices, selectedDevice: chosen.device, width, height, facts };
  const on = { site: selectSite, device: selectDevice };
  keyed(
    box,
    [drawn],
    () => "map",
    () => drawMap({ ...drawn, facts: (site) => facts[site.id] }, on),
    context(),
  );
}

function showHead() {
  byId("district").textContent = pick(seen.district?.name);
  document.title = `${pick(seen.district?.name)} ${say("page.title")} · Streetwarden`;
  keyed(
    byId("balance"),
    [seen.balance],
    () => "balance",
    () => balanceLine(seen.balance, seen.district),
    context() + Boolean(seen.district),
  );
}

function show() {
  showHead();
  showColumns();
  showDevices();
  showOrder();
  showMap();
  if (offer) nameTargets(byId("demo"), offer, placeName);
  tick();
}

/** What moves with the clock alone: the time, ages, time left. */
function tick() {
  byId("clock").replaceChildren(...clockFace().filter(Boolean));
  runClocks(document, seen.orders);
}

function showWords() {
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = say(node.dataset.say);
  showTheme();
  setLink(link);
  if (offer) byId("demo").replaceChildren(...demoPanel(offer, byId("dialog"), () => read("demo")));
  show();
}

// --- choosing and acting --------------------------------------------------------------------------------------------

function selectOrder(id) {
  Object.assign(chosen, { order: id === chosen.order ? null : id, device: null });
  Object.assign(seen, { trail: null, evidence: null });
  show();
  byId("order-body").scrollTop = 0;
  if (chosen.order) byId("order-head").scrollIntoView({ block: "nearest" }); // on a narrow screen it lies elsewhere
  if (chosen.order) read("orders", "selected");
}

function selectDevice(id) {
  Object.assign(chosen, { order: null, device: id === chosen.device ? null : id });
  show();
  byId("devices").querySelector(".selected")?.scrollIntoView({ block: "center" });
}

function selectSite(site) {
  const order = sortedOrders(seen.orders).find((one) => one.site === site && !ENDED.has(one.state));
  selectOrder(order?.id === chosen.order ? null : (order?.id ?? null));
}

function take(order) {
  seen.orders = [order, ...seen.orders.filter((one) => one.id !== order.id)];
  show();
}

async function send(action, fields) {
  const { id, version } = seen.orders.find((order) => order.id === chosen.order);
  const path = `work-orders/${encodeURIComponent(id)}`;
  const role = roleOf(action);
  try {
    take(await call(`${path}/actions`, { action, by: role, role, version, ...fields }));
  } catch (error) {
    if (error instanceof Refusal) take(await call(path)); // it may have moved on: show it as it is now
    throw error;
  } finally {
    read(...CONCERNS.work_order);
  }
}

function askDispatch(alert) {
  askWhy(byId("dialog"), titleOf(alert), whyText(alert.reason, alert.decision), async (why) => {
    const order = await call(`held-back/${encodeURIComponent(alert.id)}/dispatch`, { by: "duty_officer", why });
    read(...CONCERNS.work_order);
    take(order);
    if (chosen.order !== order.id) selectOrder(order.id);
  });
}

// --- light and dark -------------------------------------------------------------------------------------------------

const root = document.documentElement;
const isDark = () =>
  root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
const showTheme = () => (byId("theme").textContent = say(isDark() ? "page.theme.light" : "page.theme.dark"));

byId("theme").onclick = () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  localStorage.setItem("streetwarden.theme", root.dataset.theme);
  showTheme();
};

// --- start ----------------------------------------------------------------------------------------------------------

const keptTheme = localStorage.getItem("streetwarden.theme");
if (keptTheme) root.dataset.theme = keptTheme;
byId("language").onclick = () => {
  switchLanguage();
  showWords();
};
new ResizeObserver(show).observe(byId("map"));

await loadWords();
showWords();
readAll();
follow({
  told: (kind) => read(...CONCERNS[kind]),
  opened: () => {
    streaming = true;
    readAll(); // what happened while it was broken is read, whether or not the stream tells it again
  },
  lost: () => {
    streaming = false;
    setLink("lost");
  },
});
setInterval(tick, 250);
setInterval(() => read("balance"), HEARTBEAT);
setInterval(() => read("clock", "devices", "demo"), 4 * HEARTBEAT);
offer = await demoOffer().catch(() => null);
if (offer) {
  byId("demo").hidden = false;
  showWords();
}
