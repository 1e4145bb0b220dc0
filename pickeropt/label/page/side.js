// Beside the canvas: which micrograph, which mode, and the details of the selected box.

import { describe } from "./tile.js";
import { MODES } from "./micrograph.js";

const MODE_KEYS = { select: "v", paint: "b", add: "a", lasso: "l" };
const MODE_NOTES = {
  select: () => "",
  paint: (name) => `A click labels a box ${name}`,
  add: (name) => `A click on an empty place adds a box: ${name}`,
  lasso: (name) => `Drag around boxes to label them ${name}`,
};

export class Side {
  constructor(store, find) {
    Object.assign(this, { store, find });
    this.view = null;
    store.addEventListener("micrograph", ({ detail }) => this.showMicrograph(detail));
    for (const name of ["selection", "renewed", "labels", "state", "threshold"]) {
      store.addEventListener(name, () => this.showSelected());
    }
    store.addEventListener("brush", () => this.showMode());
  }

  makeModes(choose) {
    const group = this.find("#modes");
    for (const [mode, text] of Object.entries(MODES)) {
      const label = document.createElement("label");
      const input = document.createElement("input");
      Object.assign(input, { type: "radio", name: "mode", value: mode, checked: mode === "select" });
      input.setAttribute("aria-keyshortcuts", MODE_KEYS[mode]);
      input.addEventListener("change", () => choose(mode));
      const span = document.createElement("span");
      span.textContent = text;
      label.title = `${text} (${MODE_KEYS[mode]})`;
      label.append(input, span);
      group.append(label);
    }
  }

  showMode() {
    const { mode, canvas } = this.view;
    this.find(`#modes input[value=${mode}]`).checked = true;
    canvas.dataset.mode = mode;
    this.find("#mode-note").textContent = MODE_NOTES[mode](this.store.brush);
  }

  showMicrograph({ index, name }) {
    const { micrographs } = this.store.state;
    const count = Array.isArray(micrographs) ? micrographs.length : micrographs;
    this.find("#micrographs").textContent = `${index + 1} / ${count}  ${name.split("/").at(-1)}`;
    this.find("#micrographs").title = `${name}: list of micrographs (i)`;
    this.showSelected();
  }

  showSelected() {
    const { store, view } = this;
    const place = this.find("#inspector");
    this.showCounts(view?.shown);
    const item = store.current;
    if (store.selected.size > 1) {
      place.textContent = `${store.selected.size} boxes selected: a number labels them all`;
      return;
    }
    if (!item) {
      place.textContent = "No box is selected";
      return;
    }
    const label = store.labelOf(item);
    const status = label === "skip" ? "skipped" : label ? "label" : item.guess ? "guess" : "none";
    const words = [describe(item, store, status, store.isKept(item))];
    words.push(`x ${item.x.toFixed(1)}, y ${item.y.toFixed(1)} px`);
    if (item.merit !== null && item.merit !== undefined) words.push(`picker's score ${item.merit.toPrecision(3)}`);
    if (item.score !== null && store.isKept(item) === null) words.push(`P(particle) ${item.score.toFixed(2)}`);
    place.textContent = words.join(" · ");
  }

  showCounts(micrograph) {
    if (!micrograph) return;
    const { store } = this;
    let labels = 0;
    let kept = 0;
    let scored = 0;
    for (const item of micrograph.items) {
      if (store.classOf(store.labelOf(item))) labels += 1;
      const fate = store.isKept(item);
      if (fate !== null) scored += 1;
      if (fate) kept += 1;
    }
    const words = [`${micrograph.items.length} picks`, `${labels} labels`];
    if (scored) words.push(`${kept} kept`);
    this.find("#micrograph-note").textContent = words.join(" · ");
  }

  showFailure(failure) {
    const place = this.find("#stage-fault");
    place.hidden = !failure;
    if (failure) place.textContent = `No picture: ${failure.message}`;
  }
}
