// What a person may do with a work order, and the little forms that ask what an action needs.

import { h } from "./dom.js";
import { say } from "./text.js";

const OUTCOMES = ["confirmed", "benign", "misfire", "duplicate", "inconclusive"];
const CAUSES = ["unknown", "sensor", "installation", "environment", "threshold", "communication"];
const FINDINGS = ["handled", "nothing_there"];
const ASIDE = new Set(["return", "cancel"]); // leads away from the straight road: a quieter button

/** There is no log-in yet: each action is recorded under the role whose business it is, and the form says so. */
const ROLES = { accept: "crew", arrive: "crew", handle: "crew", verify: "verifier" };
export const roleOf = (action) => ROLES[action] ?? "duty_officer";

const choice = (name, value) =>
  h(
    "label",
    { class: "choice" },
    h("input", { type: "radio", name, value, required: true }),
    " ",
    say(`${name}.${value}`),
  );

/** None is chosen beforehand: a judgement is made, not left standing. */
const group = (name, values) =>
  h(
    "fieldset",
    null,
    h("legend", null, say(`${name}.ask`)),
    values.map((value) => choice(name, value)),
  );

export const note = (label, required) =>
  h("label", { class: "note" }, say(label), h("textarea", { name: "why", rows: 1, required }));

/** The fields an action asks for; none means that pressing the button is enough. */
function fields(action) {
  switch (action) {
    case "handle":
      return [group("finding", FINDINGS), note("action.note", false)];
    case "verify": {
      const causes = CAUSES.map((cause) => h("option", { value: cause }, say(`cause.${cause}`)));
      const cause = h(
        "fieldset",
        null,
        h("label", { class: "note" }, say("cause.ask"), h("select", { name: "cause" }, causes)),
      );
      const outcome = group("outcome", OUTCOMES);
      const follow = () => {
        cause.hidden = outcome.querySelector(":checked")?.value !== "misfire";
        cause.disabled = cause.hidden; // a disabled fieldset is not sent
      };
      outcome.addEventListener("change", follow);
      follow();
      return [outcome, cause, note("action.note", false)];
    }
    case "return":
    case "cancel":
      return [note("action.why", true)];
    default:
      return [];
  }
}

/** Run `act()` while the buttons of `within` rest, and say in `told` what went wrong. */
async function attempt(within, told, act) {
  const buttons = [...within.querySelectorAll("button")];
  told.textContent = "";
  buttons.forEach((button) => (button.disabled = true));
  try {
    await act();
  } catch (error) {
    told.textContent = say("page.refused", {
      why: error instanceof TypeError ? say("page.unreachable") : error.message,
    });
  } finally {
    buttons.forEach((button) => (button.disabled = false));
  }
}

/** The buttons for the actions that `order.actions` allows; `send(action, fields)` carries one out. */
export function actionButtons(order, send) {
  const told = h("p", { class: "told", role: "alert" });
  const form = h("div", { class: "form" });
  const box = h("section", { class: "actions", "aria-label": say("order.actions") });
  const act = (action, values) => attempt(box, told, () => send(action, values));

  function ask(action) {
    const asked = fields(action);
    if (!asked.length) return act(action, {});
    const onsubmit = (event) => {
      event.preventDefault();
      act(action, Object.fromEntries(new FormData(event.target)));
    };
    form.replaceChildren(
      h(
        "form",
        { onsubmit, "data-action": action },
        asked,
        h(
          "div",
          { class: "line" },
          h("button", { class: "primary" }, say("action.confirm", { action: say(`action.${action}`) })),
          h("button", { type: "button", class: "quiet", onclick: () => form.replaceChildren() }, say("page.cancel")),
          h("span", { class: "muted" }, say("action.as", { role: say(`role.${roleOf(action)}`) })),
        ),
      ),
    );
    form.querySelector("input, textarea").focus();
  }

  box.append(
    h(
      "div",
      { class: "line" },
      order.actions.length ? null : h("p", { class: "muted" }, say("action.none")),
      order.actions.map((action) =>
        h(
          "button",
          {
            type: "button",
            class: ASIDE.has(action) ? "quiet" : "primary",
            "data-action": action,
            "data-focus": `action-${action}`,
            onclick: () => ask(action),
          },
          say(`action.${action}`),
        ),
      ),
    ),
    form,
    told,
  );
  return box;
}

/** Ask in a dialog why a held-back alert is to be dispatched after all; `send(why)` does it. */
export function askWhy(dialog, title, reason, send) {
  const told = h("p", { class: "told", role: "alert" });
  const form = h(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        attempt(form, told, async () => {
          await send(new FormData(form).get("why"));
          dialog.close();
        });
      },
    },
    h("h2", { id: "dialog-title" }, say("held.dispatch")),
    h("p", null, h("strong", null, title)),
    h("p", { class: "muted" }, reason),
    h("label", { class: "note" }, say("held.dispatch.ask"), h("textarea", { name: "why", rows: 3, required: true })),
    h("p", { class: "muted" }, say("held.dispatch.hint")),
    told,
    h(
      "div",
      { class: "line" },
      h("button", { class: "primary" }, say("held.dispatch")),
      h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, say("page.cancel")),
    ),
  );
  dialog.replaceChildren(form);
  dialog.showModal();
  form.querySelector("textarea").focus();
}
