/** The pictures in the prompt box: which, in what order, and what shall be made of them. */

import { button, el } from "./dom.js";
import { picture } from "./pictures.js";

const MODES = { variations: "Variations", image_to_image: "Guide with words", text_diff: "Change by words" };

export class Attached {
  #tasks;
  #act;
  #drawn = null;

  /**
   * @param {string[]} tasks that the server has
   * @param {{task: (task: string) => void, images: (images: string[]) => void, edit: (image: string) => void, add: () => void}} act
   */
  constructor(tasks, act) {
    this.#tasks = tasks;
    this.#act = act;
    this.element = el("div.attached");
  }

  /** @param {import("./form.js").Form} form */
  show({ images, task }) {
    const key = `${images.join()}|${task}`;
    if (this.#drawn === key) return;
    this.#drawn = key;
    const focused = this.element.contains(document.activeElement) ? document.activeElement.id : null;
    this.element.hidden = images.length === 0;
    const row = el("div.attached-row", {}, ...images.map((image, index) => this.#picture(images, image, index)));
    this.element.replaceChildren(row, images.length === 1 ? this.#modes(images[0], task) : this.#between(images));
    if (focused) document.getElementById(focused)?.focus();
  }

  #picture(images, image, index) {
    const without = images.filter((_, other) => other !== index);
    const remove = button({ name: `Take picture ${index + 1} out`, icon: "close", label: false, look: "quiet", onclick: () => this.#act.images(without) });
    return el("div.attached-picture", {}, picture(image, { alt: `Picture ${index + 1}`, lazy: false }), remove);
  }

  #modes(image, task) {
    const modes = el("div.modes", { role: "radiogroup", "aria-label": "What to make of the picture" });
    for (const [value, text] of Object.entries(MODES).filter(([value]) => this.#tasks.includes(value))) {
      const input = el("input.unseen", { type: "radio", name: "task", value, id: `task-${value}`, checked: task === value, onchange: () => this.#act.task(value) });
      modes.append(input, el("label", { for: input.id, text }));
    }
    modes.append(button({ name: "Edit", icon: "edit", look: "quiet", onclick: () => this.#act.edit(image) }));
    if (this.#tasks.includes("interpolate")) modes.append(button({ name: "Blend with…", icon: "blend", look: "quiet", onclick: this.#act.add }));
    return modes;
  }

  #between(images) {
    const turn = button({ name: "Turn round", icon: "swap", look: "quiet", onclick: () => this.#act.images([...images].reverse()) });
    turn.id = "turn-round"; // keeps the focus when the row is drawn again
    return el("div.row.wrap", {}, el("p.muted", { text: "The pictures between these, in this order." }), turn, button({ name: "Add another", icon: "plus", look: "quiet", onclick: this.#act.add }));
  }
}
