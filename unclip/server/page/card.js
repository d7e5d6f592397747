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
 * @property {(id: string) => void} forget
 */

function tile(index, count, title, open) {
  const element = el("div.tile", { "data-state": "waiting" });
  let grown = null; // only where there is something to grow: a history of finished jobs draws no noise
  let shown = null;

  function show(image) {
    shown = image;
    const drawn = picture(image, { lazy: element.dataset.state === "waiting" });
    const name = count > 1 ? `Open picture ${index + 1} of ${count}: ${title}` : `Open the picture: ${title}`;
    const opener = el("button.tile-open", { type: "button", "aria-label": name, "data-image": image, onclick: () => open(image) }, drawn);
    drawn.addEventListener("load", () => ((element.dataset.state = "done"), grown?.element.remove()), { once: true });
    drawn.addEventListener("error", () => (element.dataset.state = "lost"), { once: true });
    element.append(opener);
  }

  return {
    element,
    /** @param {import("./state.js").Slot} slot */
    update(slot, state) {
      if (slot.image && slot.image !== shown) {
        if (shown) element.replaceChildren(grown.element);
        return show(slot.image);
      }
      if (slot.image) return;
      grown ??= growing();
      if (shown || !element.contains(grown.element)) element.replaceChildren(grown.element); // it was deleted, or is not begun
      shown = null;
      element.dataset.state = isOver(state) ? "lost" : slot.preview || slot.fraction ? "growing" : "waiting";
      grown.update(slot, state === "running");
    },
  };
}

/** @param {import("./state.js").JobRecord} first @param {CardActions} actions */
export function createCard(first, actions) {
  const { id, request } = first.job;
  const title = titleOf(request);
  const count = first.slots.length;
  const strip = request.task === "interpolate" && count > 2;

  const heading = el("h2.card-title", { id: `title-${id}`, text: title });
  const when = el("time", {});
  const meta = el("p.card-meta", {}, el("span", { text: TASKS[request.task] }), when);
  if (request.seed !== null) meta.append(el("span", { text: `seed ${request.seed}` }));
  const parents = el("div.parents", {}, ...request.images.slice(0, 3).map((image) => picture(image, { alt: "" })));
  const status = el("p.card-state");
  const bar = el("progress.card-progress", { max: 1, value: 0, "aria-label": `Progress of ${title}` });
  const failure = el("p.card-failure", { role: "alert" });
  const row = el("div.card-actions");
  const book = strip ? flipbook(title, actions.open) : null;
  const tiles = strip ? [] : first.slots.map((_, index) => tile(index, count, title, actions.open));
  const pictures = book ? book.element : el("div.tiles", { "data-count": count }, ...tiles.map((each) => each.element));
  const head = el("header.card-head", {}, request.images.length ? parents : null, el("div.card-words", {}, heading, meta), row);
  const element = el("article.card", { "aria-labelledby": `title-${id}`, tabindex: -1, "data-job": id }, head, bar, status, failure, pictures);

  let record = first;
  const buttons = {
    cancel: button({ name: "Cancel", icon: "close", look: "quiet", onclick: () => actions.cancel(id) }),
    again: button({ name: "Again", icon: "retry", label: false, look: "quiet", onclick: () => actions.again(record) }),
    reuse: button({ name: "Reuse settings", icon: "words", label: false, look: "quiet", onclick: () => actions.reuse(record.job.request) }),
    forget: button({ name: "Delete", icon: "trash", label: false, look: "quiet", onclick: () => actions.forget(id) }),
  };

  function update(next) {
    const before = record.job.state;
    record = next;
    const { job } = record;
    const over = isOver(job.state);
    element.dataset.state = job.state;
    when.textContent = ago(job.created);
    when.dateTime = new Date(job.created * 1000).toISOString();
    when.title = fullDate(job.created);
    status.textContent = stateWords(record);
    status.hidden = !status.textContent;
    bar.hidden = over;
    if (job.state === "running") bar.value = fractionOf(record);
    else bar.value = 0;
    failure.textContent = record.failure ?? "";
    const wanted = over ? [buttons.again, buttons.reuse, buttons.forget] : [buttons.reuse, buttons.cancel];
    if (wanted.some((each, index) => row.children[index] !== each)) row.replaceChildren(...wanted);
    buttons.cancel.disabled = record.asked === "cancel";
    tiles.forEach((each, index) => each.update(record.slots[index], job.state));
    book?.update(record);
    if (before !== job.state) tellChange(record, title);
  }

  update(first);
  return { element, update };
}

function tellChange({ job, slots }, title) {
  const made = slots.filter((slot) => slot.image).length;
  if (job.state === "running") announce(`Started: ${title}`);
  if (job.state === "done") announce(made === 1 ? `The picture is ready: ${title}` : `${made} pictures are ready: ${title}`);
  if (job.state === "failed") announce(`Failed: ${title}. ${stateWords({ job, slots })}`);
  if (job.state === "cancelled") announce(`Stopped: ${title}`);
}
