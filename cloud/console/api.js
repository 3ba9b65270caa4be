// The district centre's JSON API: reading, acting, and being told what changed.

const ROOT = "/api/v1";
const MOST = 200; // entries of one list that a person can use; older ones are a matter for the search, not this page

/** The server said no; `message` is what it said (RFC 9457 title and detail). */
export class Refusal extends Error {
  constructor(status, problem) {
    super(
      [problem.title, problem.detail].filter((part) => typeof part === "string" && part).join(": ") || `HTTP ${status}`,
    );
    this.status = status;
  }
}

/** GET or POST JSON; `Refusal` when the server says no, `TypeError` when it does not answer. */
export async function call(path, body) {
  const sent =
    body === undefined
      ? {}
      : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path.startsWith("/") ? path : `${ROOT}/${path}`, { cache: "no-store", ...sent });
  const read = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refusal(answer.status, read);
  return read;
}

/** All items of a list, page by page, up to `MOST`. */
export async function list(path) {
  const items = [];
  let cursor = null;
  do {
    const page = await call(cursor ? `${path}?cursor=${encodeURIComponent(cursor)}` : path);
    items.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor && items.length < MOST);
  return items;
}

/**
 * Follow the event stream. `told(kind, subject)` for every event, `opened()` at each (re)connection, `lost()` when it
 * breaks. The browser reconnects by itself and names the last event it saw; only a refused stream is opened anew here.
 */
export function follow({ told, opened, lost }) {
  const source = new EventSource(`${ROOT}/stream`);
  source.onopen = opened;
  source.onerror = () => {
    lost();
    if (source.readyState === EventSource.CLOSED) setTimeout(() => follow({ told, opened, lost }), 2000);
  };
  for (const kind of ["alert", "work_order", "balance", "device"])
    source.addEventListener(kind, (event) => told(kind, JSON.parse(event.data).subject));
}

/** Run `work(names)` for the names asked for, at most once every `pause` milliseconds; names asked meanwhile are gathered. */
export function coalesced(work, pause) {
  const asked = new Set();
  let busy = false;
  async function run() {
    busy = true;
    while (asked.size) {
      const names = new Set(asked);
      asked.clear();
      await work(names);
      await new Promise((done) => setTimeout(done, pause));
    }
    busy = false;
  }
  return (...names) => {
    names.forEach((name) => asked.add(name));
    if (!busy) run();
  };
}
