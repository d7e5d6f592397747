/** What the server makes for the frame: growing while it is made, then up to ten to choose from. */

import { imageBlob } from "../api.js";
import { button, el } from "../dom.js";
import { growing, picture } from "../pictures.js";
import { fractionOf } from "../state.js";
import { stateWords } from "../words.js";

export class Candidates {
  #choose;
  #tiles = [];
  #images = new Map(); // slot -> Promise<ImageBitmap>

  /**
   * @param {object} given
   * @param {(index: number) => void} given.choose
   * @param {() => void} given.accept
   * @param {() => void} given.retry
   * @param {() => void} given.cancel
   */
  constructor({ choose, accept, retry, cancel }) {
    this.#choose = choose;
    this.thumbs = el("div.candidate-thumbs", { role: "radiogroup", "aria-label": "Candidates" });
    this.words = el("p.candidate-words", { role: "status" });
    this.bar = el("progress", { max: 1, "aria-label": "Progress of the frame" });
    this.accepter = button({ name: "Accept", icon: "check", look: "primary", key: "Enter", onclick: accept });
    this.retrier = button({ name: "Retry", icon: "retry", onclick: retry });
    this.canceller = button({ name: "Cancel", icon: "close", look: "quiet", key: "Esc", onclick: cancel });
    const foot = el("div.candidate-foot", {}, this.words, this.bar, el("div.row", {}, this.accepter, this.retrier, this.canceller));
    this.element = el("div.candidates", { hidden: true, role: "group", "aria-label": "Candidates for the frame" }, this.thumbs, foot);
  }

  #build(count) {
    this.#tiles = Array.from({ length: count }, (_, index) => {
      const grown = growing();
      const made = el("button.candidate", { type: "button", role: "radio", "aria-checked": "false", "aria-label": `Candidate ${index + 1} of ${count}`, onclick: () => this.#choose(index) }, grown.element);
      return { made, grown, image: null };
    });
    this.#images.clear();
    this.thumbs.replaceChildren(...this.#tiles.map((tile) => tile.made));
  }

  /** @param {import("../state.js").JobRecord} record @param {number} chosen @param {boolean} over */
  show(record, chosen, over) {
    if (this.#tiles.length !== record.slots.length || this.element.dataset.job !== record.job.id) this.#build(record.slots.length);
    this.element.dataset.job = record.job.id;
    this.element.hidden = false;
    this.#tiles.forEach((tile, index) => {
      const slot = record.slots[index];
      if (slot.image && slot.image !== tile.image) {
        tile.image = slot.image;
        tile.made.replaceChildren(picture(slot.image, { lazy: false }));
      } else if (!slot.image) tile.grown.update(slot, record.job.state === "running");
      tile.made.disabled = over && !slot.image;
      tile.made.setAttribute("aria-checked", String(index === chosen));
      tile.made.tabIndex = index === chosen ? 0 : -1;
    });
    this.bar.hidden = over;
    this.bar.value = fractionOf(record);
    this.words.textContent = over ? `Candidate ${chosen + 1} of ${this.#tiles.length}` : record.failure ?? stateWords(record);
    this.accepter.hidden = this.retrier.hidden = !over;
    this.canceller.disabled = record.asked === "cancel";
  }

  hide() {
    this.element.hidden = true;
    delete this.element.dataset.job;
  }

  focus() {
    this.accepter.focus();
  }

  /** A finished candidate's pixels. @returns {Promise<ImageBitmap>} */
  pixels(slot, image) {
    if (!this.#images.has(slot)) {
      const asked = imageBlob(image).then(createImageBitmap);
      asked.catch(() => this.#images.delete(slot));
      this.#images.set(slot, asked);
    }
    return this.#images.get(slot);
  }
}
