// The state of the page: the server's state, current labels, selection. Emits events on changes: "state",
// "labels" (detail: ids, or null for all), "selection", "threshold", "line", "message", "reload", "restarted".

import { Refused, get, post, query } from "./api.js";
import { Outbox } from "./outbox.js";
import { SKIP, nameOf } from "./tile.js";

const POLL = 2000; // ms
const POLL_JOB = 500; // ms, while a job runs
const POLLS_MODEL = 3; // polls after which the state is read anyway

export class Store extends EventTarget {
  constructor() {
    super();
    this.state = null;
    this.labels = new Map(); // id -> class name, null or SKIP, where it changed since it was loaded
    this.selected = new Map(); // id -> item
    this.current = null; // the item that keys act on first
    this.threshold = null; // of the slider, or of the run
    this.brush = null; // class that clicks and lassos give
    this.line = "open";
    this.added = 0;
    this.polls = 0;
    this.asked = 0; // reads of the state
    this.known = 0; // the last of them that the page's state is not older than
    this.outbox = new Outbox({
      sent: (action, answer) => this.onSent(action, answer),
      refused: (action, error) => this.onRefused(action, error),
      renumbered: (numbers) => this.onRenumbered(numbers),
      onLine: (line) => this.setLine(line),
    });
  }

  emit(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  notify(text, kind = "note") {
    this.emit("message", { text, kind });
  }

  async start() {
    await this.reload();
    const left = this.outbox.open(this.state.labels_file);
    if (left) this.notify(`Sending ${left} labels that an earlier page could not send.`);
    this.poll();
  }

  async reload() {
    await this.refreshState();
    this.since = this.state.revision;
    const { job } = this.state;
    this.ended = job ? job.number - (job.state === "running") : 0; // the last job whose end was told
    const pending = this.outbox.pendingIds();
    for (const id of this.labels.keys()) if (!pending.has(id)) this.labels.delete(id);
  }

  setState(state) {
    const run = this.state?.pruned;
    const grown = this.state && state.picks !== this.state.picks;
    const fitted = this.state && JSON.stringify(state.model) !== JSON.stringify(this.state.model);
    if (this.outbox.size) this.keepCounts(state);
    this.state = state;
    this.session = this.outbox.session = this.outbox.server = state.session;
    for (const each of state.classes) each.mark = each.key || each.name[0].toUpperCase();
    const names = state.classes.map((each) => each.name);
    if (!names.includes(this.brush)) this.brush = names[0];
    const { pruned } = state;
    if (!pruned) this.threshold = null;
    else if (!run || this.threshold === run.threshold) this.threshold = pruned.threshold; // not being moved
    this.emit("state");
    if (grown) this.emit("growing");
    if (fitted) this.emit("fitted");
  }

  /** While labels are unsent, the page's own counts hold: the server's answer may be older. */
  keepCounts(state) {
    for (const each of state.classes) each.count = this.classOf(each.name)?.count ?? each.count;
  }

  /** Answers may come out of order: one that is older than the page's state is requested again. */
  async refreshState() {
    let asked;
    let state;
    do {
      asked = this.asked += 1;
      state = await get("/api/state");
    } while (asked < this.known);
    this.known = asked;
    this.setState(state);
  }

  async poll() {
    clearTimeout(this.timer);
    if (this.polling) {
      this.pollAgain = true;
      return;
    }
    this.polling = true;
    try {
      await this.pollOnce();
      this.setLine("open");
    } catch (error) {
      this.setLine(error instanceof Refused && error.status === 403 ? "unauthorised" : "lost");
    }
    this.polling = false;
    const soon = this.pollAgain || this.state.job?.state === "running" || this.state.loading;
    this.pollAgain = false;
    this.timer = setTimeout(() => this.poll(), soon ? POLL_JOB : POLL);
  }

  /** Once for each job, also for one that ended between two polls. */
  emitEnd(job) {
    if (!job || job.state === "running" || job.number <= this.ended) return;
    this.ended = job.number;
    this.emit("finished", job);
  }

  async pollOnce() {
    const was = this.state.job?.state;
    const [changes, job] = await Promise.all([
      get(`/api/changes${query({ since: this.since })}`),
      get("/api/job"),
    ]);
    const anew = changes.session !== undefined && changes.session !== this.session;
    if (anew || changes.revision < this.since) {
      const { brush } = this;
      await this.reload();
      this.emit("restarted");
      if (brush === this.brush) this.notify("The server was restarted; the page has read its labels.");
      else {
        this.emit("brush");
        const lost = `The server was restarted and has no class ${brush}, which had no labels.`;
        this.notify(`${lost} Class to give: ${this.brush}.`, "fault");
      }
      return;
    }
    this.take(changes);
    this.state.problems = changes.problems ?? this.state.problems;
    this.state.job = job;
    this.polls += 1;
    const refitted = this.state.model && this.polls % POLLS_MODEL === 0; // in the background, after some labels
    const jobChanged = job?.state !== was || job?.number > this.ended;
    if (changes.labels.length || refitted || this.state.loading || jobChanged) await this.refreshState();
    else this.emit("counts");
    if (job?.state === "running") this.emit("job");
    this.emitEnd(job);
  }

  take({ revision, labels }) {
    this.since = revision;
    const pending = this.outbox.pendingIds();
    const changed = labels.filter(({ id }) => !pending.has(id));
    for (const each of changed) this.labels.set(each.id, each.class);
    if (changed.length) this.emit("labels", changed);
  }

  setLine(line) {
    if (line === this.line && !this.outbox.size) return;
    const back = this.line !== "open" && line === "open";
    this.line = line;
    this.emit("line");
    if (back) {
      this.outbox.flush();
      this.emit("back");
    }
  }

  labelOf(item) {
    return this.labels.has(item.id) ? this.labels.get(item.id) : item.label;
  }

  classOf(name) {
    return this.state.classes.find((each) => each.name === name) ?? null;
  }

  /** true, false, or null where nothing was pruned. */
  isKept(item) {
    return item.score === null || this.threshold === null ? null : item.score >= this.threshold;
  }

  /** Give a class, null (none) or SKIP to some picks: one action, one undo. */
  label(items, name) {
    if (!items.length) return;
    const before = items.map((item) => this.labelOf(item));
    this.apply(items, items.map(() => name));
    const body = { labels: items.map(({ id }) => ({ id, class: name })) };
    const places = items.map(({ id, micrograph, x, y, name: file }) => ({ id, micrograph, x, y, name: file }));
    this.outbox.push({ kind: "labels", body, before, places });
    const what = items.length === 1 ? nameOf(items[0]) : `${items.length} boxes`;
    if (name === SKIP) this.notify(`${what}: skipped.`);
    else if (name === null) this.notify(`${what}: label removed.`);
    else this.notify(`${what}: ${name}. Now ${this.classOf(name)?.count ?? 0} ${name}.`);
  }

  apply(items, names) {
    items.forEach((item, place) => {
      const old = this.classOf(this.labelOf(item));
      const now = this.classOf(names[place]);
      if (old) old.count -= 1;
      if (now) now.count += 1;
      this.labels.set(item.id, names[place]);
    });
    this.state.can_undo = true;
    this.emit("labels", items);
    this.emit("counts");
  }

  /** Add a box. Returns its item; its number holds in this page until the server gives one. */
  add({ index: micrograph, name: file }, x, y, name) {
    this.added += 1;
    const unknown = { merit: null, label: null, guess: null, score: null };
    const item = { id: -this.added, micrograph, name: file, x, y, ...unknown, byHand: true };
    this.apply([item], [name]);
    const body = { micrograph, x, y, class: name };
    this.outbox.push({ kind: "add", body, temporary: item.id, item, name: file });
    this.notify(`Box added at ${Math.round(x)}, ${Math.round(y)}: ${name}.`);
    return item;
  }

  undo() {
    const action = this.outbox.withdraw();
    if (!action) {
      this.outbox.push({ kind: "undo", body: {} });
      return;
    }
    if (action.kind === "labels") this.apply(action.places, action.before);
    if (action.kind === "add") this.apply([action.item], [null]);
    this.notify("Undone before it was sent.");
  }

  onSent(action, answer) {
    if (action.kind === "add") this.renumber(action.item, answer.id);
    if (action.kind === "undo") {
      const count = answer.ids?.length ?? 0;
      const what = count === 1 ? nameOf({ id: answer.ids[0] }) : `${count} boxes`;
      this.notify(count ? `Undone: ${what}.` : "Nothing to undo.");
    }
    if (!this.outbox.size) {
      for (const each of this.state.classes) each.count = answer.counts?.[each.name] ?? each.count;
      this.emit("counts");
      this.poll();
    }
  }

  renumber(item, id) {
    const selected = this.selected.delete(item.id);
    this.labels.set(id, this.labels.get(item.id));
    this.labels.delete(item.id);
    item.id = id;
    if (selected) this.selected.set(id, item);
    this.emit("added", item);
  }

  /** New numbers of boxes with unsent labels: old -> new. */
  onRenumbered(numbers) {
    const known = [...numbers].filter(([old, now]) => old !== now && this.labels.has(old));
    const names = known.map(([old]) => this.labels.get(old));
    for (const [old] of known) this.labels.delete(old);
    known.forEach(([, now], at) => this.labels.set(now, names[at]));
    this.emit("labels");
  }

  async onRefused(action, error) {
    this.notify(error.message, "fault");
    await this.refreshState().catch(() => {});
    if (action.kind === "labels") {
      this.apply(action.places, action.before);
      await this.refreshState().catch(() => {});
    }
    if (action.kind === "undo") return;
    this.emit("reload");
  }

  async addClass(name) {
    const { classes } = await post("/api/classes", { name });
    this.known = this.asked += 1;
    this.setState({ ...this.state, classes });
  }

  /** Items were read again: update guesses and scores of the selected ones. */
  renew(items) {
    let found = false;
    for (const item of items) {
      if (!this.selected.has(item.id)) continue;
      found = true;
      this.selected.set(item.id, item);
      if (this.current?.id === item.id) this.current = item;
    }
    if (found) this.emit("renewed");
  }

  /** Select some items; the first of them is the current one unless it is given. */
  select(items, current = items[0] ?? null) {
    this.selected = new Map(items.map((item) => [item.id, item]));
    this.current = current;
    this.emit("selection");
  }
}
