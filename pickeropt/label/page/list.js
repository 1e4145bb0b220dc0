// The picks of the gallery in their order: pages of 200 are fetched when they come into view.

import { get, query } from "./api.js";

const PAGE = 200;
const KEEP = 60; // pages

export class PickList extends EventTarget {
  constructor() {
    super();
    this.asked = {};
    this.start();
  }

  start() {
    for (const { abort } of this.coming?.values() ?? []) abort.abort();
    this.total = 0;
    this.pages = new Map(); // page -> items, oldest first
    this.coming = new Map(); // page -> {abort, held, done}
    this.places = new Map(); // id -> index
    this.failure = null;
  }

  /** Begin a list: {order, class, kept, micrograph}. Resolves when its first page, and so its length, is known. */
  async open(asked) {
    this.asked = asked;
    this.start();
    await this.reach(0);
  }

  /** The same list as it is now, with the pages of [first, last]. */
  async reread(first, last) {
    const fresh = new PickList();
    fresh.asked = this.asked;
    await fresh.range(first, last);
    return fresh;
  }

  /** Change to a list that was read anew. */
  take({ total, pages, places }) {
    const longer = total !== this.total;
    this.start();
    Object.assign(this, { total, pages, places });
    for (const page of [...pages.keys()]) this.dispatchEvent(new CustomEvent("loaded", { detail: { page, longer } }));
  }

  item(index) {
    return this.pages.get(Math.floor(index / PAGE))?.[index % PAGE];
  }

  /** The place of a pick among those that were fetched, or where it must be; -1 where that is not known. */
  indexOf(id) {
    const place = this.places.get(id);
    if (place !== undefined) return place;
    const { order, kept, micrograph } = this.asked;
    const everything = order === "file" && kept === "all" && micrograph === null && !this.asked.class;
    return everything && id >= 0 && id < this.total ? id : -1;
  }

  /** Fetch the pages of [first, end); others that are still on their way are given up. */
  need(first, end) {
    if (end <= first) return;
    const from = Math.floor(first / PAGE);
    const to = Math.floor((end - 1) / PAGE);
    for (const [page, { abort, held }] of this.coming) {
      if ((page >= from && page <= to) || held) continue;
      abort.abort();
      this.coming.delete(page);
    }
    for (let page = from; page <= to; page++) this.load(page);
  }

  /** As `load`; where the list is begun anew meanwhile, which gives up what is on its way, of the new one. */
  async reach(page, held = false) {
    let coming;
    do {
      coming = this.coming;
      await this.load(page, held);
    } while (coming !== this.coming);
  }

  /** Resolves when a page is there or has failed; `held`: also where it goes out of view. */
  async load(page, held = false) {
    if (this.pages.has(page)) {
      const items = this.pages.get(page);
      this.pages.delete(page);
      this.pages.set(page, items);
      return;
    }
    if (!this.coming.has(page)) {
      const abort = new AbortController();
      this.coming.set(page, { abort, held, done: this.fetch(page, abort) });
    }
    const job = this.coming.get(page);
    job.held ||= held;
    await job.done;
  }

  async fetch(page, abort) {
    const { coming } = this;
    try {
      const asked = { ...this.asked, offset: page * PAGE, limit: PAGE };
      const { total, items } = await get(`/api/picks${query(asked)}`, abort.signal);
      if (coming === this.coming) this.keep(page, items, total);
    } catch (error) {
      if (error.name === "AbortError" || coming !== this.coming) return;
      this.failure = error;
      this.dispatchEvent(new Event("failed"));
    } finally {
      if (coming.get(page)?.abort === abort) coming.delete(page);
    }
  }

  keep(page, items, total) {
    this.failure = null;
    this.pages.set(page, items);
    items.forEach((item, place) => this.places.set(item.id, page * PAGE + place));
    for (const [oldest, old] of this.pages) {
      if (this.pages.size <= KEEP) break;
      this.pages.delete(oldest);
      for (const item of old) this.places.delete(item.id);
    }
    const longer = total !== this.total;
    this.total = total;
    this.dispatchEvent(new CustomEvent("loaded", { detail: { page, longer } }));
  }

  /** The items of [first, last], fetched where they must be. */
  async range(first, last) {
    const items = [];
    for (let page = Math.floor(first / PAGE); page <= Math.floor(last / PAGE); page++) {
      await this.reach(page, true);
    }
    for (let index = first; index <= last; index++) if (this.item(index)) items.push(this.item(index));
    return items;
  }
}
