// The page of `pickeropt label`: puts the parts together.

import { Controls } from "./controls.js";
import { Gallery } from "./gallery.js";
import { Header } from "./header.js";
import { Jobs } from "./jobs.js";
import { restoreFocus, listen, writeHelp } from "./keys.js";
import { MicrographView } from "./micrograph.js";
import { MicrographList } from "./micrographs.js";
import { Results } from "./results.js";
import { Side } from "./side.js";
import { Store } from "./store.js";
import { SKIP } from "./tile.js";

const STABLE_ORDERS = ["file", "random", "merit", "suggested"]; // orders that a new model does not change

const find = (name) => document.querySelector(name);
const store = new Store();
const gallery = new Gallery(store, find("#gallery"), (text) => {
  find("#gallery-note").textContent = text;
});
const side = new Side(store, find, () => gallery.list.total);
const view = new MicrographView(store, find("#micrograph"), (failure) => side.showFailure(failure));
side.view = view;
const controls = new Controls(find, {
  onDisplay: setDisplay,
  onList: (asked) => openList(asked),
  micrograph: () => view.wanted ?? 0,
});
new Header(store, find, choose);
const results = new Results(store, find("#results"));
const names = new MicrographList(store, find("#micrograph-dialog"), (index) => openMicrograph(index));
const buttons = { suggest: find("#suggest"), finetune: find("#finetune"), prune: find("#prune") };
new Jobs(store, find("#job"), buttons, onDone);

let turn = Promise.resolve();

async function attempt(what) {
  try {
    return await what();
  } catch (error) {
    store.notify(error.message, "fault");
    return undefined;
  }
}

function setDisplay(display) {
  gallery.setDisplay(display);
  view.setDisplay(display);
}

function openList(asked) {
  return attempt(() => gallery.open(asked));
}

async function openMicrograph(index, item = null) {
  await attempt(() => view.open(index, item, item !== null));
  if (find("#only-this").checked && gallery.list.asked.micrograph !== index) await openList(controls.asked());
}

function step(by) {
  const { micrographs } = store.state;
  const count = Array.isArray(micrographs) ? micrographs.length : micrographs;
  const index = (view.wanted ?? 0) + by;
  if (index < 0 || index >= count) return store.notify(`This is the ${by > 0 ? "last" : "first"} micrograph.`);
  store.select([]); // no key may label a box that is out of view
  return openMicrograph(index);
}

/** A class was chosen, by its key or its button: label the selected boxes, or make it the class that clicks give. */
function choose(name) {
  store.brush = name;
  store.emit("brush");
  if (view.mode === "select") give(name);
  else store.notify(`Class to give: ${name}.`);
}

/** One after the other: a key may be pressed before its box has loaded. */
function give(name) {
  turn = turn.then(async () => {
    await gallery.moving;
    const items = [...store.selected.values()];
    if (!items.length) return store.notify("No box is selected.");
    store.label(items, name);
    if (controls.movesOn && name !== null) gallery.advance();
    return undefined;
  });
}

async function suggested() {
  await controls.choose({ order: "suggested" });
  find("#gallery").focus();
}

/** Scores are read again; the list changes only in the page that started the job. */
function onDone({ kind }, own) {
  attempt(() => view.again());
  if (!own) return STABLE_ORDERS.includes(gallery.list.asked.order) && gallery.again();
  if (kind === "suggest") return attempt(suggested);
  if (kind === "prune") return controls.choose({ order: "score" });
  return gallery.again();
}

function nudge(by) {
  const slider = find("#threshold");
  if (!store.state.pruned) return;
  slider.value = (Number(slider.value) + by).toFixed(2);
  results.slide();
  results.saveSoon();
}

function setMode(mode) {
  view.mode = mode;
  side.showMode();
}

function escape() {
  if (view.mode !== "select") setMode("select");
  else if (store.selected.size > 1) store.select(store.current ? [store.current] : []);
}

async function addClass() {
  const dialog = find("#class-dialog");
  const input = find("#class-name");
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  input.focus();
}

function onClassDialog() {
  const name = find("#class-name").value.trim();
  if (find("#class-dialog").returnValue !== "add" || !name) return;
  attempt(async () => {
    await store.addClass(name);
    const { key } = store.classOf(name);
    store.notify(`Class ${name} has ${key ? `key ${key}` : "no key: click on it to give it"}.`);
  });
}

function showPicks() {
  view.picksShown = !view.picksShown;
  find("#show-picks").setAttribute("aria-pressed", String(view.picksShown));
  view.plan();
}

function goToMicrograph() {
  const item = store.current;
  if (item) openMicrograph(item.micrograph, item);
}

const actions = {
  " ": () => give(SKIP),
  0: () => give(null),
  Delete: () => give(null),
  u: () => store.undo(),
  Enter: goToMicrograph,
  n: () => step(1),
  p: () => step(-1),
  i: () => attempt(() => names.open(view.wanted)),
  m: () => find("#only-this").click(),
  v: () => setMode("select"),
  b: () => setMode("paint"),
  a: () => setMode("add"),
  l: () => setMode("lasso"),
  "+": () => zoom(1.3),
  "=": () => zoom(1.3),
  "-": () => zoom(1 / 1.3),
  f: fit,
  o: showPicks,
  s: () => buttons.suggest.click(),
  "[": () => nudge(-0.01),
  "]": () => nudge(0.01),
  w: () => results.save(),
  c: addClass,
  r: () => gallery.again(),
  t: () => controls.nextTheme(),
  g: () => find("#gallery").focus(),
  j: () => find("#micrograph").focus(),
  "?": () => find("#help-dialog").showModal(),
  "/": () => find("#help-dialog").showModal(),
  Escape: escape,
};
for (let key = 1; key <= 9; key++) {
  actions[key] = () => {
    const kind = store.state.classes[key - 1];
    if (kind) choose(kind.name);
    else store.notify(`No class has key ${key}; c adds one.`);
  };
}

function zoom(factor) {
  view.camera.zoom(factor);
  view.plan();
}

function fit() {
  view.camera.fit();
  view.plan();
}

const clicks = {
  undo: actions.u, help: actions["?"], "new-class": addClass, again: actions.r, previous: actions.p,
  next: actions.n, micrographs: actions.i, fit, "show-picks": showPicks,
  "class-cancel": () => find("#class-dialog").close(),
};
for (const [name, act] of Object.entries(clicks)) find(`#${name}`).addEventListener("click", act);
find("#class-dialog").addEventListener("close", onClassDialog);

gallery.onOpen = goToMicrograph;
gallery.onPick = (item) => {
  if (view.mode === "paint") store.label([item], store.brush);
};
view.onPick = (item) => gallery.follow(item);
store.addEventListener("selection", () => {
  const item = store.current;
  if (item && item.micrograph === view.wanted) view.showPick(item);
  else if (item && !find("#only-this").checked) attempt(() => view.open(item.micrograph, item));
});
store.addEventListener("state", () => {
  controls.setClasses(store.state.classes);
  find("#kept").disabled = !store.state.pruned;
});
store.addEventListener("reload", () => {
  gallery.again();
  attempt(() => view.again());
});
store.addEventListener("restarted", async () => {
  const { current } = store;
  store.select([]); // no label may go to an old number
  gallery.list.start();
  const read = gallery.again();
  await attempt(() => view.reload());
  await read;
  if (current && !store.current) gallery.go(gallery.active, false, false);
});
store.addEventListener("written", () => gallery.list.asked.kept !== "all" && gallery.again());
store.addEventListener("growing", () => gallery.again());
store.addEventListener("fitted", () => {
  attempt(() => view.again());
  // other orders would change while the user labels
  if (STABLE_ORDERS.includes(gallery.list.asked.order)) gallery.again();
});

async function begin() {
  writeHelp(find("#help-dialog tbody"));
  side.makeModes(setMode);
  find("#modes").addEventListener("click", (event) => event.detail && find("#micrograph").focus());
  listen(actions, gallery, view);
  restoreFocus(find("#gallery"));
  await attempt(() => store.start());
  if (!store.state) {
    setTimeout(() => location.reload(), 4000);
    return;
  }
  setDisplay(controls.display());
  await openList(controls.asked());
  find("#gallery").focus();
  if (!store.current) await openMicrograph(0);
}

begin();
