// One box of the gallery: its picture, class, result and description.

export const SKIP = "skip";

/** The tile's elements, empty. */
export function makeTile() {
  const tile = document.createElement("div");
  tile.className = "tile";
  tile.setAttribute("role", "option");
  const picture = document.createElement("img");
  picture.alt = "";
  picture.draggable = false;
  const key = document.createElement("span");
  key.className = "key";
  const fate = document.createElement("span");
  fate.className = "fate";
  const foot = document.createElement("span");
  foot.className = "foot";
  tile.append(picture, key, fate, foot);
  tile.parts = { picture, key, fate, foot };
  return tile;
}

/** Black or white, whichever reads better on a colour #rrggbb. */
export function inkOn(colour) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  return light > 0.18 ? "#000000" : "#ffffff";
}

/** Show the class, result and description of a pick on its tile. */
export function updateTile(tile, item, store, count, index) {
  const { key, fate, foot } = tile.parts;
  const label = store.labelOf(item);
  const kind = store.classOf(label ?? item.guess);
  const status = label === SKIP ? "skipped" : label ? "label" : item.guess ? "guess" : "none";
  const kept = store.isKept(item);
  tile.dataset.status = status;
  tile.dataset.kept = kept === null ? "" : kept ? "yes" : "no";
  tile.classList.toggle("current", store.current?.id === item.id);
  tile.setAttribute("aria-selected", String(store.selected.has(item.id)));
  tile.style.setProperty("--class-colour", kind?.colour ?? "transparent");
  tile.style.setProperty("--ink", kind ? inkOn(kind.colour) : "inherit");
  key.textContent = status === "skipped" ? "–" : kind ? (status === "guess" ? `${kind.mark}?` : kind.mark) : "";
  fate.textContent = kept === null ? "" : `${kept ? "✓" : "✕"} ${item.score.toFixed(2)}`;
  foot.textContent = status === "skipped" ? "skipped" : kind ? (status === "guess" ? `${kind.name}?` : kind.name) : "";
  tile.setAttribute("aria-label", describe(item, store, status, kept));
  tile.setAttribute("aria-posinset", String(index + 1));
  tile.setAttribute("aria-setsize", String(count));
}

const FIRST_ADDED = 1e9; // ids of the server: from here on boxes that were added by hand

/** Whether it was added by hand. */
export function isAdded({ id }) {
  return id < 0 || id >= FIRST_ADDED;
}

/** What a pick is called. */
export function nameOf({ id }) {
  return isAdded({ id }) ? "Added box" : `Box ${id}`;
}

/** A pick in one line of words. */
export function describe(item, store, status, kept) {
  const words = [nameOf(item)];
  const label = store.labelOf(item);
  if (status === "label") words.push(`labelled ${label}`);
  else words.push(status === "skipped" ? "skipped" : "no label");
  if (item.guess && status !== "label") words.push(`predicted ${item.guess}`);
  if (kept !== null) words.push(`${kept ? "kept" : "rejected"}, score ${item.score.toFixed(2)}`);
  return words.join(", ");
}
