// Words, numbers and times as the reader sees them. Codes come from the API, words from locale.json only.

const ZONE = "Asia/Shanghai"; // the district's own zone: the API tells instants, the screen tells the street's time
const KEPT = "streetwarden.language";

let words = {};
let language = (localStorage.getItem(KEPT) ?? navigator.language).startsWith("zh") ? "zh" : "en";
let clock = { city: Date.now(), at: Date.now(), speed: 1 };

export async function loadWords() {
  words = await (await fetch(new URL("locale.json", import.meta.url))).json();
  document.documentElement.lang = currentLanguage();
}

export const currentLanguage = () => (language === "zh" ? "zh-CN" : "en");

export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem(KEPT, language);
  document.documentElement.lang = currentLanguage();
}

export const knows = (key) => key in words;

/** The words of a key; `{name}` is filled in, and a `[part]` falls away when one of its values is missing. */
export function say(key, values = {}) {
  const text = words[key]?.[language] ?? key;
  const has = (part) => [...part.matchAll(/\{(\w+)\}/g)].every(([, name]) => (values[name] ?? "") !== "");
  return text
    .replace(/\[([^\]]*)\]/g, (_, part) => (has(part) ? part : ""))
    .replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "–");
}

/** The word of a code; a code without a word is shown as it is. */
export const word = (kind, code) => (knows(`${kind}.${code}`) ? say(`${kind}.${code}`) : String(code ?? ""));

/** One of the two texts of an API value `{zh, en}`; a bare string stands for both. */
export const pick = (text) => (typeof text === "object" ? (text?.[language] ?? "") : (text ?? ""));

export const listed = (parts) => parts.filter(Boolean).join(say("text.and"));
export const sentence = (...parts) => parts.filter(Boolean).join(say("text.then"));

// --- time -----------------------------------------------------------------------------------------------------------

export function setClock({ now, speed }) {
  clock = { city: Date.parse(now), at: Date.now(), speed };
}

/** City time in milliseconds since 1970, running at the stated speed between two answers of the server. */
export const cityNow = () => clock.city + (Date.now() - clock.at) * clock.speed;
export const citySpeed = () => clock.speed;

const shown = (options) => (at) =>
  new Intl.DateTimeFormat(currentLanguage(), { timeZone: ZONE, hourCycle: "h23", ...options }).format(new Date(at));
export const timeOfDay = shown({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const hourMinute = shown({ hour: "2-digit", minute: "2-digit" });
export const dayOf = shown({ year: "numeric", month: "short", day: "numeric", weekday: "short" });

/** A length of time in words; `finer` adds decimals to its seconds or minutes. */
export function duration(seconds, finer = 0) {
  const s = Math.max(0, seconds);
  if (s < 120) return say("unit.s", { n: number(s, (s < 10 ? 1 : 0) + finer) });
  if (s < 7200) return say("unit.min", { n: number(s / 60, (s % 60 && s < 600 ? 1 : 0) + finer) });
  if (s > 172800) return say("unit.d", { n: number(s / 86400, 1) });
  const minutes = Math.round((s % 3600) / 60) % 60;
  const hours = Math.round((s - minutes * 60) / 3600);
  return minutes ? say("unit.h_min", { h: hours, min: minutes }) : say("unit.h", { n: hours });
}

export function age(at) {
  const seconds = (cityNow() - Date.parse(at)) / 1000;
  const whole = seconds < 120 ? seconds : seconds - (seconds % 60);
  return seconds < 5 ? say("unit.now") : say("unit.ago", { age: duration(whole) });
}

/** What is said of a device whose gateway is silent (`{since}`): its state and readings are the last ones known. */
export const staleText = ({ since }) => say("devices.stale", { at: since && hourMinute(Date.parse(since)) });

/** A countdown, `h:mm:ss`. */
export function countdown(seconds) {
  const s = Math.floor(Math.abs(seconds));
  const two = (n) => String(n).padStart(2, "0");
  return `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
}

// --- numbers --------------------------------------------------------------------------------------------------------

export const number = (value, most = 2, least = 0) =>
  new Intl.NumberFormat(currentLanguage(), { maximumFractionDigits: most, minimumFractionDigits: least }).format(value);
export const percent = (share) => `${number(share * 100, 0)} %`;

const DIGITS = {
  m: [2, 2],
  "m/h": [2, 2],
  deg: [1, 0],
  mm: [1, 0],
  "mm/h": [0, 0],
  ppm: [1, 0],
  "%": [0, 0],
  "%LEL": [1, 0],
};

/** A value with its unit (UCUM/SenML symbol), with `finer` more decimals than usual; seconds become a duration. */
export function quantity(value, unit = "", finer = 0) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (unit === "s") return duration(value, finer);
  const [most, least] = DIGITS[unit] ?? [2, 0];
  const digits = number(value, most + finer, least);
  if (unit === "deg") return `${digits}°`;
  return unit === "" || unit === "1" || unit === "count" ? digits : `${digits} ${unit}`;
}

// --- reasons --------------------------------------------------------------------------------------------------------

function parsed(column) {
  const match = /^(\w+)\((\w+)(?:,\s*(\d+(?:\.\d+)?)\s*(s|min|h|d))?\)$/.exec(column);
  if (!match) return { detector: "", metric: column, name: word("metric", column) };
  const [, detector, metric, n, unit] = match;
  const key = knows(`detector.${detector}.${metric}`) ? `detector.${detector}.${metric}` : `detector.${detector}`;
  const values = { metric: word("metric", metric), window: n && say(`unit.${unit}`, { n }) };
  return { detector, metric, name: knows(key) ? say(key, values) : column };
}

/** The name of a column such as `level` or `rate(level, 5min)`. */
export const columnName = (column) => parsed(column).name;

/** A value as a reason tells it: with as many decimals as it takes to differ from its limit, as the value does. */
function besideLimit(value, limit, unit) {
  const same = (text) => limit !== undefined && value !== limit && text === quantity(limit, unit);
  return [0, 1, 2, 3].map((finer) => quantity(value, unit, finer)).find((text) => !same(text)) ?? quantity(value, unit);
}

function spoken(kind, code, reason, more) {
  const { detector, metric, name } = parsed(reason?.column ?? "");
  const unit = detector === "unchanged" ? "s" : (reason?.unit ?? "");
  const values = { column: name, metric: word("metric", metric) };
  const numbers = { ...reason?.numbers, ...more };
  for (const [key, value] of Object.entries(numbers)) {
    if (typeof value !== "number") values[key] = value;
    else if (["value", "limit", "extreme"].includes(key)) values[key] = besideLimit(value, numbers.limit, unit);
    else if (key.endsWith("_s")) values[key] = value > 0 ? duration(value) : "";
    else values[key] = quantity(value, key.endsWith("_m") ? "m" : "");
  }
  values.worst = values.extreme ?? values.value; // of a near miss, how far it went rather than where it ended
  const key = [`${kind}.${code}.${detector || metric}`, `${kind}.${code}`].find(knows);
  return key ? say(key, values) : code;
}

/** Why an alert stands, in words with its numbers. */
export const reasonText = (reason) => (reason?.code ? spoken("reason", reason.code, reason, {}) : "");

/** What was decided about it and why. */
export function decisionText(decision, reason) {
  if (!decision?.code) return "";
  const by = listed(decision.by ?? []);
  const deadline = decision.deadline ? hourMinute(Date.parse(decision.deadline)) : "";
  const within = decision.numbers?.within_m;
  const more = { ...decision.numbers, by, deadline, ...(within && { within_m: `${number(within, 0)} m` }) };
  return spoken("decision", decision.code, reason, more);
}

/** Reason and decision as one sentence; a near miss says both at once. */
export const whyText = (reason, decision) =>
  decision?.code === "lapsed"
    ? decisionText(decision, reason)
    : sentence(reasonText(reason), decisionText(decision, reason));
