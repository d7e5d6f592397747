/** What the server makes for the frame: growing while it is made, then up to ten to choose from. */

import { button, el } from "../dom.js";
import { imageBlob } from "../api.js";
import { growing, picture } from "../pictures.js";
import { fractionOf } from "../state.js";
import { stateWords } from "../words.js";

/**
 * @param {object} given
 * @param {(index: number) => void} given.choose
 * @param {() => void} given.accept
 * @param {() => void} given.retry
 * @param {() => void} given.cancel
 */
export function createCandidates({ choose, accept, retry, cancel }) {
  const thumbs = el("div.candidate-thumbs", { role: "radiogroup", "aria-label": "Candidates" });
  const words = el("p.candidate-words", { role: "status" });
  const bar = el("progress", { max: 1, "aria-label": "Progress of the frame" });
  const accepter = button({ name: "Accept", icon: "check", look: "primary", key: "Enter", onclick: accept });
  const retrier = button({ name: "Retry", icon: "retry", onclick: retry });
  const canceller = button({ name: "Cancel", icon: "close", look: "quiet", key: "Esc", onclick: cancel });
  const element = el("div.candidates", { hidden: true, role: "group", "aria-label": "Candidates for the frame" }, thumbs, el("div.candidate-foot", {}, words, bar, el("div.row", {}, accepter, retrier, canceller)));
  let tiles = [];
  let images = new Map(); // slot -> Promise<ImageBitmap>

  function build(count) {
    tiles = Array.from({ length: count }, (_, index) => {
      const grown = growing();
      const made = el("button.candidate", { type: "button", role: "radio", "aria-checked": "false", "aria-label": `Candidate ${index + 1} of ${count}`, onclick: () => choose(index) }, grown.element);
      return { made, grown, image: null };
    });
    images = new Map();
    thumbs.replaceChildren(...tiles.map((tile) => tile.made));
  }

  return {
    element,
    /** @param {import("../state.js").JobRecord} record @param {number} chosen @param {boolean} over */
    show(record, chosen, over) {
      if (tiles.length !== record.slots.length || element.dataset.job !== record.job.id) build(record.slots.length);
      element.dataset.job = record.job.id;
      element.hidden = false;
      tiles.forEach((tile, index) => {
        const slot = record.slots[index];
        if (slot.image && slot.image !== tile.image) {
          tile.image = slot.image;
          tile.made.replaceChildren(picture(slot.image, { lazy: false }));
        } else if (!slot.image) tile.grown.update(slot, record.job.state === "running");
        tile.made.disabled = over && !slot.image;
        tile.made.setAttribute("aria-checked", String(index === chosen));
        tile.made.tabIndex = index === chosen ? 0 : -1;
      });
      bar.hidden = over;
      bar.value = fractionOf(record);
      words.textContent = over ? `Candidate ${chosen + 1} of ${tiles.length}` : record.failure ?? stateWords(record);
      accepter.hidden = retrier.hidden = !over;
      canceller.disabled = record.asked === "cancel";
    },
    hide() {
      element.hidden = true;
      delete element.dataset.job;
    },
    focus: () => accepter.focus(),
    /** A finished candidate's pixels. @returns {Promise<ImageBitmap>} */
    pixels(slot, image) {
      if (!images.has(slot)) {
        const asked = imageBlob(image).then(createImageBitmap);
        asked.catch(() => images.delete(slot));
        images.set(slot, asked);
      }
      return images.get(slot);
    },
  };
}
