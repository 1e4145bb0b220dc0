// The picks on the micrograph: a ring in the colour of the class, its key beside it, and a cross where it was rejected.

import { SKIP, inkOn } from "./tile.js";

const SMALLEST = 3; // CSS px, radius
const WITH_KEY = 8; // CSS px, radius from which the key is written
const WITH_ALL = 13; // CSS px, radius from which also the many that look like the first class have theirs
const HALO = "rgba(0, 0, 0, 0.65)";
const BLANK = "#ffffff";

/** Colour, key and line of a pick. */
export function styleOf(item, store) {
  const label = store.labelOf(item);
  const kind = store.classOf(label ?? item.guess);
  const labelled = label !== null && label !== SKIP;
  return {
    colour: kind?.colour ?? BLANK,
    key: kind ? kind.mark : label === SKIP ? "–" : "",
    labelled,
    rejected: store.isKept(item) === false,
    usual: !labelled && kind === store.state.classes[0],
    faint: label === SKIP || (!labelled && !item.guess),
  };
}

/** All picks, batched by style: thousands cost a few ms. */
export function drawPicks(context, camera, items, store, radiusPx) {
  const radius = Math.max(SMALLEST, radiusPx * camera.scale);
  const batches = new Map();
  const keys = [];
  for (const item of items) {
    if (!camera.isVisible(item.x, item.y, radius + 4)) continue;
    const style = styleOf(item, store);
    const { colour, labelled, rejected, faint } = style;
    const name = `${colour}${labelled}${rejected}${faint}`;
    if (!batches.has(name)) batches.set(name, { ...style, path: new Path2D() });
    const [x, y] = camera.toScreen(item.x, item.y);
    ring(batches.get(name).path, x, y, radius, rejected);
    if (style.key && radius >= (style.usual ? WITH_ALL : WITH_KEY)) keys.push([x, y, style]);
  }
  for (const { path, colour, labelled, faint } of batches.values()) {
    context.setLineDash(labelled || faint ? [] : [4, 3]);
    stroke(context, path, HALO, (labelled ? 5 : 3) - (radius < WITH_KEY ? 1 : 0));
    stroke(context, path, colour, labelled ? 2.5 : faint ? 1 : 1.5);
  }
  context.setLineDash([]);
  for (const [x, y, { key, colour }] of keys) {
    badge(context, key, x + radius * 0.71, y - radius * 0.71, colour);
  }
}

function ring(path, x, y, radius, rejected) {
  path.moveTo(x + radius, y);
  path.arc(x, y, radius, 0, 2 * Math.PI);
  if (!rejected) return;
  const arm = radius * 0.5;
  path.moveTo(x - arm, y - arm);
  path.lineTo(x + arm, y + arm);
  path.moveTo(x + arm, y - arm);
  path.lineTo(x - arm, y + arm);
}

function stroke(context, path, colour, width) {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke(path);
}

/** A key on its colour, its lower left corner at (x, y). */
function badge(context, text, x, y, colour) {
  context.font = "700 11px system-ui, sans-serif";
  const width = context.measureText(text).width + 6;
  context.fillStyle = colour;
  context.fillRect(x, y - 13, width, 14);
  context.fillStyle = inkOn(colour);
  context.textBaseline = "middle";
  context.fillText(text, x + 3, y - 5.5);
}

/** Corners around a selected pick; the current one has them thicker and farther out. */
export function drawSelected(context, camera, item, radiusPx, current) {
  const half = Math.max(SMALLEST, radiusPx * camera.scale) + (current ? 6 : 4);
  const arm = Math.max(5, half * 0.4);
  const [x, y] = camera.toScreen(item.x, item.y);
  const path = new Path2D();
  for (const [h, v] of [[-1, -1], [1, -1], [-1, 1], [1, 1]]) {
    path.moveTo(x + h * half, y + v * (half - arm));
    path.lineTo(x + h * half, y + v * half);
    path.lineTo(x + h * (half - arm), y + v * half);
  }
  stroke(context, path, "#000000", current ? 6 : 4);
  stroke(context, path, "#ffffff", current ? 3 : 1.5);
}

/** The lasso as it is drawn: points [x, y] px of the micrograph. */
export function drawLasso(context, camera, points, colour) {
  const path = new Path2D();
  points.forEach(([x, y], place) => {
    const [sx, sy] = camera.toScreen(x, y);
    if (place) path.lineTo(sx, sy);
    else path.moveTo(sx, sy);
  });
  path.closePath();
  context.globalAlpha = 0.2;
  context.fillStyle = colour;
  context.fill(path);
  context.globalAlpha = 1;
  stroke(context, path, HALO, 4);
  stroke(context, path, colour, 2);
}

/** A cross in the middle: where Enter acts when the keyboard is used. */
export function drawCross(context, camera, colour) {
  const [x, y] = [camera.screen.width / 2, camera.screen.height / 2];
  const path = new Path2D("M-16 0H-4M4 0H16M0-16V-4M0 4V16");
  context.save();
  context.translate(x, y);
  stroke(context, path, "#000000", 4);
  stroke(context, path, colour, 2);
  context.restore();
}

/** Whether (x, y) is inside a closed line of points: even-odd rule. */
export function isInside(points, x, y) {
  let inside = false;
  for (let i = 0, j = points.length - 1; i < points.length; j = i++) {
    const [xi, yi] = points[i];
    const [xj, yj] = points[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) inside = !inside;
  }
  return inside;
}
