// Where the micrograph lies on the canvas. Row 0 of the file is at the bottom, as in RELION, EMAN and IMOD:
// "shown" coordinates are (x, height - y), px of the micrograph; screen coordinates are CSS px.

const NEAREST = 8; // CSS px for one px of the micrograph
const MARGIN = 0.85; // of the whole micrograph, the least zoom

export class Camera {
  constructor() {
    this.scale = 1; // CSS px for one px of the micrograph
    this.left = 0; // shown coordinates of the canvas's upper left corner
    this.up = 0;
    this.width = this.height = 0; // of the micrograph
    this.screen = { width: 1, height: 1 };
  }

  get whole() {
    return Math.min(this.screen.width / this.width, this.screen.height / this.height);
  }

  fit() {
    this.scale = this.whole;
    this.centre(this.width / 2, this.height / 2);
  }

  centre(x, y) {
    this.left = x - this.screen.width / 2 / this.scale;
    this.up = this.height - y - this.screen.height / 2 / this.scale;
    this.clamp();
  }

  pan(dx, dy) {
    this.left -= dx / this.scale;
    this.up -= dy / this.scale;
    this.clamp();
  }

  /** Zoom by a factor about a point of the screen. */
  zoom(factor, sx = this.screen.width / 2, sy = this.screen.height / 2) {
    const scale = Math.min(NEAREST, Math.max(this.whole * MARGIN, this.scale * factor));
    this.left += sx / this.scale - sx / scale;
    this.up += sy / this.scale - sy / scale;
    this.scale = scale;
    this.clamp();
  }

  /** Keep the micrograph in view; one that is smaller than the canvas is centred. */
  clamp() {
    this.left = clamped(this.left, this.screen.width / this.scale, this.width);
    this.up = clamped(this.up, this.screen.height / this.scale, this.height);
  }

  toScreen(x, y) {
    return [(x - this.left) * this.scale, (this.height - y - this.up) * this.scale];
  }

  toMicrograph(sx, sy) {
    return [this.left + sx / this.scale, this.height - (this.up + sy / this.scale)];
  }

  isVisible(x, y, margin) {
    const [sx, sy] = this.toScreen(x, y);
    const { width, height } = this.screen;
    return sx > -margin && sy > -margin && sx < width + margin && sy < height + margin;
  }
}

function clamped(start, seen, length) {
  if (seen >= length) return (length - seen) / 2;
  const beyond = Math.min(0.05 * seen, length - seen); // so that an edge is seen as one
  return Math.min(Math.max(start, -beyond), length - seen + beyond);
}
