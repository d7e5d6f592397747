/** The frames between pictures, one under a slider: dragged, stepped with the arrows, or played to and fro. */

import { button, calm, el, icon } from "./dom.js";
import { growing, picture } from "./pictures.js";

const FRAME = 120; // ms

/** @param {string} title @param {(image: string) => void} open */
export function flipbook(title, open) {
  const stage = el("button.flip-stage", { type: "button", "aria-label": `Open this frame: ${title}` });
  const frames = el("div.flip-frames");
  const slider = el("input", { type: "range", min: 0, max: 1, value: 0, step: 1, "aria-label": `Frame of ${title}` });
  const grown = growing();
  const images = new Map();
  let slots = [];
  let running = false;
  let timer = null;
  let way = 1;

  function show(index) {
    const slot = slots[index];
    slider.value = String(index);
    slider.setAttribute("aria-valuetext", `Frame ${index + 1} of ${slots.length}`);
    stage.disabled = !slot.image;
    [...frames.children].forEach((frame, other) => frame.toggleAttribute("data-shown", other === index));
    grown.element.hidden = Boolean(slot.image);
    for (const [other, image] of images) image.hidden = other !== index;
    if (slot.image && !images.has(index)) {
      const made = picture(slot.image, { lazy: false });
      images.set(index, made);
      stage.append(made);
    }
    if (!slot.image) grown.update(slot, running);
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    player.replaceChildren(icon("play"));
    player.setAttribute("aria-label", "Play");
  }

  function play() {
    slots.forEach((_, index) => show(index)); // loads them all
    timer = setInterval(() => {
      const next = Number(slider.value) + way;
      if (next < 0 || next >= slots.length) way = -way;
      if (!stage.isConnected) stop();
      else show(Math.min(slots.length - 1, Math.max(0, Number(slider.value) + way)));
    }, calm() ? FRAME * 4 : FRAME);
    player.replaceChildren(icon("pause"));
    player.setAttribute("aria-label", "Pause");
  }

  /** A small picture of each frame, to go there at once. */
  function line(index) {
    const frame = frames.children[index] ?? frames.appendChild(el("button.flip-frame", { type: "button", "aria-label": `Frame ${index + 1}`, onclick: () => (stop(), show(index)) }));
    const { image } = slots[index];
    frame.disabled = !image;
    if (frame.dataset.shows === image) return;
    frame.dataset.shows = image ?? "";
    frame.replaceChildren(...(image ? [picture(image)] : []));
  }

  const player = button({ name: "Play", icon: "play", label: false, look: "quiet", onclick: () => (timer ? stop() : play()) });
  slider.addEventListener("input", () => (stop(), show(Number(slider.value))));
  stage.addEventListener("click", () => open(slots[Number(slider.value)].image));
  stage.append(grown.element);

  return {
    element: el("div.flip", {}, el("div.flip-one", {}, stage, el("div.flip-bar", {}, player, slider)), frames),
    /** @param {import("./state.js").JobRecord} record */
    update({ job, slots: now }) {
      slots = now;
      running = job.state === "running";
      slider.max = String(now.length - 1);
      now.forEach((_, each) => line(each));
      const index = Math.min(Number(slider.value), now.length - 1);
      // While frames are made, the newest one is shown, until somebody takes the slider.
      const newest = now.findLastIndex((slot) => slot.image || slot.preview);
      show(running && document.activeElement !== slider && newest >= 0 ? newest : index);
    },
  };
}
