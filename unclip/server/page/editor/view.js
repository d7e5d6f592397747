/** The plane on the screen: zoom, pan, and drawing it when something changed. */

const HATCH = 12; // px of the screen
const ZOOM = { least: 0.05, most: 32 };

/** Stripes in two tones, to be seen on any picture. */
function hatch(context, dense) {
  const side = HATCH * dense;
  const tile = new OffscreenCanvas(side, side);
  const pen = tile.getContext("2d");
  pen.fillStyle = "rgb(255 64 129 / 0.45)";
  pen.fillRect(0, 0, side, side);
  pen.strokeStyle = "rgb(255 255 255 / 0.85)";
  pen.lineWidth = 1.5 * dense;
  pen.beginPath();
  for (const shift of [-side, 0, side]) {
    pen.moveTo(shift - 2, side + 2);
    pen.lineTo(shift + side + 2, -2);
  }
  pen.stroke();
  return context.createPattern(tile, "repeat");
}

/**
 * @typedef {object} Scene what is to be seen
 * @property {import("./document.js").Layers | null} layers
 * @property {import("./document.js").Frame} frame
 * @property {CanvasImageSource | null} candidate already cut to the frame's holes
 * @property {boolean} masked whether the mask shows
 * @property {{x: number, y: number, radius: number} | null} brush
 * @property {boolean} locked whether the frame stands still
 */

export class PlaneView {
  #canvas;
  #scene;
  #context;
  #over = new OffscreenCanvas(1, 1).getContext("2d"); // the mask as stripes
  #dense = devicePixelRatio;
  #pattern;
  #scale = 1; // px of the canvas per pixel of the plane
  #left = 0; // of the plane's zero on the canvas
  #top = 0;
  #asked = false;
  #placed = false;

  /** @param {HTMLCanvasElement} canvas @param {() => Scene} scene */
  constructor(canvas, scene) {
    this.#canvas = canvas;
    this.#scene = scene;
    this.#context = canvas.getContext("2d");
    this.#pattern = hatch(this.#over, this.#dense);
    new ResizeObserver(([entry]) => this.#resize(entry.contentRect)).observe(canvas);
  }

  #resize(box) {
    const { width, height } = this.#canvas;
    this.#dense = devicePixelRatio;
    this.#canvas.width = this.#over.canvas.width = Math.max(1, Math.round(box.width * this.#dense));
    this.#canvas.height = this.#over.canvas.height = Math.max(1, Math.round(box.height * this.#dense));
    this.#pattern = hatch(this.#over, this.#dense);
    this.#left += (this.#canvas.width - width) / 2;
    this.#top += (this.#canvas.height - height) / 2;
    if (!this.#placed && this.#canvas.width > 1) this.fitAll();
    this.#draw(); // at once: a canvas that was resized is empty
  }

  /** Draws with the next frame. */
  ask() {
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => ((this.#asked = false), this.#draw()));
  }

  #draw() {
    const { layers, frame, candidate, masked, brush, locked } = this.#scene();
    const context = this.#context;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    if (!layers) return;
    const { picture, mask, origin } = layers;
    this.#onPlane(context);
    context.imageSmoothingEnabled = this.#scale < 3;
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, origin.x, origin.y);
    if (masked) this.#drawMask(mask, origin);
    this.#onPlane(context);
    if (candidate) context.drawImage(candidate, frame.x, frame.y, frame.side, frame.side);
    context.setTransform(1, 0, 0, 1, 0, 0);
    this.#drawFrame(frame, locked);
    if (brush) this.#drawBrush(brush);
  }

  /** From here on a context is drawn to in pixels of the plane. */
  #onPlane(context) {
    context.setTransform(this.#scale, 0, 0, this.#scale, this.#left, this.#top);
  }

  #drawMask(mask, origin) {
    const over = this.#over;
    over.setTransform(1, 0, 0, 1, 0, 0);
    over.globalCompositeOperation = "source-over";
    over.clearRect(0, 0, over.canvas.width, over.canvas.height);
    this.#onPlane(over);
    over.drawImage(mask, origin.x, origin.y);
    over.setTransform(1, 0, 0, 1, 0, 0);
    over.globalCompositeOperation = "source-in";
    over.fillStyle = this.#pattern;
    over.fillRect(0, 0, over.canvas.width, over.canvas.height);
    this.#context.setTransform(1, 0, 0, 1, 0, 0);
    this.#context.drawImage(over.canvas, 0, 0);
  }

  #drawFrame({ x, y, side }, locked) {
    const [context, scale, dense] = [this.#context, this.#scale, this.#dense];
    const rect = [Math.round(this.#left + x * scale) + 0.5, Math.round(this.#top + y * scale) + 0.5, Math.round(side * scale), Math.round(side * scale)];
    context.lineWidth = 4 * dense;
    context.strokeStyle = "rgb(0 0 0 / 0.55)";
    context.strokeRect(...rect);
    context.lineWidth = 2 * dense;
    context.strokeStyle = "#fff";
    context.setLineDash(locked ? [] : [8 * dense, 5 * dense]);
    context.strokeRect(...rect);
    context.setLineDash([]);
  }

  #drawBrush({ x, y, radius }) {
    const context = this.#context;
    for (const [width, colour] of [[3, "rgb(0 0 0 / 0.6)"], [1.5, "#fff"]]) {
      context.beginPath();
      context.arc(this.#left + x * this.#scale, this.#top + y * this.#scale, Math.max(2, radius * this.#scale), 0, 7);
      context.lineWidth = width * this.#dense;
      context.strokeStyle = colour;
      context.stroke();
    }
  }

  /** px of the page per pixel of the plane */
  get scale() {
    return this.#scale / this.#dense;
  }

  /** A point of the page on the plane. */
  toPlane({ clientX, clientY }) {
    const box = this.#canvas.getBoundingClientRect();
    return { x: ((clientX - box.left) * this.#dense - this.#left) / this.#scale, y: ((clientY - box.top) * this.#dense - this.#top) / this.#scale };
  }

  /** The middle of what is seen. */
  middle() {
    return { x: (this.#canvas.width / 2 - this.#left) / this.#scale, y: (this.#canvas.height / 2 - this.#top) / this.#scale };
  }

  /** @param {number} dx px of the page @param {number} dy */
  pan(dx, dy) {
    this.#left += dx * this.#dense;
    this.#top += dy * this.#dense;
    this.ask();
  }

  /** Zooms by a factor and keeps a point of the plane where it is. */
  zoom(factor, at = this.middle()) {
    const next = Math.min(ZOOM.most * this.#dense, Math.max(ZOOM.least, this.#scale * factor));
    this.#left += at.x * (this.#scale - next);
    this.#top += at.y * (this.#scale - next);
    this.#scale = next;
    this.ask();
  }

  /** Shows the picture and the frame whole; later, if the canvas is not on the screen yet. */
  fitAll() {
    const { layers, frame } = this.#scene();
    this.#placed = layers !== null && this.#canvas.width > 1;
    if (!this.#placed) return;
    const { picture, origin } = layers;
    const x = Math.min(origin.x, frame.x);
    const y = Math.min(origin.y, frame.y);
    const width = Math.max(origin.x + picture.width, frame.x + frame.side) - x;
    const height = Math.max(origin.y + picture.height, frame.y + frame.side) - y;
    const margin = Math.min(56 * this.#dense, this.#canvas.width / 10);
    const fitting = Math.min((this.#canvas.width - margin * 2) / width, (this.#canvas.height - margin * 2) / height, 8 * this.#dense);
    this.#scale = Math.max(ZOOM.least, fitting);
    this.#left = this.#canvas.width / 2 - (x + width / 2) * this.#scale;
    this.#top = this.#canvas.height / 2 - (y + height / 2) * this.#scale;
    this.ask();
  }
}
