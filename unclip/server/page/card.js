/** One job of the history: its prompt, its pictures as they grow, and what can be done with it. */

import { announce, button, el } from "./dom.js";
import { flipbook } from "./flipbook.js";
import { growing, picture } from "./pictures.js";
import { fractionOf, isOver } from "./state.js";
import { ago, fullDate, stateWords, TASKS, titleOf } from "./words.js";

/**
 * @typedef {object} CardActions what a card asks of the page
 * @property {(image: string) => void} open
 * @property {(request: any) => void} reuse
 * @property {(record: import("./state.js").JobRecord) => void} again
 * @property {(id: string) => void} cancel
 * @property {(id: string, slot: number) => void} cancelSlot
 * @property {(id: string) => void} takeBack
 * @property {(id: string) => void} forget
 */

/** Whether the prompt box can hold all of a request: the editor's pictures and masks it cannot. */
export const fitsTheBox = (request) => !["inpaint", "outpaint"].includes(request.task);

class Tile {
  #name; // as a screen reader says it
  #open;
  #grown = null; // only where there is something to grow: a history of finished jobs draws no noise
  #shown = null;
  #drop;

  /** @param {string} name @param {(image: string) => void} open @param {(() => void) | null} drop */
  constructor(name, open, drop) {
    this.#name = name;
    this.#open = open;
    this.#drop = drop && button({ name: `Leave out ${name}`, icon: "close", label: false, look: "floating tile-drop", onclick: drop });
    this.element = el("div.tile", { "data-state": "waiting" });
  }

  /** @param {import("./state.js").Slot} slot @param {string} state of the job */
  update(slot, state) {
    if (slot.image) {
      if (slot.image !== this.#shown) this.#show(slot.image);
      return;
    }
    this.#shown = null;
    if (isOver(state) || slot.dropped) return this.#close(slot.dropped ? "dropped" : "lost");
    this.#grown ??= growing();
    if (!this.element.contains(this.#grown.element)) this.element.replaceChildren(...[this.#grown.element, this.#drop].filter(Boolean));
    this.element.dataset.state = slot.preview || slot.fraction ? "growing" : "waiting";
    this.#grown.update(slot, state === "running");
  }

  #show(image) {
    if (this.#shown) this.element.replaceChildren();
    this.#shown = image;
    this.#drop?.remove();
    const drawn = picture(image, { lazy: !this.#grown });
    const opener = el("button.tile-open", { type: "button", "aria-label": `Open ${this.#name}`, "data-image": image, onclick: () => this.#open(image) }, drawn);
    drawn.addEventListener("load", () => ((this.element.dataset.state = "done"), this.#grown?.element.remove()), { once: true });
    drawn.addEventListener("error", () => (this.element.dataset.state = "lost"), { once: true });
    this.element.append(opener);
  }

  /** There is no picture and will be none. */
  #close(state) {
    if (this.element.dataset.state === state) return;
    this.element.dataset.state = state;
    this.element.replaceChildren(...(state === "dropped" ? [el("span.tile-word", { text: "Left out" })] : []));
  }
}

class Card {
  #record;
  #title;

  /** @param {import("./state.js").JobRecord} first @param {CardActions} actions */
  constructor(first, actions) {
    const { id, request } = first.job;
    this.#record = first;
    this.#title = titleOf(request);
    this.when = el("time", {});
    this.status = el("p.card-state");
    this.bar = el("progress.card-progress", { max: 1, value: 0, "aria-label": `Progress of ${this.#title}` });
    this.failure = el("p.card-failure", { role: "alert" });
    this.row = el("div.card-actions");
    this.buttons = this.#buttons(id, actions);
    const strip = request.task === "interpolate" && first.slots.length > 2;
    this.book = strip ? flipbook(this.#title, actions.open) : null;
    this.tiles = strip ? [] : first.slots.map((_, index) => this.#tile(index, first.slots.length, actions));
    const pictures = this.book?.element ?? el("div.tiles", { "data-count": first.slots.length }, ...this.tiles.map((each) => each.element));
    const children = [this.#head(first.job), this.bar, this.status, this.failure, pictures];
    this.element = el("article.card", { "aria-labelledby": `title-${id}`, tabindex: -1, "data-job": id }, ...children);
    this.update(first);
  }

  #head({ id, request }) {
    const meta = el("p.card-meta", {}, el("span", { text: TASKS[request.task] }), this.when);
    if (request.seed !== null) meta.append(el("span", { text: `seed ${request.seed}` }));
    const parents = el("div.parents", {}, ...request.images.slice(0, 3).map((image) => picture(image, { alt: "" })));
    const words = el("div.card-words", {}, el("h2.card-title", { id: `title-${id}`, text: this.#title }), meta);
    return el("header.card-head", {}, request.images.length ? parents : null, words, this.row);
  }

  #buttons(id, actions) {
    return {
      back: button({ name: "Back to the prompt box", icon: "edit", label: false, look: "quiet", onclick: () => actions.takeBack(id) }),
      cancel: button({ name: "Cancel", icon: "close", look: "quiet", onclick: () => actions.cancel(id) }),
      again: button({ name: "Again", icon: "retry", label: false, look: "quiet", onclick: () => actions.again(this.#record) }),
      reuse: button({ name: "Reuse settings", icon: "words", label: false, look: "quiet", onclick: () => actions.reuse(this.#record.job.request) }),
      forget: button({ name: "Delete", icon: "trash", label: false, look: "quiet", onclick: () => actions.forget(id) }),
    };
  }

  #tile(index, count, actions) {
    const name = count > 1 ? `picture ${index + 1} of ${count}: ${this.#title}` : `the picture: ${this.#title}`;
    const drop = () => {
      this.element.focus({ preventScroll: true }); // the button goes
      actions.cancelSlot(this.#record.job.id, index);
      announce(`Picture ${index + 1} is left out: ${this.#title}`);
    };
    return new Tile(name, actions.open, count > 1 ? drop : null);
  }

  /** @param {import("./state.js").JobRecord} record */
  update(record) {
    const before = this.#record.job.state;
    this.#record = record;
    const { job } = record;
    const over = isOver(job.state);
    this.element.dataset.state = job.state;
    this.when.textContent = ago(job.created);
    this.when.dateTime = new Date(job.created * 1000).toISOString();
    this.when.title = fullDate(job.created);
    this.status.textContent = stateWords(record);
    this.status.hidden = !this.status.textContent;
    this.bar.hidden = over;
    this.bar.value = job.state === "running" ? fractionOf(record) : 0;
    this.failure.textContent = record.failure ?? "";
    this.#offer(over, job);
    this.buttons.cancel.disabled = record.asked === "cancel";
    this.tiles.forEach((each, index) => each.update(record.slots[index], job.state));
    this.book?.update(record);
    if (before !== job.state) tellChange(record, this.#title);
  }

  #offer(over, job) {
    const { back, cancel, again, reuse, forget } = this.buttons;
    const first = job.state === "queued" && fitsTheBox(job.request) ? back : reuse;
    const wanted = over ? [again, reuse, forget] : [first, cancel];
    if (wanted.length !== this.row.children.length || wanted.some((each, index) => this.row.children[index] !== each)) this.row.replaceChildren(...wanted);
  }
}

function tellChange({ job, slots }, title) {
  const made = slots.filter((slot) => slot.image).length;
  if (job.state === "running") announce(`Started: ${title}`);
  if (job.state === "done") announce(made === 1 ? `The picture is ready: ${title}` : `${made} pictures are ready: ${title}`);
  if (job.state === "failed") announce(`Failed: ${title}. ${stateWords({ job, slots })}`);
  if (job.state === "cancelled") announce(`Stopped: ${title}`);
}

export const createCard = (first, actions) => new Card(first, actions);
