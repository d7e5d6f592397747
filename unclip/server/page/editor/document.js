/**
 * The picture that is edited, on a plane of any size. What is transparent is not known yet; what the mask covers is known but to
 * be painted anew. Coordinates are pixels of the first picture; `origin` is where the canvases' top left corner lies among them.
 */

const OPAQUE = 128; // alpha from here on is a known pixel, below it is not, as on the server

/** @typedef {{x: number, y: number, side: number}} Frame a square of the plane, whole numbers */
/** @typedef {{picture: OffscreenCanvas, mask: OffscreenCanvas, origin: {x: number, y: number}}} Layers */

/** For a canvas that is read often. @returns {OffscreenCanvasRenderingContext2D} */
const pen = (canvas) => canvas.getContext("2d", { willReadFrequently: true });

function blank(width, height) {
  const made = new OffscreenCanvas(Math.max(1, width), Math.max(1, height));
  pen(made); // a canvas without a context has no bytes to keep
  return made;
}

/** Every pixel wholly known or wholly not. */
function decide(canvas) {
  const context = pen(canvas);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  const words = new Uint32Array(image.data.buffer);
  for (let i = 0; i < words.length; i++) words[i] = words[i] >>> 24 >= OPAQUE ? words[i] | 0xff000000 : 0;
  context.putImageData(image, 0, 0);
  return canvas;
}

/** @param {ImageBitmap | null} bitmap null: nothing is known @param {number} side of what is not known then @returns {Layers} */
export function newLayers(bitmap, side) {
  const picture = blank(bitmap?.width ?? side, bitmap?.height ?? side);
  if (bitmap) pen(picture).drawImage(bitmap, 0, 0);
  return { picture: decide(picture), mask: blank(picture.width, picture.height), origin: { x: 0, y: 0 } };
}

/** @param {Layers} layers */
export const sizeOf = ({ picture }) => ({ width: picture.width, height: picture.height });

/**
 * Covers or uncovers a line of the mask.
 * @returns {DOMRect} what may have changed, in the canvases' own pixels
 */
export function stroke({ mask, origin }, from, to, radius, erase) {
  const context = pen(mask);
  context.save();
  context.globalCompositeOperation = erase ? "destination-out" : "source-over";
  context.lineCap = "round";
  context.lineWidth = radius * 2;
  context.strokeStyle = "#fff";
  context.beginPath();
  context.moveTo(from.x - origin.x, from.y - origin.y);
  context.lineTo(to.x - origin.x + 0.001, to.y - origin.y); // a line of no length would leave no dot
  context.stroke();
  context.restore();
  const margin = radius + 2;
  const [left, right] = [Math.min(from.x, to.x) - origin.x - margin, Math.max(from.x, to.x) - origin.x + margin];
  const [top, bottom] = [Math.min(from.y, to.y) - origin.y - margin, Math.max(from.y, to.y) - origin.y + margin];
  return new DOMRect(left, top, right - left, bottom - top);
}

/** Covers or uncovers all of a frame. */
export function fillMask({ mask, origin }, { x, y, side }, cover) {
  const context = pen(mask);
  context.fillStyle = "#fff";
  const rect = [x - origin.x, y - origin.y, side, side];
  cover ? context.fillRect(...rect) : context.clearRect(...rect);
}

/** What is to be painted in a frame: opaque there, transparent where a known pixel stays. */
function holes({ picture, mask, origin }, { x, y, side }) {
  const made = blank(side, side);
  const at = [origin.x - x, origin.y - y];
  const known = blank(side, side);
  pen(known).drawImage(picture, ...at);
  const covered = blank(side, side);
  pen(covered).drawImage(mask, ...at);
  const kept = pen(known).getImageData(0, 0, side, side).data;
  const over = pen(covered).getImageData(0, 0, side, side).data;
  const image = pen(made).createImageData(side, side);
  let count = 0;
  for (let i = 3; i < kept.length; i += 4) {
    if (kept[i] >= OPAQUE && over[i] < OPAQUE) continue;
    image.data.fill(255, i - 3, i + 1);
    count++;
  }
  pen(made).putImageData(image, 0, 0);
  return { canvas: made, share: count / (side * side) };
}

/** How much of a frame is to be painted, 0 to 1. */
export const openShare = (layers, frame) => holes(layers, frame).share;

/**
 * A frame as the server wants it: the known pixels on grey, and white where it shall paint.
 * @param {number} size side in px of what is sent
 */
export async function exportFrame(layers, frame, size) {
  const { canvas: open } = holes(layers, frame);
  const image = blank(size, size);
  const mask = blank(size, size);
  const scale = size / frame.side;
  const at = [(layers.origin.x - frame.x) * scale, (layers.origin.y - frame.y) * scale];
  for (const [canvas, colour] of [[image, "#808080"], [mask, "#000"]]) {
    const context = pen(canvas);
    context.fillStyle = colour;
    context.fillRect(0, 0, size, size);
    context.imageSmoothingQuality = "high";
  }
  pen(image).drawImage(layers.picture, ...at, layers.picture.width * scale, layers.picture.height * scale);
  const context = pen(mask);
  context.imageSmoothingEnabled = false;
  context.drawImage(open, 0, 0, size, size);
  return { image: await image.convertToBlob({ type: "image/png" }), mask: await mask.convertToBlob({ type: "image/png" }) };
}

/** A candidate cut to what is to be painted in its frame. @param {CanvasImageSource} candidate @returns {OffscreenCanvas} */
export function through(layers, frame, candidate) {
  const { canvas } = holes(layers, frame);
  const context = pen(canvas);
  context.globalCompositeOperation = "source-in";
  context.imageSmoothingQuality = "high";
  context.drawImage(candidate, 0, 0, frame.side, frame.side);
  return canvas;
}

/**
 * The layers with a candidate in its frame: grown where the frame reaches out, untouched in every pixel that was known and not
 * covered. The old layers stay as they are, for undo.
 * @returns {Layers}
 */
export function merged(layers, frame, candidate) {
  const { picture, mask, origin } = layers;
  const left = Math.min(origin.x, frame.x);
  const top = Math.min(origin.y, frame.y);
  const right = Math.max(origin.x + picture.width, frame.x + frame.side);
  const bottom = Math.max(origin.y + picture.height, frame.y + frame.side);
  const grown = blank(right - left, bottom - top);
  const covered = blank(right - left, bottom - top);
  pen(grown).drawImage(picture, origin.x - left, origin.y - top);
  pen(grown).drawImage(through(layers, frame, candidate), frame.x - left, frame.y - top);
  pen(covered).drawImage(mask, origin.x - left, origin.y - top);
  const next = { picture: grown, mask: covered, origin: { x: left, y: top } };
  fillMask(next, frame, false);
  return next;
}

/** Pixels of the mask. @returns {{x: number, y: number, image: ImageData} | null} null outside */
export function copyMask({ mask }, rect) {
  const x = Math.max(0, Math.floor(rect.left));
  const y = Math.max(0, Math.floor(rect.top));
  const width = Math.min(mask.width, Math.ceil(rect.right)) - x;
  const height = Math.min(mask.height, Math.ceil(rect.bottom)) - y;
  return width > 0 && height > 0 ? { x, y, image: pen(mask).getImageData(x, y, width, height) } : null;
}

export const pasteMask = ({ mask }, { x, y, image }) => pen(mask).putImageData(image, x, y);

/** @param {Layers} layers @returns {Promise<Blob>} the whole picture; transparent where nothing is known */
export const pictureBlob = ({ picture }) => picture.convertToBlob({ type: "image/png" });
export const maskBlob = ({ mask }) => mask.convertToBlob({ type: "image/png" });
