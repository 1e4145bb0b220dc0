// The head of the page: file, classes with their counts, the estimate, and the state of the connection.

import { inkOn } from "./tile.js";

export class Header {
  constructor(store, find, onClass) {
    Object.assign(this, { store, find, onClass });
    this.buttons = new Map(); // class -> its button
    for (const name of ["state", "counts", "brush"]) store.addEventListener(name, () => this.show());
    store.addEventListener("line", () => this.showLine());
    store.addEventListener("message", ({ detail }) => this.notify(detail));
  }

  show() {
    const { state } = this.store;
    this.find("#file").textContent = state.labels_file.split("/").at(-1);
    this.find("#file").title = state.labels_file;
    this.find("#undo").disabled = !state.can_undo;
    this.showEstimate(state);
    for (const kind of state.classes) this.showClass(kind, state.targets);
    this.showLine();
    this.showProblems(state.problems ?? []);
  }

  showProblems(problems) {
    const place = this.find("#problems");
    place.textContent = problems.join(" · ");
    place.hidden = !problems.length;
  }

  showClass({ name, key, mark, colour, count }, targets) {
    if (!this.buttons.has(name)) this.buttons.set(name, this.makeClass(name, key, mark, colour));
    const button = this.buttons.get(name);
    const target = targets.find((each) => count < each) ?? targets.at(-1);
    button.querySelector(".count").textContent = `${count}/${target}`;
    button.style.setProperty("--share", `${Math.min(100, (100 * count) / target)}%`);
    button.dataset.full = String(count >= targets.at(-1));
    const brush = this.store.brush === name;
    button.setAttribute("aria-pressed", String(brush));
    button.setAttribute("aria-label", `${name}${key ? `, key ${key}` : ""}: ${count} labels of ${target}`);
  }

  makeClass(name, key, mark, colour) {
    const button = document.createElement("button");
    button.className = "class";
    button.dataset.name = name;
    button.style.setProperty("--class-colour", colour);
    button.style.setProperty("--ink", inkOn(colour));
    for (const [part, text] of [["mark", mark], ["name", name], ["count", ""]]) {
      const span = document.createElement("span");
      span.className = part;
      span.textContent = text;
      button.append(span);
    }
    button.title = `Label the selected boxes ${name}${key ? ` (${key})` : ""}`;
    button.addEventListener("click", () => this.onClass(name));
    this.find("#classes").append(button);
    return button;
  }

  showEstimate({ model, loading }) {
    const place = this.find("#estimate");
    if (loading) {
      place.textContent = `reading picks: ${loading.done} of ${loading.total} files`;
      return;
    }
    const estimate = model?.estimate;
    place.dataset.enough = String(Boolean(estimate?.enough));
    if (!estimate) {
      place.textContent = model ? "" : "no estimate yet: label, then Suggest";
      return;
    }
    const range = `${estimate.macro_f1?.toFixed(2)} (${estimate.low?.toFixed(2)}–${estimate.high?.toFixed(2)})`;
    const text = `macro-F1 now ${range}, ${model.labels} labels`;
    place.textContent = estimate.enough ? text : "too few labels for an estimate";
    place.title = estimate.text ?? "";
  }

  showLine() {
    const { line, outbox } = this.store;
    const place = this.find("#line");
    const actions = outbox.size === 1 ? "action is" : "actions are";
    const kept = outbox.size ? ` ${outbox.size} unsent ${actions} kept in this browser and will be sent.` : "";
    const texts = {
      open: "",
      lost: `The server does not answer. Is it running, and is the tunnel open?${kept} Trying again …`,
      unauthorised:
        `The server was restarted and does not know this page. Open the address it printed in this browser.${kept}`,
    };
    if (place.textContent !== texts[line]) place.textContent = texts[line];
    place.hidden = line === "open";
  }

  notify({ text, kind }) {
    const place = this.find("#status");
    place.textContent = text;
    place.dataset.kind = kind;
  }
}
