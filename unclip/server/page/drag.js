/**
 * Pictures that are dragged: files from elsewhere may be dropped anywhere; for a picture of this page a tray rises with the
 * places it can go to, since the prompt box may be far up. What the tray does, the viewer's buttons do without a mouse.
 */

import { el, icon } from "./dom.js";

const OWN = "application/x-unclip-picture";

/** @param {DragEvent} event */
const carries = (event) => {
  const types = event.dataTransfer?.types ?? [];
  return types.includes(OWN) ? "own" : types.includes("Files") ? "files" : null;
};

export class Drag {
  #take;
  #depth = 0; // of elements that a dragged file has entered and not left

  /**
   * @param {object} given
   * @param {(files: File[]) => void} given.take
   * @param {Record<"attach" | "edit", (image: string) => void>} given.to
   * @param {HTMLElement} given.box also takes a picture of the page
   */
  constructor({ take, to, box }) {
    this.#take = take;
    this.veil = el("div.drop-veil", { hidden: true, "aria-hidden": "true" }, el("p", { text: "Drop the picture anywhere" }));
    const places = [this.#place("Prompt box", "image", to.attach), this.#place("Editor", "edit", to.edit)];
    this.tray = el("div.drop-tray", { hidden: true, "aria-hidden": "true" }, ...places);
    this.#receive(box, to.attach);
    document.body.append(this.veil, this.tray);
    this.#listen();
  }

  #place(name, drawing, act) {
    const place = el("div.drop-place", {}, icon(drawing), el("span", { text: name }));
    this.#receive(place, act);
    return place;
  }

  /** Makes an element a place to drop a picture of the page. */
  #receive(place, act) {
    const over = (on) => place.classList.toggle("drop-over", on);
    place.addEventListener("dragover", (event) => {
      if (carries(event) !== "own") return;
      event.preventDefault();
      over(true);
    });
    place.addEventListener("dragleave", () => over(false));
    place.addEventListener("drop", (event) => {
      over(false);
      const image = event.dataTransfer.getData(OWN);
      if (!image) return;
      event.preventDefault();
      this.#rest();
      act(image);
    });
  }

  #rest() {
    this.#depth = 0;
    this.veil.hidden = this.tray.hidden = true;
  }

  #enter(change) {
    this.#depth = Math.max(0, this.#depth + change);
    this.veil.hidden = this.#depth === 0;
  }

  #listen() {
    document.addEventListener("dragstart", (event) => {
      const image = event.target.closest?.("img[data-image]")?.dataset.image;
      if (!image) return;
      event.dataTransfer.setData(OWN, image);
      event.dataTransfer.effectAllowed = "copyLink";
      // A browser gives up a drag whose source is changed or covered as it begins.
      setTimeout(() => (this.tray.hidden = Boolean(document.querySelector("dialog[open]"))));
    });
    document.addEventListener("dragend", () => this.#rest());
    document.addEventListener("dragenter", (event) => carries(event) === "files" && (event.preventDefault(), this.#enter(1)));
    document.addEventListener("dragleave", (event) => carries(event) === "files" && this.#enter(-1));
    document.addEventListener("dragover", (event) => carries(event) === "files" && event.preventDefault());
    document.addEventListener("drop", (event) => {
      if (carries(event) !== "files") return;
      event.preventDefault();
      this.#rest();
      const files = [...event.dataTransfer.files];
      if (files.length) this.#take(files);
    });
  }
}
