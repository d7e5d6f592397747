/**
 * What is being made and what waits, in a corner of the bar: in another order by a drag, the arrows or two buttons, back into
 * the prompt box, and away.
 */

import { fitsTheBox } from "./card.js";
import { announce, button, el, icon, toast } from "./dom.js";
import { fractionOf } from "./state.js";
import { soon, stateWords, titleOf } from "./words.js";

/** @typedef {{reveal: (id: string) => void, takeBack: (id: string) => void}} QueueActions */

class Row {
  /** @param {import("./state.js").JobRecord} record @param {Queue} queue */
  constructor({ job: { id, request } }, queue) {
    const title = titleOf(request);
    const act = (name, drawing, what) => button({ name: `${name}: ${title}`, icon: drawing, label: false, look: "quiet", onclick: what });
    this.id = id;
    this.words = el("span.muted");
    this.bar = el("progress", { max: 1, "aria-label": `Progress of ${title}` });
    this.grip = el("button.quiet.icon-only.queue-grip", { type: "button", title: "Drag, or arrow keys", "aria-label": `Move with the arrow keys: ${title}` }, icon("grip"));
    this.grip.addEventListener("pointerdown", (event) => new Drag(queue, this, event));
    this.grip.addEventListener("keydown", (event) => {
      const to = { ArrowUp: -1, ArrowDown: 1, Home: -Infinity, End: Infinity }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      queue.move(id, to);
    });
    this.up = act("Earlier", "chevronUp", () => queue.move(id, -1));
    this.down = act("Later", "chevronDown", () => queue.move(id, 1));
    this.back = act("Back to the prompt box", "edit", () => queue.takeBack(id));
    this.stop = act("Cancel", "close", () => queue.cancel(id));
    const name = el("button.queue-name", { type: "button", text: title, title, onclick: () => queue.reveal(id) });
    const words = el("div.queue-words", {}, name, this.words, this.bar);
    this.element = el("li", {}, this.grip, words, el("div.queue-actions", {}, this.up, this.down, this.back, this.stop));
  }

  /** @param {import("./state.js").JobRecord} record @param {number} place among those that wait @param {number} waiting how many */
  update(record, place, waiting) {
    const { state, request } = record.job;
    const queued = state === "queued";
    this.element.dataset.state = state;
    // Its place says how many are ahead of one that waits.
    this.words.textContent = record.failure ?? (queued && !record.asked ? soon(record).replace(", d", "D") || "Waits" : stateWords(record));
    this.bar.hidden = state !== "running";
    this.bar.value = fractionOf(record);
    for (const each of [this.grip, this.up, this.down]) each.hidden = !queued || waiting < 2;
    this.back.hidden = !queued || !fitsTheBox(request);
    this.up.disabled = place === 0;
    this.down.disabled = place === waiting - 1;
    this.stop.disabled = this.back.disabled = record.asked === "cancel";
  }
}

/** A row that follows the pointer, while the others make room. */
class Drag {
  #to;

  /** @param {Queue} queue @param {Row} row @param {PointerEvent} event */
  constructor(queue, row, event) {
    if (event.button !== 0) return;
    event.preventDefault(); // of a text selection; the focus then has to be given by hand
    row.grip.focus();
    this.queue = queue;
    this.rows = queue.waitingRows();
    this.from = this.#to = this.rows.indexOf(row);
    this.begun = event.clientY;
    this.height = row.element.offsetHeight;
    this.over = new AbortController();
    const { signal } = this.over;
    row.element.classList.add("dragged");
    queue.dragging = true;
    document.addEventListener("pointermove", (moved) => this.#follow(moved.clientY - this.begun), { signal });
    document.addEventListener("pointerup", () => this.#end(true), { signal });
    document.addEventListener("pointercancel", () => this.#end(false), { signal });
    document.addEventListener("keydown", (key) => key.key === "Escape" && (key.preventDefault(), this.#end(false)), { signal });
  }

  #follow(by) {
    const shift = Math.min((this.rows.length - 1 - this.from) * this.height, Math.max(-this.from * this.height, by));
    this.#to = this.from + Math.round(shift / this.height);
    this.rows.forEach(({ element }, index) => {
      const room = index > this.from && index <= this.#to ? -1 : index < this.from && index >= this.#to ? 1 : 0;
      element.style.transform = `translateY(${index === this.from ? shift : room * this.height}px)`;
    });
  }

  #end(kept) {
    this.over.abort();
    this.queue.dragging = false;
    const row = this.rows[this.from];
    row.element.classList.remove("dragged");
    this.rows.forEach(({ element }) => (element.style.transform = ""));
    if (kept && this.#to !== this.from) this.queue.move(row.id, this.#to - this.from);
    else this.queue.draw();
  }
}

class Queue {
  #jobs;
  #actions;
  #rows = new Map();
  #waiting = false;
  dragging = false;

  /** @param {HTMLElement} place @param {ReturnType<typeof import("./jobs.js").createJobs>} jobs @param {QueueActions} actions */
  constructor(place, jobs, actions) {
    this.#jobs = jobs;
    this.#actions = actions;
    this.label = el("span", {});
    this.opener = el("button.quiet.queue-opener", { type: "button", popovertarget: "queue-list", hidden: true }, el("span.queue-dot"), el("span.queue-word", { text: "Queue" }), this.label);
    this.list = el("ol.queue-list");
    this.sum = el("p.muted");
    this.clear = button({ name: "Clear waiting", look: "quiet", onclick: () => jobs.cancelAll(true) });
    this.cancelAll = button({ name: "Cancel all", look: "quiet", onclick: () => jobs.cancelAll(false) });
    const head = el("div.queue-head", {}, el("div.row.spread", {}, el("h2", { text: "Queue" }), el("div.row", {}, this.clear, this.cancelAll)), this.sum);
    this.panel = el("div.queue-panel", { id: "queue-list", popover: "auto", role: "dialog", "aria-label": "Queue" }, head, this.list);
    place.append(this.opener, this.panel);
    jobs.onChange(() => this.draw());
  }

  draw() {
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => {
      this.#waiting = false;
      if (!this.dragging) this.#draw();
    });
  }

  #draw() {
    const records = this.#jobs.unfinished();
    const waiting = this.#jobs.waiting();
    this.#head(records, waiting);
    const there = new Set(records.map(({ job }) => job.id));
    for (const [id, row] of this.#rows) if (!there.has(id)) (row.element.remove(), this.#rows.delete(id));
    const had = this.list.contains(document.activeElement) ? document.activeElement : null;
    records.forEach((record, index) => {
      const { id } = record.job;
      if (!this.#rows.has(id)) this.#rows.set(id, new Row(record, this));
      const { element } = this.#rows.get(id);
      this.#rows.get(id).update(record, waiting.indexOf(record), waiting.length);
      if (this.list.children[index] !== element) this.list.insertBefore(element, this.list.children[index] ?? null);
    });
    if (!had || !this.list.contains(had)) return;
    // A row that was moved has lost the focus, and so has a button that has nothing more to do.
    if (had.disabled) had.closest("li").querySelector(".queue-grip").focus();
    else if (document.activeElement !== had) had.focus();
  }

  #head(records, waiting) {
    const { length } = records;
    this.opener.hidden = length === 0;
    this.label.textContent = String(length);
    this.opener.setAttribute("aria-label", length === 1 ? "Queue: 1 job" : `Queue: ${length} jobs`);
    if (!length && this.panel.matches(":popover-open")) this.panel.hidePopover();
    const last = records.at(-1);
    this.sum.textContent = waiting.length ? `${waiting.length} waiting${last ? soon(last).replace("done", "all done") : ""}` : "";
    this.clear.hidden = waiting.length === 0 || waiting.length === length;
  }

  waitingRows() {
    return this.#jobs.waiting().map(({ job }) => this.#rows.get(job.id));
  }

  /** So many places on, or as far as there are any. */
  async move(id, by) {
    const ids = this.#jobs.waiting().map(({ job }) => job.id);
    const from = ids.indexOf(id);
    const to = Math.min(ids.length - 1, Math.max(0, from + by));
    if (from < 0 || to === from) return;
    ids.splice(from, 1);
    try {
      await this.#jobs.move(id, ids[to] ?? null);
      announce(`Now ${to + 1} of ${ids.length + 1} in the queue: ${titleOf(this.#jobs.get(id).job.request)}`);
    } catch (error) {
      toast(error.message, { failure: true });
    }
  }

  cancel(id) {
    this.#jobs.cancel(id);
  }

  reveal(id) {
    this.panel.hidePopover();
    this.#actions.reveal(id);
  }

  takeBack(id) {
    this.panel.hidePopover();
    this.#actions.takeBack(id);
  }
}

export const createQueue = (place, jobs, actions) => new Queue(place, jobs, actions);
