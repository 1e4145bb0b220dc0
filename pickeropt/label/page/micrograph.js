// The micrograph: its picks, pan and zoom, and what a click or a drag does in each mode.

import { get } from "./api.js";
import { Camera } from "./camera.js";
import { oncePerFrame } from "./frame.js";
import { drawCross, drawLasso, drawPicks, drawSelected, isInside } from "./overlay.js";
import { SKIP, isAdded } from "./tile.js";
import { Tiles } from "./tiles.js";

export const MODES = { select: "Select", paint: "Label", add: "Add", lasso: "Lasso" };
const CLICK = 4; // CSS px a click may move
const STEP = 60; // CSS px an arrow pans
const KEEP = 8; // micrographs whose picks are kept

export class MicrographView {
  constructor(store, canvas, onFailure) {
    Object.assign(this, { store, canvas, onFailure });
    this.plan = oncePerFrame(() => this.draw());
    this.context = canvas.getContext("2d", { alpha: false });
    this.camera = new Camera();
    this.tiles = new Tiles(() => this.plan());
    this.display = {};
    this.known = new Map(); // index -> {..., items}
    this.shown = null;
    this.mode = "select";
    this.drag = null;
    this.picksShown = true;
    new ResizeObserver(() => this.resize()).observe(canvas);
    for (const name of ["selection", "threshold", "state"]) store.addEventListener(name, () => this.plan());
    store.addEventListener("labels", ({ detail }) => this.onLabels(detail ?? []));
    store.addEventListener("added", () => this.plan());
    store.addEventListener("back", () => this.setDisplay(this.display));
    const on = (name, act, options) => canvas.addEventListener(name, act.bind(this), options);
    on("pointerdown", this.onDown);
    on("pointermove", this.onMove);
    on("pointerup", this.onUp);
    on("pointercancel", this.endDrag);
    on("wheel", this.onWheel, { passive: false });
    for (const name of ["focus", "blur"]) on(name, this.plan);
    on("auxclick", (event) => event.preventDefault());
  }

  /** Show a micrograph whole, or with a pick of it in view; `close`: with little beside the pick. */
  async open(index, item = null, close = false) {
    this.wanted = index;
    if (this.shown?.index !== index) {
      const micrograph = await this.load(index);
      if (this.wanted !== index) return;
      this.shown = micrograph;
      Object.assign(this.camera, { width: micrograph.width, height: micrograph.height });
      this.tiles.open(micrograph, this.display, this.store.session);
      this.camera.fit();
      this.store.emit("micrograph", micrograph);
    }
    if (item) this.showPick(item, close);
    this.plan();
  }

  async load(index) {
    const known = this.known.get(index);
    if (known) return known;
    const got = await get(`/api/micrograph/${index}`);
    const names = this.store.state.classes.map((each) => each.name);
    const nameOf = (at) => (at === -2 ? SKIP : names[at] ?? null);
    got.items = got.ids.map((id, at) => ({
      id,
      micrograph: index,
      name: got.name,
      x: got.x[at],
      y: got.y[at],
      merit: got.merit[at],
      label: nameOf(got.label[at]),
      guess: names[got.guess[at]] ?? null,
      score: got.score[at],
    }));
    this.known.set(index, got);
    if (this.known.size > KEEP) this.known.delete(this.known.keys().next().value);
    return got;
  }

  /** Guesses, scores or the server are others: read again what is shown. */
  async again() {
    this.known.clear();
    const { wanted } = this;
    if (wanted === undefined) return;
    const micrograph = await this.load(wanted);
    if (this.wanted !== wanted) return;
    this.shown = micrograph;
    this.store.renew(micrograph.items);
    this.plan();
  }

  /** Another run of the server may number micrographs otherwise: show the same one. */
  async reload() {
    this.known.clear();
    const { shown } = this;
    if (!shown) return;
    shown.items = []; // by their old numbers none must be labelled
    const { items } = await get("/api/micrographs");
    this.shown = null;
    await this.open(items.find(({ name }) => name === shown.name)?.index ?? 0);
  }

  setDisplay(display) {
    this.display = display;
    if (this.shown) this.tiles.open(this.shown, display, this.store.session);
    this.plan();
  }

  resize() {
    const { clientWidth, clientHeight } = this.canvas;
    if (!clientWidth) return;
    this.density = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(clientWidth * this.density);
    this.canvas.height = Math.round(clientHeight * this.density);
    const { camera } = this;
    const wasWhole = !this.shown || Math.abs(camera.scale / camera.whole - 1) < 1e-6;
    camera.screen = { width: clientWidth, height: clientHeight };
    if (this.shown && wasWhole) camera.fit();
    this.draw();
  }

  get radius() {
    return (this.store.state.diameter_px ?? 100) / 2;
  }

  /** The boxes that are there: one that was added goes with its label. */
  visible() {
    return (this.shown?.items ?? []).filter((item) => !isAdded(item) || this.store.labelOf(item) !== null);
  }

  draw() {
    const { context, camera, store, shown } = this;
    context.setTransform(this.density, 0, 0, this.density, 0, 0);
    context.fillStyle = getComputedStyle(this.canvas).backgroundColor;
    context.fillRect(0, 0, camera.screen.width, camera.screen.height);
    if (!shown) return;
    this.tiles.draw(context, camera, this.density);
    this.onFailure(this.tiles.failure);
    if (this.picksShown) drawPicks(context, camera, this.visible(), store, this.radius);
    for (const item of store.selected.values()) {
      if (item.micrograph !== shown.index) continue;
      drawSelected(context, camera, item, this.radius, item.id === store.current?.id);
    }
    const colour = store.classOf(store.brush)?.colour ?? "#ffffff";
    if (this.drag?.lasso) drawLasso(context, camera, this.drag.lasso, colour);
    if (this.canvas.matches(":focus-visible")) drawCross(context, camera, colour);
  }

  showPick(item, close = false) {
    const { camera } = this;
    const near = Math.min(camera.screen.width, camera.screen.height) / (8 * 2 * this.radius);
    if (close) {
      camera.scale = Math.max(camera.scale, near);
      camera.centre(item.x, item.y);
    } else if (!camera.isVisible(item.x, item.y, -this.radius * camera.scale)) camera.centre(item.x, item.y);
    this.plan();
  }

  onLabels(changed) {
    for (const each of changed) {
      const micrograph = this.known.get(each.micrograph);
      if (!micrograph || !this.store.labelOf(each)) continue;
      if (micrograph.items.some((item) => item.id === each.id)) continue;
      const whole = { merit: null, label: null, guess: null, score: null, byHand: true };
      micrograph.items.push(each.byHand ? each : { ...whole, ...each, name: micrograph.name });
    }
    this.plan();
  }

  /** The pick nearest to a point of the screen, not farther than its ring. */
  pickAt(sx, sy) {
    const [x, y] = this.camera.toMicrograph(sx, sy);
    let nearest = null;
    let least = Math.max(this.radius, 10 / this.camera.scale);
    for (const item of this.visible()) {
      const distance = Math.hypot(item.x - x, item.y - y);
      if (distance < least) [nearest, least] = [item, distance];
    }
    return nearest;
  }

  onDown(event) {
    if (!this.shown || event.button > 1) return;
    this.canvas.setPointerCapture(event.pointerId);
    const at = [event.offsetX, event.offsetY];
    const lassoing = this.mode === "lasso" && event.button === 0 && !event.ctrlKey;
    this.drag = { at, last: at, moved: false, lasso: lassoing ? [this.camera.toMicrograph(...at)] : null };
  }

  onMove(event) {
    const { drag, camera } = this;
    if (!drag) return;
    const at = [event.offsetX, event.offsetY];
    if (Math.hypot(at[0] - drag.at[0], at[1] - drag.at[1]) > CLICK) drag.moved = true;
    if (drag.lasso) drag.lasso.push(camera.toMicrograph(...at));
    else if (drag.moved) camera.pan(at[0] - drag.last[0], at[1] - drag.last[1]);
    drag.last = at;
    this.plan();
  }

  onUp(event) {
    const { drag } = this;
    this.endDrag();
    if (!drag) return;
    if (!drag.moved) this.act(event.offsetX, event.offsetY, event.shiftKey);
    else if (drag.lasso) this.closeLasso(drag.lasso);
  }

  endDrag() {
    this.drag = null;
    this.plan();
  }

  closeLasso(points) {
    const inside = this.visible().filter((item) => isInside(points, item.x, item.y));
    if (!inside.length) return this.store.notify("No box in the lasso.");
    this.store.select(inside);
    this.store.label(inside, this.store.brush);
  }

  /** What a click does at a point of the screen. */
  act(sx, sy, extend = false) {
    const { store } = this;
    const item = this.pickAt(sx, sy);
    if (this.mode === "add" && !item) {
      const [x, y] = this.camera.toMicrograph(sx, sy);
      const { width, height } = this.shown;
      if (x < 0 || y < 0 || x >= width || y >= height) return store.notify("That is outside the micrograph.");
      store.select([store.add(this.shown, round(x), round(y), store.brush)]);
    } else if (item) {
      store.select(extend ? [item, ...store.selected.values()] : [item]);
      this.onPick?.(item);
      if (this.mode !== "select") store.label([item], store.brush);
    } else if (this.mode === "select" && !extend) store.select([]);
    return undefined;
  }

  onWheel(event) {
    event.preventDefault();
    if (!this.shown) return;
    const lines = event.deltaMode === 1 ? 16 : 1;
    this.camera.zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015)), event.offsetX, event.offsetY);
    this.plan();
  }

  /** Keys while the micrograph has the focus. True where the key was for it. */
  onKey(event) {
    const pans = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
    const { camera } = this;
    if (pans[event.key]) camera.pan(...pans[event.key]);
    else if (event.key === "Enter") this.act(camera.screen.width / 2, camera.screen.height / 2, event.shiftKey);
    else return false;
    this.plan();
    return true;
  }
}

function round(value) {
  return Math.round(value * 100) / 100;
}
