/** Mouse, pen, touch and keyboard on the canvas, as strokes, moves of the frame, pans and zooms. */

const SNAP = 8; // px of the screen
const PAINT = new Set(["brush", "eraser"]);

/**
 * @param {HTMLCanvasElement} canvas
 * @param {object} given
 * @param {ReturnType<typeof import("./view.js").createView>} given.view
 * @param {() => {tool: string, radius: number, locked: boolean, frame: import("./document.js").Frame,
 *   layers: import("./document.js").Layers | null}} given.now
 * @param {{begin: () => void, stroke: (from: any, to: any, erase: boolean) => void, end: () => void, cancel: () => void}} given.paint
 * @param {(place: {x: number, y: number}, done: boolean) => void} given.moveFrame
 * @param {(brush: {x: number, y: number} | null) => void} given.hover
 */
export function createInput(canvas, { view, now, paint, moveFrame, hover }) {
  const pointers = new Map();
  let doing = null; // {what: "stroke" | "frame" | "pan" | "pinch", ...}
  let spaceHeld = false;
  let cursor = null; // of the keyboard

  function start(event) {
    const { tool, locked, frame, layers } = now();
    if (!layers || event.button > 1) return;
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, event);
    const at = view.toPlane(event);
    if (pointers.size === 2) {
      if (doing?.what === "stroke") paint.cancel();
      doing = { what: "pinch", ...spread() };
    } else if (pointers.size > 2) return;
    else if (event.button === 1 || spaceHeld || tool === "hand" || locked) doing = { what: "pan", x: event.clientX, y: event.clientY };
    else if (PAINT.has(tool)) {
      paint.begin();
      paint.stroke(at, at, tool === "eraser");
      doing = { what: "stroke", last: at };
    } else {
      const inside = at.x >= frame.x && at.y >= frame.y && at.x < frame.x + frame.side && at.y < frame.y + frame.side;
      doing = { what: "frame", x: inside ? at.x - frame.x : frame.side / 2, y: inside ? at.y - frame.y : frame.side / 2 };
      if (!inside) drag(at);
    }
    event.preventDefault();
    canvas.focus({ preventScroll: true });
  }

  function spread() {
    const [a, b] = [...pointers.values()];
    return { distance: Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY), x: (a.clientX + b.clientX) / 2, y: (a.clientY + b.clientY) / 2 };
  }

  function move(event) {
    if (pointers.has(event.pointerId)) pointers.set(event.pointerId, event);
    const { tool, locked } = now();
    const at = view.toPlane(event);
    hover(PAINT.has(tool) && !locked && event.pointerType !== "touch" ? at : null);
    if (!doing) return;
    if (doing.what === "stroke") {
      for (const each of event.getCoalescedEvents?.() ?? [event]) {
        const to = view.toPlane(each);
        paint.stroke(doing.last, to, tool === "eraser");
        doing.last = to;
      }
    } else if (doing.what === "frame") drag(at);
    else if (doing.what === "pan") {
      view.pan(event.clientX - doing.x, event.clientY - doing.y);
      doing = { what: "pan", x: event.clientX, y: event.clientY };
    } else if (pointers.size === 2) {
      const next = spread();
      view.pan(next.x - doing.x, next.y - doing.y);
      view.zoom(next.distance / Math.max(1, doing.distance), view.toPlane({ clientX: next.x, clientY: next.y }));
      doing = { what: "pinch", ...next };
    }
  }

  /** Moves the frame, which clings to the edges of the picture when it comes near. */
  function drag(at) {
    const { frame, layers } = now();
    const near = SNAP / view.scale;
    const cling = (value, low, high) => {
      const places = [low, high - frame.side, low - frame.side, high, (low + high - frame.side) / 2];
      return Math.round(places.find((place) => Math.abs(place - value) < near) ?? value);
    };
    const { picture, origin } = layers;
    moveFrame({ x: cling(at.x - doing.x, origin.x, origin.x + picture.width), y: cling(at.y - doing.y, origin.y, origin.y + picture.height) }, false);
  }

  function stop(event) {
    if (!pointers.delete(event.pointerId)) return;
    if (doing?.what === "stroke") paint.end();
    if (doing?.what === "frame") moveFrame(now().frame, true);
    doing = null;
  }

  function wheel(event) {
    if (!now().layers) return;
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    if (event.shiftKey) view.pan(-event.deltaY * lines, 0);
    else view.zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015)), view.toPlane(event));
  }

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  /** The arrows move what the tool holds; Space paints under the keyboard's brush. */
  function key(event) {
    const { tool, radius, locked, frame, layers } = now();
    if (!layers || locked || event.ctrlKey || event.metaKey || event.altKey) return;
    const way = ARROWS[event.key];
    if (way) {
      const step = { hand: 40, frame: event.shiftKey ? 64 : 8 }[tool] ?? Math.max(1, Math.round(radius * (event.shiftKey ? 4 : 1)));
      if (tool === "hand") view.pan(-way[0] * step, -way[1] * step);
      else if (tool === "frame") moveFrame({ x: frame.x + way[0] * step, y: frame.y + way[1] * step }, true);
      else {
        cursor ??= view.middle();
        cursor = { x: cursor.x + way[0] * step, y: cursor.y + way[1] * step };
        hover(cursor);
      }
      event.preventDefault();
    } else if (event.key === " ") {
      event.preventDefault();
      if (cursor && PAINT.has(tool)) {
        paint.begin();
        paint.stroke(cursor, cursor, tool === "eraser");
        paint.end();
      } else spaceHeld = true;
    }
  }

  canvas.addEventListener("pointerdown", start);
  canvas.addEventListener("pointermove", (event) => ((cursor = null), move(event)));
  canvas.addEventListener("pointerup", stop);
  canvas.addEventListener("pointercancel", stop);
  canvas.addEventListener("pointerleave", () => doing || hover(null));
  canvas.addEventListener("wheel", wheel, { passive: false });
  canvas.addEventListener("keydown", key);
  document.addEventListener("keyup", (event) => event.key === " " && (spaceHeld = false));
  canvas.addEventListener("blur", () => ((spaceHeld = false), (cursor = null), hover(null)));
}
