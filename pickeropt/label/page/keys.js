// Every action by keyboard; the help is written from the same table.

const ARROWS = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"];

/** [keys as written in the help, what they do]; the gallery and the micrograph read arrows themselves. */
export const HELP = [
  ["1 … 9", "label the selected boxes; in Label, Add and Lasso mode: choose the class to give"],
  ["← → ↑ ↓", "another box; on the micrograph: pan"],
  ["Shift + arrows", "select many boxes, then a number labels them all"],
  ["PgUp PgDn Home End", "a page up or down, first or last box"],
  ["Space", "skip: no label; then the next box"],
  ["0 or Del", "remove the label"],
  ["u or Ctrl + z", "undo your last action"],
  ["Enter", "show the box on the micrograph; on the micrograph: act at the cross"],
  ["n / p", "next or previous micrograph"],
  ["i", "list of micrographs"],
  ["m", "gallery of this micrograph only, or of all"],
  ["v / b / a / l", "mode: Select, Label, Add, Lasso"],
  ["+ / - / f", "micrograph: zoom in, zoom out, whole"],
  ["o", "picks on the micrograph: hide or show"],
  ["s", "suggest the next twenty boxes"],
  ["[ / ]", "threshold down or up by 0.01, after pruning"],
  ["w", "write the threshold"],
  ["c", "new class"],
  ["r", "reload the gallery"],
  ["t", "light or dark"],
  ["Tab, Shift + Tab", "to the next or previous control; g: gallery, j: micrograph"],
  ["? or /", "this help; Esc closes it, and leaves a mode"],
];

/** `actions`: key -> function; gallery and micrograph have onKey(event). */
export function listen(actions, gallery, micrograph) {
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || event.altKey || event.isComposing) return;
    const { target } = event;
    if (target.matches("select, textarea, input:not([type=range], [type=checkbox], [type=radio])")) return;
    if (event.ctrlKey || event.metaKey) {
      if (event.key === "z" && !event.shiftKey) run(event, actions.u);
      return;
    }
    if (belongsTo(target, event.key)) return;
    if (target === micrograph.canvas && micrograph.onKey(event)) event.preventDefault();
    else if (target !== micrograph.canvas && ARROWS.includes(event.key)) {
      if (gallery.onKey(event)) event.preventDefault();
    } else run(event, actions[event.key.length === 1 ? event.key.toLowerCase() : event.key]);
  });
}

/** A control used by mouse does not keep the keyboard focus: it goes back to `element`. */
export function restoreFocus(element) {
  let mouse = false;
  const give = ({ type, target }) => {
    const control = target.closest(type === "click" ? "button" : "select, input");
    if (mouse && control && !control.closest("dialog, #modes")) element.focus();
  };
  document.addEventListener("pointerdown", () => (mouse = true), true);
  document.addEventListener("keydown", () => (mouse = false), true);
  document.addEventListener("click", give, true); // before a dialog opens, which gives the focus back to where it was
  document.addEventListener("change", give);
}

/** Keys that a control needs for itself. */
function belongsTo(target, key) {
  if (target.matches("input[type=range], input[type=radio]")) return ARROWS.includes(key) || key === " ";
  if (target.matches("button, input[type=checkbox], summary, a")) return key === " " || key === "Enter";
  return false;
}

function run(event, action) {
  if (!action) return;
  event.preventDefault();
  action(event);
}

/** Fill the help's table. */
export function writeHelp(body) {
  body.replaceChildren(
    ...HELP.map(([keys, text]) => {
      const row = document.createElement("tr");
      const head = document.createElement("th");
      head.scope = "row";
      head.textContent = keys;
      const cell = document.createElement("td");
      cell.textContent = text;
      row.append(head, cell);
      return row;
    }),
  );
}
