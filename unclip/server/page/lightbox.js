/** A dialog with one picture, large, a panel beside it, and its neighbours on both sides: by arrows, keys or a swipe. */

import { button, el } from "./dom.js";

const SWIPE = 50; // px of a finger's way

export class Lightbox {
  #asked;

  /**
   * @param {string} name for ids and classes
   * @param {object} asked
   * @param {(way: -1 | 1) => void} asked.step to a neighbour
   * @param {() => void} asked.closed by its button, Esc, or a click beside the picture
   * @param {() => Record<string, () => void>} asked.keys what further keys do
   */
  constructor(name, asked) {
    this.#asked = asked;
    // The title takes the focus: a button might be hidden at the first or last picture, and the keys with it.
    this.title = el("h2.viewer-title", { id: `${name}-title`, tabindex: -1, autofocus: true });
    this.stage = el("div.viewer-stage");
    this.previous = button({ name: "Previous picture", icon: "chevronLeft", label: false, look: "floating previous", key: "←", onclick: () => asked.step(-1) });
    this.next = button({ name: "Next picture", icon: "chevronRight", label: false, look: "floating next", key: "→", onclick: () => asked.step(1) });
    const closer = button({ name: "Close", icon: "close", label: false, look: "quiet viewer-close", key: "Esc", onclick: () => this.close() });
    this.panel = el("div.viewer-panel", {}, this.title);
    this.dialog = el(`dialog.${name}.lightbox`, { "aria-labelledby": this.title.id }, el("div.viewer-main", {}, this.stage, this.previous, this.next), this.panel, closer);
    this.#listen();
    document.body.append(this.dialog);
  }

  get isOpen() {
    return this.dialog.open;
  }

  #listen() {
    this.dialog.addEventListener("close", () => {
      this.stage.replaceChildren();
      this.#asked.closed();
    });
    this.dialog.addEventListener("click", (event) => (event.target === this.dialog || event.target === this.stage) && this.close());
    this.dialog.addEventListener("keydown", (event) => this.#onKey(event));
    let from = null;
    this.stage.addEventListener("touchstart", ({ touches }) => (from = touches.length === 1 ? touches[0].clientX : null), { passive: true });
    this.stage.addEventListener("touchend", ({ changedTouches }) => {
      const way = from === null ? 0 : changedTouches[0].clientX - from;
      if (Math.abs(way) > SWIPE && (visualViewport?.scale ?? 1) === 1) this.#asked.step(way > 0 ? -1 : 1);
    });
  }

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=text], textarea")) return;
    const keys = { ArrowLeft: () => this.#asked.step(-1), ArrowRight: () => this.#asked.step(1), ...this.#asked.keys() };
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  /** Puts a picture on the stage, over its thumb until it is there. */
  show(image, thumb) {
    thumb.classList.add("viewer-thumb");
    image.addEventListener("load", () => thumb.remove(), { once: true });
    this.stage.replaceChildren(thumb, image);
    if (!this.dialog.open) this.dialog.showModal();
    this.title.focus();
  }

  /** Hides the way to where there is no neighbour. */
  bound(first, last) {
    for (const [each, gone] of [[this.previous, first], [this.next, last]]) {
      if (gone && document.activeElement === each) this.title.focus();
      each.hidden = gone;
    }
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }
}
