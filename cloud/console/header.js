// The head of the page: whose district, what time, is the page live, and does the ledger close.

import { h } from "./dom.js";
import { age, cityNow, citySpeed, dayOf, hourMinute, number, pick, say, timeOfDay } from "./text.js";

const total = (dropped) =>
  typeof dropped === "number" ? dropped : Object.values(dropped ?? {}).reduce((sum, n) => sum + n, 0);

export function clockFace() {
  const now = cityNow();
  const speed = citySpeed();
  return [
    h("time", { class: "hour", datetime: new Date(now).toISOString() }, timeOfDay(now)),
    h("span", { class: "muted" }, dayOf(now)),
    speed === 1 ? null : h("span", { class: "tag" }, say("clock.speed", { speed: number(speed) })),
  ];
}

/** The state of the balance as one word: `green`, `amber` or `waiting`, with the sentence that says why. */
export function verdict(balance, nameOf) {
  if (!balance?.gateways.length) return { colour: "waiting", text: say("balance.wait") };
  const troubled = balance.gateways.filter((gateway) => gateway.state !== "online");
  if (troubled.length) {
    const told = troubled.map((gateway) =>
      say(`balance.${gateway.state}`, {
        gateway: nameOf(gateway.id),
        in_flight: number(gateway.in_flight ?? 0, 0),
        at: gateway.last_seen_at && hourMinute(Date.parse(gateway.last_seen_at)),
      }),
    );
    return { colour: "amber", text: told.join("; ") };
  }
  const missing = number(balance.total.missing, 0);
  return balance.closes
    ? { colour: "green", text: say("balance.closes", { missing }) }
    : { colour: "amber", text: say("balance.open", { missing }) };
}

/** "acquired = stored + filtered + dropped + in flight", each with its number, and what follows from it. */
export function balanceLine(balance, district) {
  const nameOf = (id) => pick(district?.gateways.find((gateway) => gateway.id === id)?.name) || id;
  const { colour, text } = verdict(balance, nameOf);
  const term = (name, value) =>
    h(
      "span",
      { class: "term" },
      h("span", { class: "muted" }, say(`balance.${name}`)),
      " ",
      h("b", null, typeof value === "string" ? value : number(value ?? 0, 0)),
    );
  const sign = (mark) => h("span", { class: "sign" }, mark);
  const sum = balance?.total;
  // A silent gateway goes on filling its outbox, and nobody here can see it.
  const inFlight = balance?.gateways.some((gateway) => gateway.state === "silent") ? "?" : sum?.in_flight;
  return h(
    "div",
    { class: `balance ${colour}`, "data-colour": colour, "data-key": "balance" },
    h(
      "strong",
      { class: "verdict" },
      h("span", { "aria-hidden": "true" }, colour === "green" ? "✓ " : colour === "amber" ? "⚠ " : "… "),
      text,
    ),
    sum &&
      h(
        "span",
        { class: "equation", "aria-label": say("balance.name") },
        [
          term("acquired", sum.acquired),
          sign("="),
          term("committed", sum.committed),
          sign("+"),
          term("filtered", sum.filtered),
        ],
        [sign("+"), term("dropped", total(sum.dropped)), sign("+"), term("in_flight", inFlight)],
      ),
    h(
      "span",
      { class: "gateways" },
      (balance?.gateways ?? []).map((gateway) =>
        h(
          "span",
          { class: `gateway ${gateway.state}` },
          `${nameOf(gateway.id)} `,
          h("b", null, say(`gateway.${gateway.state}`)),
          gateway.state !== "online" &&
            gateway.last_seen_at && [
              " ",
              h(
                "time",
                { datetime: gateway.last_seen_at, "data-age": gateway.last_seen_at },
                age(gateway.last_seen_at),
              ),
            ],
        ),
      ),
    ),
  );
}
