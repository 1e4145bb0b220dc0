// One box of the gallery: its picture, and in words and colour what is said of it.

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

/** Write on a tile what is known of its pick. */
export function dressTile(tile, item, store, count, index) {
  const { key, fate, foot } = tile.parts;
  const label = store.labelOf(item);
  const sort = store.classOf(label ?? item.guess);
  const said = label === SKIP ? "skipped" : label ? "label" : item.guess ? "guess" : "none";
  const kept = store.isKept(item);
  tile.dataset.said = said;
  tile.dataset.kept = kept === null ? "" : kept ? "yes" : "no";
  tile.classList.toggle("current", store.current?.id === item.id);
  tile.setAttribute("aria-selected", String(store.selected.has(item.id)));
  tile.style.setProperty("--sort", sort?.colour ?? "transparent");
  tile.style.setProperty("--ink", sort ? inkOn(sort.colour) : "inherit");
  key.textContent = said === "skipped" ? "–" : sort ? (said === "guess" ? `${sort.mark}?` : sort.mark) : "";
  fate.textContent = kept === null ? "" : `${kept ? "✓" : "✕"} ${item.score.toFixed(2)}`;
  foot.textContent = said === "skipped" ? "skipped" : sort ? (said === "guess" ? `${sort.name}?` : sort.name) : "";
  tile.setAttribute("aria-label", describe(item, store, said, kept));
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
export function describe(item, store, said, kept) {
  const words = [nameOf(item)];
  const label = store.labelOf(item);
  if (said === "label") words.push(`labelled ${label}`);
  else words.push(said === "skipped" ? "skipped" : "no label");
  if (item.guess && said !== "label") words.push(`looks like ${item.guess}`);
  if (kept !== null) words.push(`${kept ? "kept" : "rejected"}, score ${item.score.toFixed(2)}`);
  return words.join(", ");
}
