// "Come and fool it": buttons that act on the simulated street. Only a demonstration offers them.

import { call, Refusal } from "./api.js";
import { h } from "./dom.js";
import { hourMinute, cityNow, pick, say } from "./text.js";

const orNothing = async (path) => {
  try {
    return await call(path);
  } catch (error) {
    if (error instanceof Refusal) return null; // no demonstration here
    throw error;
  }
};

export const demoOffer = () => orNothing("/demo/actions");

/** A drawing as an image, which runs no script whatever stands in it; one meant for a page lacks its namespace. */
function imageOf(drawing) {
  const whole = drawing.includes("xmlns=")
    ? drawing
    : drawing.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"');
  return `data:image/svg+xml,${encodeURIComponent(whole)}`;
}

async function showCrewCode(dialog) {
  const code = await call("/demo/crew");
  dialog.replaceChildren(
    h("h2", { id: "dialog-title" }, say("demo.crew")),
    h("p", null, say("demo.crew.hint")),
    h("img", { class: "code", alt: code.url, src: imageOf(code.qr_svg) }),
    h("p", { class: "muted break" }, code.url),
    h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, say("page.close")),
  );
  dialog.showModal();
}

/** Build the panel; `pressed()` is called after a press. What each button acts on is for `nameTargets`: it changes. */
export function demoPanel(offer, dialog, pressed) {
  const told = h("p", { class: "muted", role: "status" }, say("demo.hint"));
  async function start(action) {
    const title = pick(action.title);
    told.className = "told";
    try {
      const answer = await call(`/demo/actions/${encodeURIComponent(action.id)}`, {});
      const words = say(answer.started ? "demo.started" : "demo.not_started", { title });
      told.textContent = [hourMinute(cityNow()), words, pick(answer.note)].filter(Boolean).join(" · ");
    } catch (error) {
      told.textContent = say("page.refused", {
        why: error instanceof TypeError ? say("page.unreachable") : error.message,
      });
    }
    pressed();
  }
  return [
    h(
      "div",
      { class: "line" },
      h("h2", { id: "demo-title" }, say("demo.title")),
      told,
      offer.crew &&
        h(
          "button",
          { type: "button", class: "quiet", id: "crew-code", onclick: () => showCrewCode(dialog) },
          say("demo.crew"),
        ),
    ),
    h(
      "div",
      { class: "demo-buttons" },
      offer.items.map((action) =>
        h(
          "button",
          { type: "button", "data-demo": action.id, onclick: () => start(action) },
          h("b", null, pick(action.title)),
          h("span", { class: "target" }),
          h("span", null, pick(action.note)),
        ),
      ),
    ),
  ];
}

/** Say on each button what the next press will act on: a site or gateway by its name, a device by its id. */
export function nameTargets(panel, offer, nameOf) {
  for (const { id, target } of offer.items) {
    const line = panel.querySelector(`[data-demo="${CSS.escape(id)}"] .target`);
    const name = target ? nameOf(target) : "";
    if (line && line.textContent !== name) line.textContent = name;
  }
}
