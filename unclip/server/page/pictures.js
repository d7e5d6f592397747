/** Pictures of the server as elements: lazily loaded, with the key where one is needed, and growing out of noise. */

import { hasKey, imageUrl, send, thumbUrl } from "./api.js";
import { calm, el } from "./dom.js";

const NOISE = 64;
const FRAME = 140; // ms between two noises

let seen = null;

/** Loads a picture that needs the key once it comes near the screen; an <img> alone cannot say who asks. */
function loadWhenNear(image, url) {
  seen ??= new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        seen.unobserve(target);
        fill(target, target.dataset.url);
      }
    },
    { rootMargin: "800px" },
  );
  image.dataset.url = url;
  seen.observe(image);
}

async function fill(image, url) {
  try {
    const made = URL.createObjectURL(await (await send(url)).blob());
    image.addEventListener("load", () => URL.revokeObjectURL(made), { once: true });
    image.src = made;
  } catch {
    image.dispatchEvent(new Event("error"));
  }
}

/**
 * A stored picture.
 * @param {string} id
 * @param {{alt?: string, full?: boolean, lazy?: boolean}} [given] full: not the thumb
 * @returns {HTMLImageElement}
 */
export const picture = (id, { full = false, ...how } = {}) => pictureAt(full ? imageUrl(id) : thumbUrl(id), { ...how, image: id });

/**
 * @param {string} url
 * @param {{alt?: string, lazy?: boolean, image?: string}} [given] image: its id, which makes it one that can be dragged
 * @returns {HTMLImageElement}
 */
export function pictureAt(url, { alt = "", lazy = true, image = undefined } = {}) {
  const made = el("img", { alt, decoding: "async", "data-image": image });
  made.addEventListener("error", () => made.classList.add("gone"), { once: true });
  if (lazy) made.loading = "lazy";
  if (!hasKey()) made.src = url;
  else if (lazy) loadWhenNear(made, url);
  else fill(made, url);
  return made;
}

/** Noises that move now. */
const moving = new Set();
let ticking = null;

function tick() {
  for (const canvas of moving) {
    if (!canvas.isConnected) moving.delete(canvas);
    else if (!document.hidden && canvas.checkVisibility({ contentVisibilityAuto: true })) drawNoise(canvas);
  }
  if (moving.size) return;
  clearInterval(ticking);
  ticking = null;
}

function drawNoise(canvas) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(NOISE, NOISE);
  const words = new Uint32Array(image.data.buffer);
  for (let i = 0; i < words.length; i++) {
    const bits = (Math.random() * 0x100000000) >>> 0;
    // Three averages of two bytes: closer to a bell than to a flat line, as x_T is.
    const red = ((bits & 255) + ((bits >>> 12) & 255)) >>> 1;
    const green = (((bits >>> 8) & 255) + ((bits >>> 20) & 255)) >>> 1;
    const blue = (((bits >>> 16) & 255) + ((bits >>> 4) & 255)) >>> 1;
    words[i] = 0xff000000 | (blue << 16) | (green << 8) | red;
  }
  context.putImageData(image, 0, 0);
}

/**
 * A picture that is being made: noise that thins out over the preview beneath.
 * @returns {{element: HTMLElement, update: (slot: import("./state.js").Slot, moves: boolean) => void}}
 */
export function growing() {
  const noise = el("canvas.noise", { width: NOISE, height: NOISE });
  const preview = el("img.preview", { alt: "", hidden: true });
  const element = el("div.growing", { "aria-hidden": "true" }, preview, noise);
  drawNoise(noise);
  return {
    element,
    update(slot, moves) {
      if (slot.preview && preview.src !== slot.preview) preview.src = slot.preview;
      preview.hidden = !slot.preview;
      noise.style.opacity = slot.preview ? String(Math.max(0, 0.85 * (1 - slot.fraction)) ** 1.3) : "";
      element.dataset.moves = String(moves);
      if (!moves || calm()) return void moving.delete(noise);
      moving.add(noise);
      ticking ??= setInterval(tick, FRAME);
    },
  };
}
