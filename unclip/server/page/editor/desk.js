/** What lies on the canvas and what the hand holds: the layers, the frame, the tool, and the steps back. */

import { announce } from "../dom.js";
import { fillMask, newLayers, sizeOf, stroke } from "./document.js";
import { PlaneInput } from "./input.js";
import { createUndo } from "./undo.js";
import { PlaneView } from "./view.js";

const LARGEST = 2048; // px of a frame's side
const RADIUS = { least: 1, most: 100, share: 16 }; // px; a new picture's brush is a sixteenth of its frame

export class Desk {
  /** @type {import("./document.js").Layers | null} */
  layers = null;
  tool = "brush";
  radius = 20;
  /** @type {CanvasImageSource | null} cut to the frame's holes, while one is shown */
  candidate = null;
  #config;
  #given;
  #brush = null; // where it hovers
  #dirty = null; // of the stroke that is drawn

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {import("../api.js").ServerConfig} config
   * @param {object} given
   * @param {() => boolean} given.locked whether the frame stands still, since something is made for it
   * @param {() => boolean} given.bare whether the mask is out of the way
   * @param {() => void} given.changed layers, frame or mask
   */
  constructor(canvas, config, given) {
    this.canvas = canvas;
    this.#config = config;
    this.#given = given;
    this.frame = { x: 0, y: 0, side: config.default_size };
    this.undo = createUndo({ get: () => this.layers, set: (next) => (this.layers = next) }, given.changed);
    this.view = new PlaneView(canvas, () => this.#scene());
    new PlaneInput(canvas, this);
  }

  /** Whether the frame stands still. */
  get locked() {
    return this.#given.locked();
  }

  #scene() {
    const { layers, frame, locked } = this;
    const brush = this.#brush && { ...this.#brush, radius: this.radius };
    return { layers, frame, locked, brush, candidate: locked ? this.candidate : null, masked: !this.#given.bare() };
  }

  /** Lays a picture on the desk, or an empty frame. @param {ImageBitmap | null} bitmap */
  begin(bitmap) {
    this.layers = newLayers(bitmap, this.#config.default_size);
    const { width, height } = sizeOf(this.layers);
    const side = Math.min(width, height, LARGEST);
    this.frame = { x: Math.round((width - side) / 2), y: Math.round((height - side) / 2), side };
    this.#settle();
    this.undo.clear();
    this.take(bitmap ? "brush" : "frame");
    this.view.fitAll();
  }

  /** Lays out again what was kept. */
  restore({ picture, mask, origin, frame }) {
    this.layers = { ...newLayers(picture, 1), origin };
    this.layers.mask.getContext("2d", { willReadFrequently: true }).drawImage(mask, 0, 0);
    this.frame = frame;
    this.#settle();
    this.view.fitAll();
  }

  #settle() {
    this.radius = Math.max(4, Math.round(this.frame.side / RADIUS.share));
  }

  /** @param {string} tool a key of TOOLS */
  take(tool) {
    this.tool = tool;
    this.#brush = null;
    this.view.ask();
  }

  resize(radius) {
    this.radius = Math.min(RADIUS.most, Math.max(RADIUS.least, radius));
    this.view.ask();
  }

  /** Widths that the frame may have, in px. */
  get sides() {
    const { width, height } = this.layers ? sizeOf(this.layers) : { width: LARGEST, height: this.#config.default_size };
    return [...new Set([...this.#config.sizes, this.frame.side, Math.min(width, height, LARGEST)])].sort((a, b) => a - b);
  }

  setSide(side) {
    const shift = Math.round((this.frame.side - side) / 2);
    this.frame = { x: this.frame.x + shift, y: this.frame.y + shift, side };
    this.view.ask();
    this.#given.changed();
  }

  /** @param {{x: number, y: number}} to @param {boolean} done false while it is still dragged */
  moveFrame(to, done) {
    this.frame = { ...this.frame, ...to };
    this.view.ask();
    if (!done) return;
    this.#given.changed();
    announce(`Frame at ${this.frame.x}, ${this.frame.y}`);
  }

  /** @param {{x: number, y: number} | null} at */
  hover(at) {
    this.#brush = at;
    this.view.ask();
  }

  beginStroke() {
    this.undo.begin();
    this.#dirty = null;
  }

  stroke(from, to) {
    const rect = stroke(this.layers, from, to, this.radius, this.tool === "eraser");
    const before = this.#dirty ?? rect;
    const [left, top] = [Math.min(rect.left, before.left), Math.min(rect.top, before.top)];
    this.#dirty = new DOMRect(left, top, Math.max(rect.right, before.right) - left, Math.max(rect.bottom, before.bottom) - top);
    this.view.ask();
  }

  endStroke() {
    this.undo.end(this.#dirty);
  }

  /** A stroke that turned out to be the first finger of two. */
  dropStroke() {
    this.endStroke();
    this.undo.undo();
  }

  /** Covers the frame, or uncovers everything. */
  cover(all) {
    if (!this.layers) return;
    const { mask, origin } = this.layers;
    this.undo.begin();
    if (all) fillMask(this.layers, this.frame, true);
    else fillMask(this.layers, { ...origin, side: Math.max(mask.width, mask.height) }, false);
    this.undo.end(new DOMRect(0, 0, mask.width, mask.height));
  }
}
