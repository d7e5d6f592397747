/** The pictures along a way, one under a slider: dragged, stepped with the arrows, or played to and fro. */

import { button, calm, el, icon } from "./dom.js";
import { growing, picture } from "./pictures.js";

const FRAME = 120; // ms

class Flipbook {
  #open;
  #slots = [];
  #running = false;
  #images = new Map(); // index -> the large picture, once it was shown
  #grown = growing();
  #timer = null;
  #way = 1;

  /** @param {string} title @param {(image: string) => void} open */
  constructor(title, open) {
    this.#open = open;
    this.stage = el("button.flip-stage", { type: "button", "aria-label": `Open this frame: ${title}`, onclick: () => this.#open(this.#slots[this.#index].image) }, this.#grown.element);
    this.frames = el("div.flip-frames");
    this.slider = el("input", { type: "range", min: 0, max: 1, value: 0, step: 1, "aria-label": `Frame of ${title}`, oninput: () => (this.#stop(), this.#show(this.#index)) });
    this.player = button({ name: "Play", icon: "play", label: false, look: "quiet", onclick: () => (this.#timer ? this.#stop() : this.#play()) });
    this.place = el("output.flip-place", { "aria-hidden": "true" }); // the slider says it too
    const bar = el("div.flip-bar", {}, this.player, this.slider, this.place);
    this.element = el("div.flip", {}, el("div.flip-one", {}, this.stage, bar), this.frames);
  }

  get #index() {
    return Number(this.slider.value);
  }

  #show(index) {
    const slot = this.#slots[index];
    this.slider.value = String(index);
    const place = `${index + 1} of ${this.#slots.length}`;
    this.slider.setAttribute("aria-valuetext", `Frame ${place}`);
    this.place.textContent = place;
    this.stage.disabled = !slot.image;
    [...this.frames.children].forEach((frame, other) => frame.toggleAttribute("data-shown", other === index));
    this.#grown.element.hidden = Boolean(slot.image);
    for (const [other, image] of this.#images) image.hidden = other !== index;
    if (slot.image && !this.#images.has(index)) {
      const made = picture(slot.image, { lazy: false });
      this.#images.set(index, made);
      this.stage.append(made);
    }
    if (!slot.image) this.#grown.update(slot, this.#running);
  }

  #label(name) {
    this.player.replaceChildren(icon(name.toLowerCase()));
    this.player.setAttribute("aria-label", name);
    this.player.title = name;
  }

  #stop() {
    clearInterval(this.#timer);
    this.#timer = null;
    this.#label("Play");
  }

  #play() {
    const now = this.#index;
    this.#slots.forEach((_, index) => this.#show(index)); // loads them all
    this.#show(now);
    this.#timer = setInterval(() => this.#turn(), calm() ? FRAME * 4 : FRAME);
    this.#label("Pause");
  }

  #turn() {
    if (!this.stage.isConnected) return this.#stop();
    const last = this.#slots.length - 1;
    if (this.#index + this.#way < 0 || this.#index + this.#way > last) this.#way = -this.#way;
    this.#show(Math.min(last, Math.max(0, this.#index + this.#way)));
  }

  /** A small picture of each frame, to go there at once. */
  #line(index) {
    const made = () => el("button.flip-frame", { type: "button", "aria-label": `Frame ${index + 1}`, onclick: () => (this.#stop(), this.#show(index)) });
    const frame = this.frames.children[index] ?? this.frames.appendChild(made());
    const { image } = this.#slots[index];
    frame.disabled = !image;
    if (frame.dataset.shows === (image ?? "")) return;
    frame.dataset.shows = image ?? "";
    frame.replaceChildren(...(image ? [picture(image)] : []));
  }

  /** @param {import("./state.js").JobRecord} record */
  update({ job, slots }) {
    this.#slots = slots;
    this.#running = job.state === "running";
    this.slider.max = String(slots.length - 1);
    this.player.disabled = slots.filter((slot) => slot.image).length < 2;
    slots.forEach((_, index) => this.#line(index));
    // While frames are made, the newest one is shown, until somebody takes the slider.
    const newest = slots.findLastIndex((slot) => slot.image || slot.preview);
    const follows = this.#running && !this.#timer && document.activeElement !== this.slider && newest >= 0;
    this.#show(follows ? newest : Math.min(this.#index, slots.length - 1));
  }
}

/** @param {string} title @param {(image: string) => void} open */
export const flipbook = (title, open) => new Flipbook(title, open);
