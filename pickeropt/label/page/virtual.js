// A list of which only what is in view is in the document.
//
// Browsers do not make an element higher than some 30 million px. A longer list therefore scrolls in pages:
// small steps move by what was asked, and a jump of the scroll bar changes the page (`offset`).

import { oncePerFrame } from "./frame.js";

const HIGHEST = 8e6; // px
const OVERSCAN = 2; // rows above and below

export class VirtualList {
  /**
   * viewport : the element that scrolls
   * make() -> element;  bind(element, index);  unbind(element)
   */
  constructor(viewport, { make, bind, unbind, onView }) {
    Object.assign(this, { viewport, make, bind, unbind, onView });
    this.spacer = document.createElement("div");
    this.spacer.className = "spacer";
    this.spacer.setAttribute("role", "presentation");
    viewport.append(this.spacer);
    this.shown = new Map(); // index -> element
    this.free = [];
    this.count = 0;
    this.size = { width: 100, height: 100 };
    this.columns = 1;
    this.offset = 0;
    this.before = 0;
    this.plan = oncePerFrame(() => this.draw());
    viewport.addEventListener("scroll", () => this.onScroll(), { passive: true });
    new ResizeObserver(() => this.layout()).observe(viewport);
  }

  /** n entries of width x height px; a width of 0 is one column over all. */
  set(count, width, height) {
    const first = this.firstInView();
    this.count = count;
    this.size = { width, height };
    this.layout(first);
  }

  firstInView() {
    return Math.floor(this.top() / this.size.height) * this.columns;
  }

  top() {
    return this.viewport.scrollTop + this.offset;
  }

  layout(first = this.firstInView()) {
    const { clientWidth, clientHeight } = this.viewport;
    if (!clientWidth) return;
    this.columns = this.size.width ? Math.max(1, Math.floor(clientWidth / this.size.width)) : 1;
    this.pitch = clientWidth / this.columns;
    this.total = Math.ceil(this.count / this.columns) * this.size.height;
    this.height = Math.min(this.total, HIGHEST);
    this.page = this.total > HIGHEST ? HIGHEST / 100 : Math.max(this.height, 1);
    const pages = Math.max(1, Math.floor(this.total / this.page));
    this.jump = pages > 1 ? (this.total - this.height) / (pages - 1) : 0;
    this.pages = pages;
    this.inView = clientHeight;
    this.spacer.style.height = `${this.height}px`;
    this.goTo(Math.floor(first / this.columns) * this.size.height);
    this.refresh();
  }

  /** Scroll so that `y`, px of the whole list, is at the top. */
  goTo(y) {
    const top = Math.min(Math.max(0, y), Math.max(0, this.total - this.inView));
    const page = Math.min(this.pages - 1, Math.floor(top / this.page));
    const offset = Math.round(page * this.jump);
    if (offset !== this.offset) {
      this.offset = offset;
      this.place();
    }
    this.before = top - offset;
    this.viewport.scrollTop = this.before;
    this.plan();
  }

  onScroll() {
    const now = this.viewport.scrollTop;
    const step = now - this.before;
    if (this.total > this.height && step) {
      if (Math.abs(step) < this.inView) {
        this.goTo(now + this.offset);
        return;
      }
      const share = (this.total - this.inView) / Math.max(1, this.height - this.inView);
      const page = Math.min(this.pages - 1, Math.floor((now * share) / this.page));
      this.offset = Math.round(page * this.jump);
      this.place();
    }
    this.before = now;
    this.plan();
  }

  /** Bring an entry into view, moving as little as possible. */
  show(index) {
    const y = Math.floor(index / this.columns) * this.size.height;
    const top = this.top();
    if (y < top) this.goTo(y);
    else if (y + this.size.height > top + this.inView) this.goTo(y + this.size.height - this.inView);
    this.draw();
  }

  /** The indices that are drawn: [first, end). */
  range() {
    const row = Math.floor(this.top() / this.size.height);
    const rows = Math.ceil(this.inView / this.size.height);
    const first = Math.max(0, row - OVERSCAN) * this.columns;
    return [first, Math.min(this.count, (row + rows + 1 + OVERSCAN) * this.columns)];
  }

  draw() {
    if (!this.inView) return;
    const [first, end] = this.range();
    for (const [index, element] of this.shown) {
      if (index >= first && index < end) continue;
      this.unbind(element);
      this.shown.delete(index);
      this.free.push(element);
    }
    for (let index = first; index < end; index++) {
      if (this.shown.has(index)) continue;
      const element = this.free.pop() ?? this.add();
      element.hidden = false;
      this.shown.set(index, element);
      this.position(element, index);
      this.bind(element, index);
    }
    for (const element of this.free) element.hidden = true;
    this.onView?.(first, end);
  }

  add() {
    const element = this.make();
    element.classList.add("entry");
    this.spacer.append(element);
    return element;
  }

  place() {
    for (const [index, element] of this.shown) this.position(element, index);
  }

  position(element, index) {
    const x = Math.round((index % this.columns) * this.pitch);
    const y = Math.floor(index / this.columns) * this.size.height - this.offset;
    element.style.transform = `translate(${x}px, ${y}px)`;
  }

  /** Bind everything in view anew. */
  refresh() {
    for (const [index, element] of this.shown) {
      this.unbind(element);
      if (index >= this.count) {
        this.shown.delete(index);
        this.free.push(element);
        element.hidden = true;
      } else {
        this.position(element, index);
        this.bind(element, index);
      }
    }
    this.draw();
  }
}
