/**
 * The history as a feed. Five jobs are a chunk; a chunk that is far off the screen is emptied and keeps its height, so that ten
 * thousand jobs scroll like fifty. New jobs go on top and never move what somebody looks at.
 */

import { createCard } from "./card.js";
import { button, el } from "./dom.js";

const CHUNK = 5;
const CARD = 380; // px, a guess of a card that nobody has seen yet
const NEAR = "1600px 0px";

/**
 * @param {HTMLElement} place
 * @param {ReturnType<typeof import("./jobs.js").createJobs>} jobs
 * @param {import("./card.js").CardActions} actions
 * @param {() => Node} empty what is shown where there is nothing yet
 */
export function createHistory(place, jobs, actions, empty) {
  const feed = el("div.feed", { role: "feed", "aria-label": "Jobs, the newest first", "aria-busy": "true" });
  const foot = el("div.feed-foot", { role: "status" });
  const nothing = el("div.nothing", { hidden: true });
  place.append(nothing, feed, foot);

  /** @typedef {{element: HTMLElement, ids: string[], near: boolean}} Chunk */
  /** @type {Chunk[]} the newest first */
  const chunks = [];
  const chunkOf = new Map();
  const cards = new Map();
  let loading = false;
  let failed = false;

  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const chunk = chunks.find((each) => each.element === target);
      if (chunk && isIntersecting !== chunk.near) isIntersecting ? fill(chunk) : clear(chunk);
    }
  }, { rootMargin: NEAR });

  const end = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && more(), { rootMargin: "2000px 0px" });
  end.observe(foot);

  function cardOf(id) {
    if (!cards.has(id)) cards.set(id, createCard(jobs.get(id), actions));
    return cards.get(id).element;
  }

  function fill(chunk) {
    chunk.near = true;
    chunk.element.style.height = "";
    chunk.element.replaceChildren(...chunk.ids.map(cardOf));
    number(chunk);
  }

  function clear(chunk) {
    if (chunk.element.contains(document.activeElement)) return;
    chunk.near = false;
    chunk.element.style.height = `${chunk.element.offsetHeight}px`;
    chunk.element.replaceChildren();
    chunk.ids.forEach((id) => cards.delete(id));
  }

  function number(chunk) {
    const before = chunks.slice(0, chunks.indexOf(chunk)).reduce((sum, each) => sum + each.ids.length, 0);
    const total = jobs.whole ? jobs.ids().length : -1;
    [...chunk.element.children].forEach((card, index) => {
      card.setAttribute("aria-posinset", String(before + index + 1));
      card.setAttribute("aria-setsize", String(total));
    });
  }

  function newChunk(atTop) {
    const chunk = { element: el("div.chunk"), ids: [], near: atTop || chunks.length < 2 };
    if (atTop) {
      chunks.unshift(chunk);
      feed.prepend(chunk.element);
    } else {
      chunks.push(chunk);
      feed.append(chunk.element);
    }
    watch.observe(chunk.element);
    return chunk;
  }

  /** Puts a job where its age says: on top, at the end, or between. */
  function insert(id) {
    const order = jobs.ids();
    const index = order.indexOf(id);
    const above = chunkOf.get(order[index - 1]);
    const below = chunkOf.get(order[index + 1]);
    let chunk = index === 0 ? chunks[0] : above ?? below;
    if (!chunk || (chunk.ids.length >= CHUNK && (index === 0 || !below))) chunk = newChunk(index === 0 && chunks.length > 0);
    chunkOf.set(id, chunk);
    const place = above === chunk ? chunk.ids.indexOf(order[index - 1]) + 1 : below === chunk ? chunk.ids.indexOf(order[index + 1]) : 0;
    chunk.ids.splice(place, 0, id);
    if (!chunk.near) {
      chunk.element.style.height = `${chunk.ids.length * CARD}px`;
      return;
    }
    const held = index === 0 && scrollY > feed.offsetTop + 200 ? document.documentElement.scrollHeight : 0;
    chunk.element.insertBefore(cardOf(id), chunk.element.children[place] ?? null);
    if (held) scrollBy(0, document.documentElement.scrollHeight - held);
    number(chunk);
  }

  function remove(id) {
    const chunk = chunkOf.get(id);
    if (!chunk) return;
    chunkOf.delete(id);
    chunk.ids.splice(chunk.ids.indexOf(id), 1);
    const card = cards.get(id)?.element;
    if (card?.contains(document.activeElement)) (card.nextElementSibling ?? card.previousElementSibling ?? document.getElementById("prompt")).focus();
    card?.remove();
    cards.delete(id);
    if (chunk.ids.length) return number(chunk);
    watch.unobserve(chunk.element);
    chunk.element.remove();
    chunks.splice(chunks.indexOf(chunk), 1);
  }

  function showEnd() {
    const none = jobs.ids().length === 0;
    feed.setAttribute("aria-busy", String(loading));
    nothing.hidden = !(none && jobs.whole);
    if (!nothing.hidden && !nothing.children.length) nothing.append(empty());
    foot.replaceChildren();
    if (failed) {
      foot.append(el("p", { text: "Older pictures could not be loaded." }), button({ name: "Try again", icon: "retry", onclick: () => ((failed = false), more()) }));
    } else if (loading) foot.append(el("p.muted", { text: "Loading older pictures…" }));
  }

  async function more() {
    if (loading || failed || jobs.whole || jobs.ids().length === 0) return;
    loading = true;
    showEnd();
    try {
      await jobs.more();
    } catch {
      failed = true;
    }
    loading = false;
    showEnd();
    // The foot may still be in sight, and an observer only tells of changes.
    if (!failed && foot.getBoundingClientRect().top < innerHeight + 2000) more();
  }

  /** Many events a second are one drawing a frame. */
  const stale = new Set();
  function redraw(id) {
    if (!stale.size) {
      requestAnimationFrame(() => {
        for (const each of stale) if (jobs.get(each)) cards.get(each)?.update(jobs.get(each));
        stale.clear();
      });
    }
    stale.add(id);
  }

  jobs.onChange((change) => {
    if (change.kind === "added") insert(change.id);
    else if (change.kind === "removed") remove(change.id);
    else if (change.kind === "changed") redraw(change.id);
    if (change.kind !== "changed") showEnd();
    if (change.kind === "ready") more();
  });

  feed.addEventListener("keydown", (event) => {
    if (event.key !== "PageDown" && event.key !== "PageUp") return;
    const all = [...feed.querySelectorAll(".card")];
    const now = all.findIndex((card) => card.contains(document.activeElement));
    const next = all[now + (event.key === "PageDown" ? 1 : -1)];
    if (now < 0 || !next) return;
    event.preventDefault();
    next.focus();
    next.scrollIntoView({ block: "start" });
  });

  // "3 minutes ago" grows old.
  setInterval(() => cards.forEach((card, id) => jobs.get(id) && card.update(jobs.get(id))), 60_000);

  return {
    /** Brings a job's card into view and gives it the focus. */
    reveal(id) {
      const chunk = chunkOf.get(id);
      if (!chunk) return;
      if (!chunk.near) fill(chunk);
      const card = cards.get(id).element;
      card.scrollIntoView({ block: "center" });
      card.focus({ preventScroll: true });
    },
  };
}
