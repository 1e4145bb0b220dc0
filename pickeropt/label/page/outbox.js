// What the user did and the server has not yet confirmed: kept in order, in this browser as well, and sent
// again until the server answers. Closing the page while the line is down loses nothing.

import { Refused, Unreachable, get, post } from "./api.js";

const WAITS = [500, 1000, 2000, 4000]; // ms between tries
const SAME = 0.01; // px: a box at the same place is the same box
const PATHS = { labels: "/api/labels", add: "/api/add", undo: "/api/undo" };

export class Outbox {
  /**
   * sent(action, answer) and refused(action, error) are called once for each action;
   * onLine(state) with "open", "lost" or "stranger" (the server does not know this browser).
   */
  constructor({ sent, refused, onLine }) {
    Object.assign(this, { sent, refused, onLine });
    this.actions = [];
    this.place = null;
    this.session = null; // run of the server that the page's numbers of boxes are of
    this.server = null; // run that answers now
    this.busy = false;
    this.tries = 0;
    this.timer = null;
  }

  /** Take up what an earlier page of the same labels file left. Returns how many actions. */
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
    this.actions.push({ ...action, session: this.session });
    this.remember();
    this.flush();
  }

  /** Take back the last action where it has not been on its way. */
  takeBack() {
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
        if (action.session !== this.server) await this.findAgain(action);
        const answer = await post(PATHS[action.kind], action.body);
        this.done(action);
        if (action.kind === "add") this.rename(action.temporary, answer.id);
        this.sent(action, answer);
      } catch (error) {
        if (error instanceof Unreachable || error.status === 403) {
          this.wait(error.status === 403 ? "stranger" : "lost");
          break;
        }
        this.done(action);
        this.refused(action, error instanceof Refused ? error : new Refused(0, String(error)));
      }
    }
    this.busy = false;
  }

  /** Another run of the server may number boxes otherwise: find those of an action by their places. */
  async findAgain(action) {
    if (action.kind === "add") {
      const { name } = await get(`/api/micrograph/${action.body.micrograph}`);
      if (name !== action.name) throw new Refused(0, `an unsent box was of ${action.name}, which is not here`);
    }
    const wanted = action.places ?? [];
    const found = new Map();
    for (const micrograph of new Set(wanted.map((place) => place.micrograph))) {
      const { ids, x, y } = await get(`/api/micrograph/${micrograph}`);
      for (const place of wanted) {
        if (place.micrograph !== micrograph) continue;
        const at = ids.findIndex((_, i) => Math.abs(x[i] - place.x) < SAME && Math.abs(y[i] - place.y) < SAME);
        if (at >= 0) found.set(place.id, ids[at]);
      }
    }
    const lost = wanted.filter(({ id }) => !found.has(id));
    if (lost.length) {
      const [{ x, y }] = lost;
      throw new Refused(0, `${lost.length} unsent labels are of boxes that are not here, the first at ${x}, ${y}`);
    }
    for (const label of action.body.labels ?? []) label.id = found.get(label.id) ?? label.id;
    for (const place of wanted) place.id = found.get(place.id);
    action.session = this.server;
    this.remember();
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
