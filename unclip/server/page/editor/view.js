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

/** @param {HTMLCanvasElement} canvas @param {() => Scene} scene */
export function createView(canvas, scene) {
  const context = canvas.getContext("2d");
  const over = new OffscreenCanvas(1, 1);
  const overPen = over.getContext("2d");
  let dense = devicePixelRatio;
  let pattern = hatch(overPen, dense);
  let scale = 1; // px of the canvas per pixel of the plane
  let left = 0; // of the plane's zero on the canvas
  let top = 0;
  let asked = false;
  let placed = false;

  function ask() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => ((asked = false), draw()));
  }

  function draw() {
    const { layers, frame, candidate, masked, brush, locked } = scene();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!layers) return;
    const { picture, mask, origin } = layers;
    context.setTransform(scale, 0, 0, scale, left, top);
    context.imageSmoothingEnabled = scale < 3;
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, origin.x, origin.y);
    if (masked) drawMask(mask, origin);
    context.setTransform(scale, 0, 0, scale, left, top);
    if (candidate) context.drawImage(candidate, frame.x, frame.y, frame.side, frame.side);
    context.setTransform(1, 0, 0, 1, 0, 0);
    drawFrame(frame, locked);
    if (brush) drawBrush(brush);
  }

  function drawMask(mask, origin) {
    overPen.setTransform(1, 0, 0, 1, 0, 0);
    overPen.globalCompositeOperation = "source-over";
    overPen.clearRect(0, 0, over.width, over.height);
    overPen.setTransform(scale, 0, 0, scale, left, top);
    overPen.drawImage(mask, origin.x, origin.y);
    overPen.setTransform(1, 0, 0, 1, 0, 0);
    overPen.globalCompositeOperation = "source-in";
    overPen.fillStyle = pattern;
    overPen.fillRect(0, 0, over.width, over.height);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.drawImage(over, 0, 0);
  }

  function drawFrame({ x, y, side }, locked) {
    const rect = [Math.round(left + x * scale) + 0.5, Math.round(top + y * scale) + 0.5, Math.round(side * scale), Math.round(side * scale)];
    context.lineWidth = 4 * dense;
    context.strokeStyle = "rgb(0 0 0 / 0.55)";
    context.strokeRect(...rect);
    context.lineWidth = 2 * dense;
    context.strokeStyle = "#fff";
    context.setLineDash(locked ? [] : [8 * dense, 5 * dense]);
    context.strokeRect(...rect);
    context.setLineDash([]);
  }

  function drawBrush({ x, y, radius }) {
    for (const [width, colour] of [[3, "rgb(0 0 0 / 0.6)"], [1.5, "#fff"]]) {
      context.beginPath();
      context.arc(left + x * scale, top + y * scale, Math.max(2, radius * scale), 0, 7);
      context.lineWidth = width * dense;
      context.strokeStyle = colour;
      context.stroke();
    }
  }

  /** Shows a rectangle of the plane whole. */
  function fit({ x, y, width, height }) {
    const margin = Math.min(56 * dense, canvas.width / 10);
    scale = Math.min((canvas.width - margin * 2) / width, (canvas.height - margin * 2) / height, 8 * dense);
    scale = Math.max(ZOOM.least, scale);
    left = canvas.width / 2 - (x + width / 2) * scale;
    top = canvas.height / 2 - (y + height / 2) * scale;
    ask();
  }

  new ResizeObserver(([entry]) => {
    const [was, wasHigh] = [canvas.width, canvas.height];
    dense = devicePixelRatio;
    canvas.width = over.width = Math.max(1, Math.round(entry.contentRect.width * dense));
    canvas.height = over.height = Math.max(1, Math.round(entry.contentRect.height * dense));
    pattern = hatch(overPen, dense);
    left += (canvas.width - was) / 2;
    top += (canvas.height - wasHigh) / 2;
    if (!placed && scene().layers && canvas.width > 1) view.fitAll();
    draw(); // at once: a canvas that was resized is empty
  }).observe(canvas);

  const view = {
    ask,
    get scale() {
      return scale / dense;
    },
    /** A point of the page on the plane. */
    toPlane(event) {
      const box = canvas.getBoundingClientRect();
      return { x: ((event.clientX - box.left) * dense - left) / scale, y: ((event.clientY - box.top) * dense - top) / scale };
    },
    /** The middle of what is seen. */
    middle: () => ({ x: (canvas.width / 2 - left) / scale, y: (canvas.height / 2 - top) / scale }),
    pan(dx, dy) {
      left += dx * dense;
      top += dy * dense;
      ask();
    },
    /** Zooms by a factor and keeps a point of the plane where it is. */
    zoom(factor, at = view.middle()) {
      const next = Math.min(ZOOM.most * dense, Math.max(ZOOM.least, scale * factor));
      left += at.x * (scale - next);
      top += at.y * (scale - next);
      scale = next;
      ask();
    },
    /** The picture and the frame, whole. */
    fitAll() {
      const { layers, frame } = scene();
      if (!layers || canvas.width < 2) return void (placed = false);
      const { picture, origin } = layers;
      const x = Math.min(origin.x, frame.x);
      const y = Math.min(origin.y, frame.y);
      const right = Math.max(origin.x + picture.width, frame.x + frame.side);
      const bottom = Math.max(origin.y + picture.height, frame.y + frame.side);
      placed = true;
      fit({ x, y, width: right - x, height: bottom - y });
    },
  };
  return view;
}
