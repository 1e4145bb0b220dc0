// The list of micrographs: thousands in a virtual list, searched by name, with counts.

import { get } from "./api.js";
import { VirtualList } from "./virtual.js";

const ROW = 30; // px

export class MicrographList {
  /** dialog holds an input and a listbox; onOpen(index) shows a micrograph. */
  constructor(store, dialog, onOpen) {
    Object.assign(this, { store, dialog, onOpen });
    this.search = dialog.querySelector("input");
    this.box = dialog.querySelector("[role=listbox]");
    this.items = [];
    this.found = [];
    this.active = 0;
    this.virtual = new VirtualList(this.box, {
      make: () => this.make(),
      bind: (row, place) => this.bind(row, place),
      unbind: () => {},
    });
    this.search.addEventListener("input", () => this.filter());
    dialog.addEventListener("keydown", (event) => this.onKey(event));
    this.box.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.choose(row.place);
    });
  }

  async load() {
    this.items = (await get("/api/micrographs")).items;
    this.filter();
  }

  async open(shown) {
    this.dialog.showModal();
    this.search.value = "";
    await this.load();
    this.active = Math.max(0, this.found.findIndex((each) => each.index === shown));
    this.virtual.show(this.active);
    this.virtual.refresh();
    this.search.focus();
  }

  filter() {
    const words = this.search.value.toLowerCase().split(/\s+/);
    this.found = this.items.filter(({ name }) => words.every((word) => name.toLowerCase().includes(word)));
    this.active = 0;
    this.virtual.set(this.found.length, 0, ROW);
    this.virtual.refresh();
    this.box.setAttribute("aria-activedescendant", "row-0");
  }

  make() {
    const row = document.createElement("div");
    row.className = "row";
    row.setAttribute("role", "option");
    row.append(document.createElement("span"), document.createElement("span"));
    return row;
  }

  bind(row, place) {
    const { name, picks, labels } = this.found[place];
    row.place = place;
    row.id = `row-${place}`;
    row.setAttribute("aria-selected", String(place === this.active));
    row.children[0].textContent = name;
    row.children[1].textContent = `${picks} picks, ${labels} labels`;
  }

  choose(place) {
    const item = this.found[place];
    if (!item) return;
    this.dialog.close();
    this.onOpen(item.index);
  }

  onKey(event) {
    const screen = Math.max(1, Math.floor(this.virtual.inView / ROW));
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: screen, PageUp: -screen }[event.key];
    if (event.key === "Enter") this.choose(this.active);
    else if (step) {
      this.active = Math.min(Math.max(0, this.active + step), this.found.length - 1);
      this.virtual.show(this.active);
      this.virtual.refresh();
      this.search.setAttribute("aria-activedescendant", `row-${this.active}`);
    } else return;
    event.preventDefault();
  }
}
