// The gallery: boxes in a virtual list, one or many of them selected, by mouse and by keyboard.

import { ImageQueue, query } from "./api.js";
import { PickList } from "./list.js";
import { updateTile, makeTile } from "./tile.js";
import { VirtualList } from "./virtual.js";

const SIZES = [64, 96, 128, 192, 256, 384]; // px of a picture that is asked for
const AHEAD = 60; // boxes of the list that are fetched before they are in view
const MOST = 2000; // boxes in one selection
const NEAR = 200; // entries around the active one that are read again at once
const BORDER = 12; // px between the pictures

export class Gallery {
  constructor(store, element, note) {
    Object.assign(this, { store, element, note });
    this.list = new PickList();
    this.images = new ImageQueue(3, 1500, async (blob) => URL.createObjectURL(blob), URL.revokeObjectURL);
    this.display = {};
    this.active = 0;
    this.anchor = 0;
    this.left = null; // id of the box that was active when the list without it came
    this.moving = Promise.resolve();
    this.pending = false; // the active entry is not yet the selected one
    this.reads = 0;
    this.virtual = new VirtualList(element, {
      make: makeTile,
      bind: (tile, index) => this.bind(tile, index),
      unbind: (tile) => tile.cancel?.(),
      onView: (first, end) => this.onView(first, end),
    });
    this.list.addEventListener("loaded", ({ detail }) => this.onLoaded(detail));
    this.list.addEventListener("failed", () => this.onFailed());
    element.addEventListener("pointerdown", (event) => this.onPointer(event));
    element.addEventListener("dblclick", () => this.onOpen?.());
    for (const name of ["labels", "selection", "threshold", "state"]) {
      store.addEventListener(name, () => this.updateTiles());
    }
    store.addEventListener("back", () => this.virtual.refresh());
  }

  /** Another order or filter. */
  async open(asked) {
    this.element.setAttribute("aria-busy", "true");
    await this.list.open(asked);
    this.element.removeAttribute("aria-busy");
    this.active = this.anchor = 0;
    this.virtual.goTo(0);
    if (this.list.total) this.go(0, false, false);
  }

  /** Read the list again, which may have become shorter: the active entry stays, or the next that is still listed. */
  async again() {
    const turn = (this.reads += 1);
    const { asked, total } = this.list;
    const last = Math.max(0, Math.min(this.active + NEAR, total - 1));
    const fresh = await this.list.reread(Math.min(Math.max(0, this.active - NEAR), last), last);
    if (turn !== this.reads || asked !== this.list.asked) return; // there is a newer one
    if (fresh.failure) this.note(fresh.failure.message);
    else this.take(fresh);
  }

  take(fresh) {
    const later = Array.from({ length: NEAR }, (_, step) => this.list.item(this.active + step)?.id);
    const anchor = this.list.item(this.anchor)?.id;
    this.list.take(fresh);
    const place = (id) => (id === undefined ? -1 : this.list.indexOf(id));
    const listed = later.find((id) => place(id) >= 0);
    if (listed !== later[0]) [this.left] = later;
    this.active = Math.max(0, listed === undefined ? Math.min(this.active, fresh.total - 1) : place(listed));
    this.anchor = place(anchor) < 0 ? this.active : place(anchor);
    if (this.pending) this.go(this.active, this.anchor !== this.active, false);
    this.updateTiles();
  }

  /** lowpass Å, contrast sigmas, view diameters, zoom px. */
  setDisplay(display) {
    const resized = display.zoom !== this.display.zoom;
    this.display = display;
    const wanted = display.zoom * (window.devicePixelRatio || 1);
    this.px = SIZES.find((size) => size >= wanted) ?? SIZES.at(-1);
    this.element.style.setProperty("--zoom", `${display.zoom}px`);
    if (resized) this.resize();
    else this.virtual.refresh();
  }

  resize() {
    this.virtual.set(this.list.total, this.display.zoom + BORDER, this.display.zoom + BORDER);
  }

  address(item) {
    const { view, lowpass, contrast } = this.display;
    return `/api/box/${item.id}.png${query({ px: this.px, view, lowpass, contrast, run: this.store.session })}`;
  }

  bind(tile, index) {
    const item = this.list.item(index);
    tile.index = index;
    tile.cancel = null;
    tile.id = `box-${index}`;
    const { picture } = tile.parts;
    if (!item) {
      tile.dataset.state = "coming";
      tile.dataset.pick = "";
      tile.dataset.shown = "";
      tile.setAttribute("aria-label", "loading");
      picture.removeAttribute("src");
      return;
    }
    tile.dataset.pick = item.id;
    updateTile(tile, item, this.store, this.list.total, index);
    const url = this.address(item);
    if (tile.dataset.shown !== String(item.id)) picture.removeAttribute("src");
    tile.dataset.state = "coming";
    tile.cancel = this.images.request(url, (source, failure) => {
      tile.dataset.state = failure ? "failed" : "there";
      tile.title = failure ? failure.message : "";
      tile.dataset.shown = item.id;
      if (source) picture.src = source;
    });
  }

  updateTiles() {
    for (const [index, tile] of this.virtual.shown) {
      const item = this.list.item(index);
      if (item) updateTile(tile, item, this.store, this.list.total, index);
    }
    this.element.setAttribute("aria-activedescendant", `box-${this.active}`);
  }

  onView(first, end) {
    this.list.need(first, Math.min(end + AHEAD, this.list.total));
    const { columns } = this.virtual;
    const from = Math.min(this.list.total, first ? first + 2 * columns : 0);
    const count = this.list.total.toLocaleString("en-GB");
    if (this.list.failure) return;
    this.note(this.list.total ? `from ${(from + 1).toLocaleString("en-GB")} of ${count}` : "no boxes");
  }

  onLoaded({ longer, page }) {
    this.store.renew(this.list.pages.get(page));
    if (longer) this.resize();
    this.virtual.refresh();
    this.updateTiles();
  }

  onFailed() {
    this.note(this.list.failure.message);
  }

  onPointer(event) {
    const tile = event.target.closest(".tile");
    if (!tile || event.button !== 0 || !this.list.item(tile.index)) return;
    if (event.ctrlKey || event.metaKey) this.toggle(tile.index);
    else if (event.shiftKey) this.go(tile.index, true);
    else {
      this.go(tile.index, false);
      this.onPick?.(this.list.item(tile.index));
    }
  }

  toggle(index) {
    const item = this.list.item(index);
    const { store } = this;
    const items = [...store.selected.values()].filter((other) => other.id !== item.id);
    if (items.length === store.selected.size) items.unshift(item);
    this.active = this.anchor = index;
    store.select(items);
  }

  /** Make an entry the active one; with `extend`, select all from the anchor to it. `moving` waits for it. */
  go(index, extend = false, show = true) {
    this.moving = this.move(index, extend, show);
    return this.moving;
  }

  async move(index, extend, show) {
    const last = this.list.total - 1;
    if (last < 0) return;
    this.active = Math.min(Math.max(0, index), last);
    if (!extend) this.anchor = this.active;
    if (show) this.virtual.show(this.active);
    const { active, anchor } = this;
    this.pending = true;
    const low = Math.max(Math.min(active, anchor), active - MOST + 1);
    const items = await this.list.range(low, Math.min(Math.max(active, anchor), low + MOST - 1));
    if (active !== this.active || anchor !== this.anchor) return; // moved on meanwhile
    this.pending = false;
    this.store.select(items, this.list.item(active) ?? null);
    this.updateTiles();
  }

  /** Follow a pick that was chosen on the micrograph. */
  follow(item) {
    const index = this.list.indexOf(item.id);
    if (index < 0) return;
    this.active = this.anchor = index;
    this.virtual.show(index);
    this.updateTiles();
  }

  /** After a label: the next entry, where the current one is of this list, or was. */
  advance() {
    const last = Math.max(this.active, this.anchor);
    const { current } = this.store;
    if (current && current.id === this.left && this.list.indexOf(current.id) < 0) {
      this.go(this.active);
      return;
    }
    if (this.list.item(this.active)?.id !== current?.id) return;
    if (last < this.list.total - 1) this.go(last + 1);
  }

  /** Arrows, Page, Home and End. True where the key was for the gallery. */
  onKey(event) {
    const { columns, inView, size } = this.virtual;
    const screen = Math.max(1, Math.floor(inView / size.height)) * columns;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const far = { PageUp: -screen, PageDown: screen, Home: -this.active, End: this.list.total - 1 - this.active };
    const step = steps[event.key] ?? far[event.key];
    if (step === undefined) return false;
    const target = this.active + step;
    const ends = event.key in far;
    if (ends || (target >= 0 && target < this.list.total)) this.go(target, event.shiftKey);
    return true;
  }
}
