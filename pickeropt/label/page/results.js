// After pruning: picks kept and rejected by class, and the slider of the threshold.

import { get, post } from "./api.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 400;
const HIGH = 64;
const SAVE_DELAY = 300; // ms

export class Results {
  constructor(store, panel) {
    Object.assign(this, { store, panel });
    const find = (name) => panel.querySelector(name);
    this.chart = find("svg");
    this.slider = find("#threshold");
    this.value = find("#threshold-value");
    this.table = find("tbody");
    this.write = find("#write-threshold");
    this.note = find("#results-note");
    this.scores = null;
    this.slider.addEventListener("input", () => this.slide());
    this.slider.addEventListener("change", () => this.saveSoon());
    this.write.addEventListener("click", () => this.save());
    store.addEventListener("state", () => this.onState());
  }

  async onState() {
    const { pruned } = this.store.state;
    this.panel.hidden = !pruned;
    if (!pruned) {
      this.scores = null;
      return;
    }
    this.note.textContent = `in ${pruned.out.split("/").at(-1)}/`;
    this.note.title = pruned.out;
    const run = JSON.stringify([pruned, this.store.state.classes.length]);
    if (run !== this.run) {
      this.run = run;
      this.scores = await get("/api/scores").catch(() => null);
    }
    if (document.activeElement !== this.slider) this.slider.value = this.store.threshold;
    this.draw();
  }

  slide() {
    this.store.threshold = Number(this.slider.value);
    this.draw();
    this.store.emit("threshold");
  }

  /** A key that is held changes the slider many times: the last value is written. */
  saveSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), SAVE_DELAY);
  }

  async save() {
    const { store } = this;
    const { threshold } = store;
    if (threshold === null || threshold === store.state.pruned?.threshold) return;
    if (this.write.disabled) return this.saveSoon(); // one is being written
    this.write.disabled = true;
    try {
      const { kept, rejected } = await post("/api/threshold", { threshold });
      store.notify(`Written with threshold ${threshold.toFixed(2)}: ${kept} kept, ${rejected} rejected.`);
      await store.refreshState();
      store.emit("written");
    } catch (error) {
      store.notify(`The threshold was not written: ${error.message}`, "fault");
    }
    this.write.disabled = false;
    this.draw();
    return undefined;
  }

  draw() {
    const { threshold } = this.store;
    if (threshold === null) return;
    const waiting = threshold !== this.store.state.pruned.threshold;
    this.value.textContent = threshold.toFixed(2);
    this.slider.setAttribute("aria-valuetext", `${threshold.toFixed(2)}${waiting ? ", not written yet" : ""}`);
    this.write.hidden = !waiting;
    const histogram = this.scores?.histogram;
    if (!histogram) return;
    const rows = this.rows(histogram, threshold);
    this.fillTable(rows);
    this.drawBars(histogram, threshold);
  }

  /** [name, kept, rejected] of each class that the model gave, and of all. */
  rows({ edges, counts }, threshold) {
    const first = edges.findIndex((edge) => edge >= threshold - 1e-9);
    const sum = (list) => list.reduce((a, b) => a + b, 0);
    const rows = Object.entries(counts).map(([name, bins]) => {
      const kept = sum(bins.slice(Math.min(first, bins.length)));
      return [name, kept, sum(bins) - kept];
    });
    return [...rows, ["all", sum(rows.map((row) => row[1])), sum(rows.map((row) => row[2]))]];
  }

  fillTable(rows) {
    this.table.replaceChildren(
      ...rows.map(([name, kept, rejected]) => {
        const row = document.createElement("tr");
        const kind = this.store.classOf(name);
        const head = document.createElement("th");
        head.scope = "row";
        head.textContent = kind ? `${kind.mark} ${name}` : name;
        if (kind) head.style.setProperty("--class-colour", kind.colour);
        row.append(head);
        const share = kept + rejected ? `${Math.round((100 * kept) / (kept + rejected))} %` : "";
        for (const text of [kept.toLocaleString("en-GB"), rejected.toLocaleString("en-GB"), share]) {
          const cell = document.createElement("td");
          cell.textContent = text;
          row.append(cell);
        }
        return row;
      }),
    );
  }

  /** Stacked bars by class over the score; square roots, so that few show beside many. */
  drawBars({ edges, counts }, threshold) {
    const bins = edges.length - 1;
    const names = Object.keys(counts);
    const totals = Array.from({ length: bins }, (_, at) => names.reduce((sum, name) => sum + counts[name][at], 0));
    const highest = Math.sqrt(Math.max(1, ...totals));
    const parts = [];
    for (let at = 0; at < bins; at++) {
      let below = HIGH;
      const scale = totals[at] ? (HIGH * Math.sqrt(totals[at])) / highest / totals[at] : 0;
      for (const name of names) {
        const height = counts[name][at] * scale;
        if (!height) continue;
        below -= height;
        const bar = make("rect", { x: edges[at] * WIDE, y: below, width: WIDE / bins, height });
        bar.style.fill = this.store.classOf(name)?.colour ?? "currentColor";
        if (edges[at] < threshold - 1e-9) bar.classList.add("out");
        parts.push(bar);
      }
    }
    const x = threshold * WIDE;
    parts.push(make("line", { x1: x, x2: x, y1: 0, y2: HIGH, class: "mark" }));
    this.chart.setAttribute("viewBox", `0 0 ${WIDE} ${HIGH}`);
    this.chart.replaceChildren(...parts);
    const all = this.rows({ edges, counts }, threshold).at(-1);
    this.chart.setAttribute("aria-label", `Histogram of the scores; ${all[1]} kept, ${all[2]} rejected`);
  }
}

function make(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}
