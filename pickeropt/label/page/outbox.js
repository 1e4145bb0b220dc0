// Actions that the server has not yet confirmed: kept in order, also in the browser's storage, and sent again
// until the server answers. Closing the page without a connection loses nothing.

import { Refused, Unreachable, get, post } from "./api.js";

const WAITS = [500, 1000, 2000, 4000]; // ms between tries
const SAME = 0.01; // px: a box at the same place is the same box
const PATHS = { labels: "/api/labels", add: "/api/add", undo: "/api/undo" };

/** Identifies an action that is sent again because its answer was lost. */
function randomName() {
  return [...crypto.getRandomValues(new Uint32Array(4))].map((number) => number.toString(36)).join("-");
}

export class Outbox {
  /**
   * sent(action, answer) and refused(action, error) are called once for each action,
   * renumbered(numbers) where another run of the server has other numbers for boxes: old -> new;
   * onLine(state) with "open", "lost" or "unauthorised" (the server does not know this browser).
   */
  constructor({ sent, refused, renumbered, onLine }) {
    Object.assign(this, { sent, refused, renumbered, onLine });
    this.actions = [];
    this.place = null;
    this.session = null; // run of the server that the page's numbers of boxes are of
    this.server = null; // run that answers now
    this.busy = false;
    this.tries = 0;
    this.timer = null;
  }

  /** Load the actions that an earlier page of the same labels file left. Returns how many. */
  open(labelsFile) {
    if (this.place) return 0;
    this.place = `pickeropt-unsent:${labelsFile}`;
    let left = [];
    try {
      left = JSON.parse(localStorage.getItem(this.place) ?? "[]");
    } catch {
      left = [];
    }
    left = left.filter((action) => action.kind in PATHS);
    this.actions = [...left, ...this.actions];
    this.remember();
    this.flush();
    return left.length;
  }

  push(action) {
    const body = { ...action.body, action: randomName() };
    this.actions.push({ ...action, body, session: this.session });
    this.remember();
    this.flush();
  }

  /** Remove the last action where it has not been sent. */
  withdraw() {
    const first = this.busy ? 1 : 0;
    if (this.actions.length <= first || this.actions.at(-1).kind === "undo") return null;
    const action = this.actions.pop();
    this.remember();
    return action;
  }

  get size() {
    return this.actions.length;
  }

  /** Ids whose label is not yet the server's. */
  pendingIds() {
    const ids = new Set();
    for (const { kind, body, temporary } of this.actions) {
      if (kind === "labels") for (const { id } of body.labels) ids.add(id);
      if (kind === "add") ids.add(temporary);
    }
    return ids;
  }

  async flush() {
    if (this.busy || !this.place) return;
    clearTimeout(this.timer);
    this.busy = true;
    while (this.actions.length) {
      const action = this.actions[0];
      try {
        if (this.tries) this.server = (await get("/api/state")).session;
        if (action.session !== this.server && !(await this.relocate(action))) {
          this.wait("open");
          break;
        }
        const answer = await post(PATHS[action.kind], action.body);
        this.done(action);
        if (action.kind === "add") this.rename(action.temporary, answer.id);
        this.sent(action, answer);
      } catch (error) {
        if (error instanceof Unreachable || error.status === 403) {
          this.wait(error.status === 403 ? "unauthorised" : "lost");
          break;
        }
        this.done(action);
        this.refused(action, error instanceof Refused ? error : new Refused(0, String(error)));
      }
    }
    this.busy = false;
  }

  /**
   * Another run of the server may number micrographs and boxes differently: find those of an action by name and
   * place. Resolves to false where the server is still reading picks.
   */
  async relocate(action) {
    const { loading } = await get("/api/state");
    const { items } = await get("/api/micrographs");
    const micrographs = new Map(items.map(({ name, index }) => [name, index]));
    const place = action.kind === "add" ? this.placeAdded : this.placeAll;
    const problem = await place.call(this, action, micrographs);
    if (problem && loading) return false;
    if (problem) throw new Refused(0, problem);
    action.session = this.server;
    this.remember();
    return true;
  }

  placeAdded({ name, body, item }, micrographs) {
    if (!micrographs.has(name)) return `an unsent box was of ${name}, which is not here`;
    body.micrograph = item.micrograph = micrographs.get(name);
    return null;
  }

  async placeAll({ places = [], body }, micrographs) {
    const found = new Map();
    for (const name of new Set(places.map((place) => place.name))) {
      if (!micrographs.has(name)) continue;
      const { ids, x, y } = await get(`/api/micrograph/${micrographs.get(name)}`);
      for (const place of places) {
        if (place.name !== name) continue;
        const at = ids.findIndex((_, i) => Math.abs(x[i] - place.x) < SAME && Math.abs(y[i] - place.y) < SAME);
        if (at >= 0) found.set(place.id, ids[at]);
      }
    }
    const lost = places.filter(({ id }) => !found.has(id));
    if (lost.length) {
      const [{ x, y, name }] = lost;
      return `${lost.length} unsent labels are of boxes that are not here, the first at ${x}, ${y} of ${name}`;
    }
    for (const label of body.labels ?? []) label.id = found.get(label.id) ?? label.id;
    for (const place of places) {
      Object.assign(place, { id: found.get(place.id), micrograph: micrographs.get(place.name) });
    }
    this.renumbered(found);
    return null;
  }

  done(action) {
    this.actions = this.actions.filter((other) => other !== action);
    this.tries = 0;
    this.remember();
    this.onLine("open");
  }

  wait(line) {
    this.onLine(line);
    const delay = WAITS[Math.min(this.tries, WAITS.length - 1)];
    this.tries += 1;
    this.timer = setTimeout(() => this.flush(), delay);
  }

  /** A box that was added has its own number now. */
  rename(temporary, id) {
    for (const { kind, body, places } of this.actions) {
      if (kind !== "labels") continue;
      for (const each of [...body.labels, ...places]) if (each.id === temporary) each.id = id;
    }
    this.remember();
  }

  remember() {
    document.body.dataset.unsent = this.actions.length;
    if (!this.place) return;
    try {
      if (this.actions.length) localStorage.setItem(this.place, JSON.stringify(this.actions));
      else localStorage.removeItem(this.place);
    } catch {
      // storage is full or forbidden: the actions are still in this page
    }
  }
}
