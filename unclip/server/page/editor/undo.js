/** Steps back and forth: strokes as the pixels they changed, accepted candidates as whole layers. */

import { copyMask, pasteMask } from "./document.js";

const MOST = 100;
const MOST_BYTES = 256 * 2 ** 20;

/** @typedef {import("./document.js").Layers} Layers */

/** @param {{get: () => Layers, set: (layers: Layers) => void}} holder of the layers @param {() => void} changed */
export function createUndo(holder, changed) {
  let past = [];
  let future = [];
  let scratch = null;

  function push(step) {
    past.push(step);
    future = [];
    let bytes = past.reduce((sum, each) => sum + each.bytes, 0);
    while (past.length > MOST || (bytes > MOST_BYTES && past.length > 1)) bytes -= past.shift().bytes;
    changed();
  }

  function go(from, to, side) {
    const step = from.pop();
    if (!step) return false;
    to.push(step);
    if (step.layers) holder.set(step.layers[side]);
    else pasteMask(holder.get(), step.patch[side]);
    changed();
    return true;
  }

  return {
    get canUndo() {
      return past.length > 0;
    },
    get canRedo() {
      return future.length > 0;
    },
    /** Remembers the mask before it is changed. */
    begin() {
      const { mask } = holder.get();
      scratch = new OffscreenCanvas(mask.width, mask.height);
      scratch.getContext("2d", { willReadFrequently: true }).drawImage(mask, 0, 0);
    },
    /** The mask has changed within `rect`. */
    end(rect) {
      const before = copyMask({ mask: scratch }, rect);
      scratch = null;
      if (!before) return;
      const after = copyMask(holder.get(), rect);
      push({ patch: [before, after], bytes: before.image.data.length * 2 });
    },
    /** Swaps the layers for others. */
    replace(next) {
      const before = holder.get();
      holder.set(next);
      push({ layers: [before, next], bytes: next.picture.width * next.picture.height * 8 });
    },
    undo: () => go(past, future, 0),
    redo: () => go(future, past, 1),
    clear() {
      past = [];
      future = [];
      changed();
    },
  };
}
