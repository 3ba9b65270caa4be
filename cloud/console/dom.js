// The few things needed to build a page by hand. Text from data only ever becomes a text node.

const SVG = "http://www.w3.org/2000/svg";
const AS_PROPERTY = new Set(["value", "checked", "disabled", "hidden", "open"]);

function build(node, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (AS_PROPERTY.has(name)) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element: `h("p", {class: "muted"}, "text", child)`; `onclick` and the like are listeners. */
export const h = (tag, properties, ...children) => build(document.createElement(tag), properties, children);

/** An SVG element, the same way. */
export const svg = (tag, properties, ...children) => build(document.createElementNS(SVG, tag), properties, children);

export const byId = (id) => document.getElementById(id);

/**
 * Show `items` as the children of `container`, building only what changed: an entry keeps its node, and with it focus,
 * scroll and half-typed text, as long as what it shows is the same.
 */
export function keyed(container, items, keyOf, build, context = "") {
  const focused = container.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
  const old = new Map([...container.children].map((node) => [node.dataset.key, node]));
  const nodes = items.map((item) => {
    const key = String(keyOf(item));
    const sign = context + JSON.stringify(item, (name, value) => (name === "remaining_s" ? undefined : value));
    const before = old.get(key);
    if (before?.shows === sign) return before;
    const node = build(item);
    node.dataset.key = key;
    node.shows = sign;
    return node;
  });
  const kept = new Set(nodes);
  for (const node of [...container.children]) if (!kept.has(node)) node.remove();
  nodes.forEach((node, place) => {
    if (container.children[place] !== node) container.insertBefore(node, container.children[place] ?? null);
  });
  if (focused && !container.contains(document.activeElement))
    container.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}
