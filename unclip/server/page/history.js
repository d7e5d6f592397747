/**
 * The history as a feed of which only the cards near the screen are there: gaps as high as the others stand for them, so that
 * ten thousand jobs scroll like fifty. A card that was seen keeps its height, the rest are guessed. New jobs go on top and never
 * move what somebody looks at.
 */

import { createCard } from "./card.js";
import { button, el } from "./dom.js";

const GUESS = 340; // px, of a card when none was seen yet
const NEAR = 1200; // px above and below the screen that are there too
const AHEAD = 40; // cards before the end at which more are asked for

/** How high cards are: as they were last seen, or as the others are on average. */
class Heights {
  #known = new Map();
  #sum = 0;
  #width = 0;
  #tops = null; // where each card begins, and where the last ends
  #from = null; // the ids that they are of

  #topsOf(ids) {
    if (this.#tops && this.#from === ids) return this.#tops;
    const guess = this.#known.size ? this.#sum / this.#known.size : GUESS;
    const tops = new Float64Array(ids.length + 1);
    for (let index = 0; index < ids.length; index++) tops[index + 1] = tops[index] + (this.#known.get(ids[index]) ?? guess);
    this.#from = ids;
    return (this.#tops = tops);
  }

  /** The index of the card at `y`, the first or last one where there is none. */
  at(ids, y) {
    const tops = this.#topsOf(ids);
    let low = 0;
    let high = ids.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (tops[middle] <= y) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  /** From where card `start` begins to where card `end` does. */
  between(ids, start, end) {
    const tops = this.#topsOf(ids);
    return tops[end] - tops[start];
  }

  /** @returns {boolean} whether that is news */
  seen(id, height) {
    const before = this.#known.get(id);
    if (!height || before === height) return false;
    this.#sum += height - (before ?? 0);
    this.#known.set(id, height);
    this.#tops = null;
    return true;
  }

  forget(id) {
    this.#sum -= this.#known.get(id) ?? 0;
    this.#known.delete(id);
  }

  /** In another width all heights are others. @returns {boolean} whether that is news */
  resized(width) {
    if (!width || width === this.#width) return false;
    this.#width = width;
    this.#known.clear();
    this.#sum = 0;
    this.#tops = null;
    return true;
  }
}

class History {
  #jobs;
  #actions;
  #empty;
  /** @type {Map<string, ReturnType<typeof createCard>>} those that are there */
  #cards = new Map();
  #heights = new Heights();
  #gaps = [];
  #stale = new Set();
  #waiting = false;
  #loading = false;
  #failed = false;
  #measure = new ResizeObserver((entries) => this.#measured(entries));

  /**
   * @param {HTMLElement} place
   * @param {ReturnType<typeof import("./jobs.js").createJobs>} jobs
   * @param {import("./card.js").CardActions} actions
   * @param {() => Node} empty what is shown where there is nothing yet
   */
  constructor(place, jobs, actions, empty) {
    this.#jobs = jobs;
    this.#actions = actions;
    this.#empty = empty;
    this.feed = el("div.feed", { role: "feed", "aria-label": "Jobs, the newest first", "aria-busy": "true", onkeydown: (event) => this.#key(event) });
    this.foot = el("div.feed-foot", { role: "status" });
    this.nothing = el("div.nothing", { hidden: true });
    place.append(this.nothing, this.feed, this.foot);
    this.#measure.observe(this.feed);
    jobs.onChange((change) => {
      if (change.kind === "removed") this.#remove(change.id);
      if (change.kind === "changed") this.#stale.add(change.id);
      else this.#showEnd();
      this.#draw();
    });
    document.addEventListener("scroll", () => this.#draw(), { passive: true });
    // "3 minutes ago" grows old.
    setInterval(() => [...this.#cards.keys()].forEach((id) => (this.#stale.add(id), this.#draw())), 60_000);
  }

  /** Brings a job's card into view and gives it the focus. */
  reveal(id) {
    if (this.feed.checkVisibility()) this.#go(id, "center");
    else window.addEventListener("hashchange", () => this.#go(id, "center"), { once: true }); // from another page
  }

  /** Once a frame, however much has happened. */
  #draw() {
    if (this.#waiting) return;
    this.#waiting = true;
    requestAnimationFrame(() => {
      this.#waiting = false;
      for (const id of this.#stale) if (this.#jobs.get(id)) this.#cards.get(id)?.update(this.#jobs.get(id));
      this.#stale.clear();
      if (this.feed.checkVisibility()) this.#place();
    });
  }

  /** Has the cards there that are near the screen, and the one with the focus wherever it is. @param {string} [also] and this one */
  #place(also) {
    const ids = this.#jobs.ids();
    const top = -this.feed.getBoundingClientRect().top;
    const first = this.#heights.at(ids, top - NEAR);
    const last = this.#heights.at(ids, top + innerHeight + NEAR);
    const wanted = new Map(ids.slice(first, last + 1).map((id, index) => [id, first + index]));
    for (const id of [this.#focused, also]) if (this.#jobs.get(id) && !wanted.has(id)) wanted.set(id, ids.indexOf(id));
    const hold = this.#held();
    for (const id of this.#cards.keys()) if (!wanted.has(id)) this.#leave(id);
    this.#arrange(ids, [...wanted.values()].sort((a, b) => a - b));
    hold();
    if (last >= ids.length - AHEAD) this.#more();
  }

  /** Where the first card on the screen is; what this gives brings it back there. At the top of the page nothing is held. */
  #held() {
    const top = (element) => element.getBoundingClientRect().top;
    if (top(this.feed) > 0) return () => {};
    const first = [...this.feed.querySelectorAll(".card")].find((card) => card.getBoundingClientRect().bottom > 0);
    const before = first && top(first);
    return () => {
      const moved = first?.isConnected ? top(first) - before : 0;
      if (Math.abs(moved) >= 1) scrollBy(0, moved);
    };
  }

  /** Puts cards and the gaps between them in their order, and moves none that is where it should be: it may have the focus. */
  #arrange(ids, indices) {
    const nodes = [];
    let gaps = 0;
    let next = 0;
    for (const index of [...indices, ids.length]) {
      const height = this.#heights.between(ids, next, index);
      if (height) nodes.push(this.#gap(gaps++, height));
      if (index < ids.length) nodes.push(this.#card(ids[index], index));
      next = index + 1;
    }
    nodes.forEach((node, index) => {
      if (this.feed.children[index] !== node) this.feed.insertBefore(node, this.feed.children[index] ?? null);
    });
    while (this.feed.children.length > nodes.length) this.feed.lastChild.remove();
  }

  #gap(index, height) {
    this.#gaps[index] ??= el("div.feed-gap", { "aria-hidden": "true" });
    this.#gaps[index].style.height = `${height}px`;
    return this.#gaps[index];
  }

  #card(id, index) {
    if (!this.#cards.has(id)) {
      this.#cards.set(id, createCard(this.#jobs.get(id), this.#actions));
      this.#measure.observe(this.#cards.get(id).element);
    }
    const { element } = this.#cards.get(id);
    const total = this.#jobs.whole ? this.#jobs.ids().length : -1;
    for (const [name, value] of [["aria-posinset", index + 1], ["aria-setsize", total]]) {
      if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
    }
    return element;
  }

  #leave(id) {
    const { element } = this.#cards.get(id);
    this.#measure.unobserve(element);
    element.remove();
    this.#cards.delete(id);
  }

  #remove(id) {
    this.#heights.forget(id);
    if (!this.#cards.has(id)) return;
    const { element } = this.#cards.get(id);
    const neighbour = [element.nextElementSibling, element.previousElementSibling].find((each) => each?.matches(".card"));
    if (element.contains(document.activeElement)) (neighbour ?? document.getElementById("prompt")).focus();
    this.#leave(id);
  }

  #measured(entries) {
    let news = false;
    for (const { target, borderBoxSize } of entries) {
      const { inlineSize, blockSize } = borderBoxSize[0];
      if (target === this.feed) news = this.#heights.resized(inlineSize) || news;
      else if (target.isConnected) news = this.#heights.seen(target.dataset.job, blockSize) || news;
    }
    if (news) this.#draw();
  }

  /** The job whose card has the focus. */
  get #focused() {
    return this.feed.contains(document.activeElement) ? document.activeElement.closest(".card").dataset.job : undefined;
  }

  #showEnd() {
    const none = this.#jobs.ids().length === 0;
    this.feed.setAttribute("aria-busy", String(this.#loading));
    this.nothing.hidden = !(none && this.#jobs.whole);
    if (!this.nothing.hidden && !this.nothing.children.length) this.nothing.append(this.#empty());
    this.foot.replaceChildren();
    if (this.#failed) {
      const again = button({ name: "Try again", icon: "retry", onclick: () => ((this.#failed = false), this.#more()) });
      this.foot.append(el("p", { text: "Older pictures could not be loaded." }), again);
    } else if (this.#loading) this.foot.append(el("p.muted", { text: "Loading older pictures…" }));
  }

  async #more() {
    if (this.#loading || this.#failed || this.#jobs.whole || this.#jobs.ids().length === 0) return;
    this.#loading = true;
    this.#showEnd();
    try {
      await this.#jobs.more();
    } catch {
      this.#failed = true;
    }
    this.#loading = false;
    this.#showEnd();
    this.#draw();
  }

  #go(id, block) {
    const ids = this.#jobs.ids();
    const index = ids.indexOf(id);
    if (index < 0) return;
    if (!this.#cards.has(id)) scrollTo(0, scrollY + this.feed.getBoundingClientRect().top + this.#heights.between(ids, 0, index));
    this.#place(id);
    const { element } = this.#cards.get(id);
    element.scrollIntoView({ block });
    element.focus({ preventScroll: true });
  }

  #key(event) {
    if (event.key !== "PageDown" && event.key !== "PageUp") return;
    const ids = this.#jobs.ids();
    const next = ids[ids.indexOf(this.#focused) + (event.key === "PageDown" ? 1 : -1)];
    if (!next) return;
    event.preventDefault();
    this.#go(next, "start");
  }
}

export const createHistory = (place, jobs, actions, empty) => new History(place, jobs, actions, empty);
