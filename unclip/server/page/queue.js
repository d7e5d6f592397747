/** What is being made and what waits, in a corner of the bar, with a way to stop each and all. */

import { button, el } from "./dom.js";
import { fractionOf } from "./state.js";
import { stateWords, titleOf } from "./words.js";

/**
 * @param {HTMLElement} place
 * @param {ReturnType<typeof import("./jobs.js").createJobs>} jobs
 * @param {(id: string) => void} reveal
 */
export function createQueue(place, jobs, reveal) {
  const label = el("span", {});
  const opener = el("button.quiet.queue-opener", { type: "button", popovertarget: "queue-list", hidden: true }, el("span.queue-dot"), el("span.queue-word", { text: "Queue" }), label);
  const list = el("ol.queue-list");
  const cancelAll = button({ name: "Cancel all", look: "quiet", onclick: () => jobs.unfinished().forEach((record) => jobs.cancel(record.job.id)) });
  const panel = el("div.queue-panel", { id: "queue-list", popover: "auto", role: "dialog", "aria-label": "Queue" }, el("div.row.spread", {}, el("h2", { text: "Queue" }), cancelAll), list);
  place.append(opener, panel);
  const rows = new Map();
  let waiting = false;

  function row(record) {
    const { id, request } = record.job;
    const words = el("span.muted");
    const bar = el("progress", { max: 1, "aria-label": `Progress of ${titleOf(request)}` });
    const name = el("button.queue-name", { type: "button", text: titleOf(request), onclick: () => (panel.hidePopover(), reveal(id)) });
    const stop = button({ name: `Cancel ${titleOf(request)}`, icon: "close", label: false, look: "quiet", onclick: () => jobs.cancel(id) });
    const element = el("li", {}, el("div.queue-words", {}, name, words, bar), stop);
    return {
      element,
      update(now) {
        words.textContent = now.failure ?? stateWords(now);
        bar.hidden = now.job.state !== "running";
        bar.value = fractionOf(now);
        stop.disabled = now.asked === "cancel";
      },
    };
  }

  function draw() {
    waiting = false;
    const records = jobs.unfinished();
    const there = new Set(records.map((record) => record.job.id));
    opener.hidden = records.length === 0;
    label.textContent = String(records.length);
    opener.setAttribute("aria-label", records.length === 1 ? "Queue: 1 job" : `Queue: ${records.length} jobs`);
    if (!records.length && panel.matches(":popover-open")) panel.hidePopover();
    for (const [id, each] of rows) if (!there.has(id)) (each.element.remove(), rows.delete(id));
    records.forEach((record, index) => {
      if (!rows.has(record.job.id)) rows.set(record.job.id, row(record));
      const each = rows.get(record.job.id);
      each.update(record);
      if (list.children[index] !== each.element) list.insertBefore(each.element, list.children[index] ?? null);
    });
  }

  jobs.onChange(() => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(draw);
  });
}
