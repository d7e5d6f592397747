/** Where a picture comes from: the history's newest as a grid, or this computer. */

import { button, el } from "./dom.js";
import { picturesOf } from "./lookup.js";
import { picture } from "./pictures.js";

const MOST = 60;

export class Chooser {
  #jobs;
  #pick;

  /**
   * @param {ReturnType<typeof import("./jobs.js").createJobs>} jobs
   * @param {() => void} pick opens the file picker
   */
  constructor(jobs, pick) {
    this.#jobs = jobs;
    this.#pick = pick;
    this.grid = el("div.chooser-grid");
    const upload = button({ name: "From this computer", icon: "upload", look: "primary", onclick: () => (this.dialog.close(), this.#pick()) });
    const closer = button({ name: "Close", icon: "close", label: false, look: "quiet", onclick: () => this.dialog.close() });
    const head = el("div.row.spread", {}, el("h2", { id: "chooser-title", text: "Choose a picture" }), closer);
    this.dialog = el("dialog.chooser", { "aria-labelledby": "chooser-title" }, head, upload, el("h3", { text: "Or one of your newest" }), this.grid);
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    document.body.append(this.dialog);
  }

  /** Asks for a picture; with an empty history the computer's own dialog asks at once. @param {(image: string) => void} choose */
  ask(choose) {
    const images = [...new Set(picturesOf(this.#jobs))].slice(0, MOST);
    if (!images.length) return this.#pick();
    const tile = (image, index) =>
      el("button.chooser-picture", { type: "button", "aria-label": `Picture ${index + 1} of the history`, onclick: () => (this.dialog.close(), choose(image)) }, picture(image));
    this.grid.replaceChildren(...images.map(tile));
    this.dialog.showModal();
  }
}
