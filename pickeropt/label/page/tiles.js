// The micrograph's picture: tiles of 256 px, level k binned 2**k times, fetched for what is in view.

import { ImageQueue, query } from "./api.js";

const SIDE = 256;

export class Tiles {
  constructor(changed) {
    this.changed = changed;
    const release = (bitmap) => bitmap.close();
    this.images = new ImageQueue(2, 256, (blob) => createImageBitmap(blob), release);
    this.wanted = new Map(); // url -> cancel
    this.failure = null;
  }

  /** Another micrograph (as /api/micrograph has it), or other display settings. */
  open(micrograph, { lowpass, contrast }, run) {
    this.drop();
    this.micrograph = micrograph;
    this.display = query({ lowpass, contrast, run }); // boxes of another run are not taken from the browser's cache
    this.failure = null;
  }

  drop() {
    for (const cancel of this.wanted.values()) cancel();
    this.wanted.clear();
  }

  address(level, tx, ty) {
    return `/api/micrograph/${this.micrograph.index}/tile/${level}/${tx}/${ty}.png${this.display}`;
  }

  level(camera, density) {
    const finest = Math.floor(Math.log2(1 / (camera.scale * density)) + 0.3);
    return Math.min(Math.max(0, finest), this.micrograph.levels - 1);
  }

  /** Draw the tiles that are loaded, coarse under fine, and request the others. */
  draw(context, camera, density) {
    const level = this.level(camera, density);
    const asked = new Set();
    const top = this.micrograph.levels - 1;
    context.imageSmoothingEnabled = camera.scale * density < 3;
    for (const each of top > level ? [top, level] : [level]) {
      for (const [tx, ty] of this.inView(camera, each)) {
        const url = this.address(each, tx, ty);
        const bitmap = this.images.cached(url);
        if (bitmap) this.place(context, camera, bitmap, each, tx, ty);
        else {
          asked.add(url);
          if (each === level && level < top) this.drawCoarser(context, camera, level, tx, ty);
        }
      }
    }
    this.ask(asked);
  }

  inView(camera, level) {
    const span = SIDE * 2 ** level;
    const last = (length) => Math.ceil(length / span) - 1;
    const from = (start) => Math.max(0, Math.floor(start / span));
    const to = (start, extent, length) => Math.min(last(length), Math.floor((start + extent) / span));
    const { left, up, scale, screen, width, height } = camera;
    const cells = [];
    for (let ty = from(up); ty <= to(up, screen.height / scale, height); ty++) {
      for (let tx = from(left); tx <= to(left, screen.width / scale, width); tx++) cells.push([tx, ty]);
    }
    return cells;
  }

  place(context, camera, bitmap, level, tx, ty) {
    const span = SIDE * 2 ** level;
    const x = (tx * span - camera.left) * camera.scale;
    const y = (ty * span - camera.up) * camera.scale;
    const size = 2 ** level * camera.scale;
    context.drawImage(bitmap, x, y, bitmap.width * size, bitmap.height * size);
  }

  /** While a tile is loading: its part of the next coarser tile that is loaded. */
  drawCoarser(context, camera, level, tx, ty) {
    for (let up = 1; level + up < this.micrograph.levels - 1; up++) {
      const [px, py] = [tx >> up, ty >> up];
      const bitmap = this.images.cached(this.address(level + up, px, py));
      if (!bitmap) continue;
      const part = SIDE / 2 ** up;
      const [sx, sy] = [(tx - (px << up)) * part, (ty - (py << up)) * part];
      const [sw, sh] = [Math.min(part, bitmap.width - sx), Math.min(part, bitmap.height - sy)];
      if (sw <= 0 || sh <= 0) return;
      const span = SIDE * 2 ** level;
      const size = 2 ** (level + up) * camera.scale;
      const x = (tx * span - camera.left) * camera.scale;
      const y = (ty * span - camera.up) * camera.scale;
      context.drawImage(bitmap, sx, sy, sw, sh, x, y, sw * size, sh * size);
      return;
    }
  }

  ask(asked) {
    for (const [url, cancel] of this.wanted) {
      if (asked.has(url)) continue;
      cancel();
      this.wanted.delete(url);
    }
    for (const url of asked) {
      if (this.wanted.has(url)) continue;
      const cancel = this.images.request(url, (bitmap, failure) => {
        if (failure) this.failure = failure; // stays wanted: not asked for at every frame
        else this.wanted.delete(url);
        this.changed();
      });
      if (!this.images.kept.has(url)) this.wanted.set(url, cancel);
    }
  }
}
