// Display settings, order and filters: read from the controls, stored in the browser.

const PLACE = "pickeropt-controls";
const THEMES = ["auto", "light", "dark"];
const TEXTS = {
  contrast: (value) => `±${value} σ`,
  lowpass: (value) => (value ? `${value} Å` : "none"),
  view: (value) => `${value} diameters`,
  zoom: (value) => `${value} px`,
};

export class Controls {
  /** onDisplay(display) and onList(asked) after a change; micrograph() gives the index for "this micrograph". */
  constructor(find, { onDisplay, onList, micrograph }) {
    Object.assign(this, { find, onDisplay, onList, micrograph });
    this.remembered = recall();
    for (const name of Object.keys(TEXTS)) {
      const input = find(`#${name}`);
      if (this.remembered[name] !== undefined) input.value = this.remembered[name];
      input.addEventListener("input", () => this.onSlider());
    }
    for (const name of ["order", "class-filter", "kept", "only-this"]) {
      find(`#${name}`).addEventListener("change", () => this.onList(this.asked()));
    }
    const moveOn = find("#move-on");
    moveOn.checked = this.remembered.moveOn ?? true;
    moveOn.addEventListener("change", () => this.remember());
    this.setTheme(this.remembered.theme ?? "auto");
    find("#theme").addEventListener("click", () => this.nextTheme());
    this.writeTexts();
  }

  display() {
    const values = Object.keys(TEXTS).map((name) => [name, Number(this.find(`#${name}`).value)]);
    return Object.fromEntries(values);
  }

  asked() {
    return {
      order: this.find("#order").value,
      class: this.find("#class-filter").value,
      kept: this.find("#kept").value,
      micrograph: this.find("#only-this").checked ? this.micrograph() : null,
    };
  }

  /** Show a list from elsewhere: the values that are given, the others without a filter. */
  choose({ order = "file", name = "", kept = "all" }) {
    this.find("#order").value = order;
    this.find("#class-filter").value = name;
    this.find("#kept").value = kept;
    this.find("#only-this").checked = false;
    return this.onList(this.asked());
  }

  onSlider() {
    this.writeTexts();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.remember();
      this.onDisplay(this.display());
    }, 120);
  }

  writeTexts() {
    for (const [name, text] of Object.entries(TEXTS)) {
      const input = this.find(`#${name}`);
      const status = text(Number(input.value));
      input.previousElementSibling.textContent = status;
      input.setAttribute("aria-valuetext", status);
    }
  }

  /** The classes as they are now, in the filter. */
  setClasses(classes) {
    const select = this.find("#class-filter");
    const { value } = select;
    const options = [["", "all"], ["unlabelled", "no label"], ["skip", "skipped"]];
    options.push(...classes.map(({ name, mark }) => [name, `${mark} ${name}`]));
    if (select.options.length === options.length) return;
    select.replaceChildren(...options.map(([key, text]) => new Option(text, key)));
    select.value = value;
  }

  nextTheme() {
    this.setTheme(THEMES[(THEMES.indexOf(this.theme) + 1) % THEMES.length]);
    this.remember();
    this.onDisplay(this.display());
  }

  setTheme(theme) {
    this.theme = THEMES.includes(theme) ? theme : "auto";
    document.documentElement.dataset.theme = this.theme;
    this.find("#theme").textContent = `Theme: ${this.theme}`;
  }

  get movesOn() {
    return this.find("#move-on").checked;
  }

  remember() {
    try {
      const all = { ...this.display(), theme: this.theme, moveOn: this.movesOn };
      localStorage.setItem(PLACE, JSON.stringify(all));
    } catch {
      // no storage: the controls start anew at the next visit
    }
  }
}

function recall() {
  try {
    return JSON.parse(localStorage.getItem(PLACE) ?? "{}");
  } catch {
    return {};
  }
}
