/** Mouse, pen, touch and keyboard on the canvas, as strokes, moves of the frame, pans and zooms. */

const SNAP = 8; // px of the screen
const PAN = 40; // px of the screen, by an arrow
const PAINT = ["brush", "eraser"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class PlaneInput {
  #canvas;
  #desk;
  #pointers = new Map();
  #doing = null; // {what: "stroke" | "frame" | "pan" | "pinch", ...}
  #spaceHeld = false;
  #cursor = null; // of the keyboard

  /** @param {HTMLCanvasElement} canvas @param {import("./desk.js").Desk} desk */
  constructor(canvas, desk) {
    this.#canvas = canvas;
    this.#desk = desk;
    canvas.addEventListener("pointerdown", (event) => this.#start(event));
    canvas.addEventListener("pointermove", (event) => ((this.#cursor = null), this.#move(event)));
    canvas.addEventListener("pointerup", (event) => this.#stop(event));
    canvas.addEventListener("pointercancel", (event) => this.#stop(event));
    canvas.addEventListener("pointerleave", () => this.#doing || desk.hover(null));
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => ((this.#spaceHeld = false), (this.#cursor = null), desk.hover(null)));
    document.addEventListener("keyup", (event) => event.key === " " && (this.#spaceHeld = false));
  }

  get #paints() {
    return PAINT.includes(this.#desk.tool) && !this.#desk.locked;
  }

  #start(event) {
    const { layers, view, tool, locked } = this.#desk;
    if (!layers || event.button > 1) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, event);
    if (this.#pointers.size === 2) {
      if (this.#doing?.what === "stroke") this.#desk.dropStroke();
      this.#doing = { what: "pinch", ...this.#spread() };
    } else if (this.#pointers.size > 2) return;
    else if (event.button === 1 || this.#spaceHeld || tool === "hand" || locked) this.#doing = { what: "pan", x: event.clientX, y: event.clientY };
    else if (this.#paints) this.#beginStroke(view.toPlane(event));
    else this.#beginFrame(view.toPlane(event));
    event.preventDefault();
    this.#canvas.focus({ preventScroll: true });
  }

  #beginStroke(at) {
    this.#desk.beginStroke();
    this.#desk.stroke(at, at);
    this.#doing = { what: "stroke", last: at };
  }

  #beginFrame(at) {
    const { frame } = this.#desk;
    const inside = at.x >= frame.x && at.y >= frame.y && at.x < frame.x + frame.side && at.y < frame.y + frame.side;
    this.#doing = { what: "frame", x: inside ? at.x - frame.x : frame.side / 2, y: inside ? at.y - frame.y : frame.side / 2 };
    if (!inside) this.#drag(at);
  }

  /** Of two fingers: how far apart, and the point between. */
  #spread() {
    const [a, b] = [...this.#pointers.values()];
    return { distance: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY), x: (a.clientX + b.clientX) / 2, y: (a.clientY + b.clientY) / 2 };
  }

  #move(event) {
    if (this.#pointers.has(event.pointerId)) this.#pointers.set(event.pointerId, event);
    const at = this.#desk.view.toPlane(event);
    this.#desk.hover(this.#paints && event.pointerType !== "touch" ? at : null);
    if (this.#doing?.what === "stroke") this.#draw(event);
    else if (this.#doing?.what === "frame") this.#drag(at);
    else if (this.#doing?.what === "pan") this.#pan(event);
    else if (this.#doing && this.#pointers.size === 2) this.#pinch();
  }

  #draw(event) {
    for (const each of event.getCoalescedEvents?.() ?? [event]) {
      const to = this.#desk.view.toPlane(each);
      this.#desk.stroke(this.#doing.last, to);
      this.#doing.last = to;
    }
  }

  #pan({ clientX, clientY }) {
    this.#desk.view.pan(clientX - this.#doing.x, clientY - this.#doing.y);
    this.#doing = { what: "pan", x: clientX, y: clientY };
  }

  #pinch() {
    const { view } = this.#desk;
    const next = this.#spread();
    view.pan(next.x - this.#doing.x, next.y - this.#doing.y);
    view.zoom(next.distance / Math.max(1, this.#doing.distance), view.toPlane({ clientX: next.x, clientY: next.y }));
    this.#doing = { what: "pinch", ...next };
  }

  /** Moves the frame, which clings to the edges of the picture when it comes near. */
  #drag(at) {
    const { frame, layers, view } = this.#desk;
    const near = SNAP / view.scale;
    const cling = (value, low, high) => {
      const places = [low, high - frame.side, low - frame.side, high, (low + high - frame.side) / 2];
      return Math.round(places.find((place) => Math.abs(place - value) < near) ?? value);
    };
    const { picture, origin } = layers;
    const x = cling(at.x - this.#doing.x, origin.x, origin.x + picture.width);
    this.#desk.moveFrame({ x, y: cling(at.y - this.#doing.y, origin.y, origin.y + picture.height) }, false);
  }

  #stop(event) {
    if (!this.#pointers.delete(event.pointerId)) return;
    if (this.#doing?.what === "stroke") this.#desk.endStroke();
    if (this.#doing?.what === "frame") this.#desk.moveFrame(this.#desk.frame, true);
    this.#doing = null;
  }

  #wheel(event) {
    const { layers, view } = this.#desk;
    if (!layers) return;
    event.preventDefault();
    const way = event.deltaY * (event.deltaMode === 1 ? 16 : 1); // lines, else px
    if (event.shiftKey) view.pan(-way, 0);
    else view.zoom(Math.exp(-way * (event.ctrlKey ? 0.01 : 0.0015)), view.toPlane(event));
  }

  /** The arrows move what the tool holds; Space paints under the keyboard's brush. */
  #key(event) {
    if (!this.#desk.layers || this.#desk.locked || event.ctrlKey || event.metaKey || event.altKey) return;
    const way = ARROWS[event.key];
    if (way) this.#arrow(way, event.shiftKey);
    else if (event.key === " " && this.#cursor && this.#paints) this.#dot();
    else if (event.key === " ") this.#spaceHeld = true;
    else return;
    event.preventDefault();
  }

  /** @param {number[]} way @param {boolean} far */
  #arrow([x, y], far) {
    const { tool, frame, radius, view } = this.#desk;
    if (tool === "hand") return view.pan(-x * PAN, -y * PAN);
    const step = tool === "frame" ? (far ? 64 : 8) : Math.max(1, Math.round(radius * (far ? 4 : 1)));
    if (tool === "frame") return this.#desk.moveFrame({ x: frame.x + x * step, y: frame.y + y * step }, true);
    this.#cursor ??= view.middle();
    this.#cursor = { x: this.#cursor.x + x * step, y: this.#cursor.y + y * step };
    this.#desk.hover(this.#cursor);
  }

  #dot() {
    this.#desk.beginStroke();
    this.#desk.stroke(this.#cursor, this.#cursor);
    this.#desk.endStroke();
  }
}
