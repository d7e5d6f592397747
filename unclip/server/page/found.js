/** What was found: a tile for each hit, and one of them large, with what can be made of it. */

import { ApiError, foundUrl, send } from "./api.js";
import { announce, button, el } from "./dom.js";
import { Lightbox } from "./lightbox.js";
import { pictureAt } from "./pictures.js";
import { clock } from "./seek.js";
import { uploadPicture } from "./upload.js";

/** @typedef {{id: number, score: number, caption: string | null, name: string | null, url: string | null, time: number | null,
 *   width: number | null, height: number | null}} Hit `name`: of its file, null where the server has none; `time`: of a frame
 * @typedef {{index: string, edition: string, total: number, hits: Hit[]}} Found */

const titleOf = (hit) => hit.caption || hit.name || hit.url || "Without words";
const moment = ({ time }) => (time === null ? null : clock(time));
const similarity = ({ score }) => score.toFixed(3);

/** @param {Found} found @param {Hit} hit @param {boolean} [full] */
export const pictureOf = (found, hit, full = false) => pictureAt(foundUrl(found.index, found.edition, hit.id, !full), { lazy: !full });

/** Of a picture elsewhere, which this page does not fetch. */
function elsewhere(hit) {
  const there = /^https?:\/\//.test(hit.url ?? "");
  return el("div.tile", { "data-state": "dropped" }, there ? el("a.tile-word", { href: hit.url, target: "_blank", rel: "noreferrer noopener", text: "Elsewhere" }) : el("span.tile-word", { text: "No picture" }));
}

function here(found, hit, label, open) {
  const image = pictureOf(found, hit);
  const tile = el("div.tile", { "data-state": "waiting" }, el("button.tile-open", { type: "button", "aria-label": `Open ${label}`, onclick: () => open(hit.id) }, image));
  image.addEventListener("load", () => (tile.dataset.state = "done"), { once: true });
  image.addEventListener("error", () => {
    tile.dataset.state = "dropped";
    tile.replaceChildren(el("span.tile-word", { text: "Not there any more" }));
  }, { once: true });
  return tile;
}

/** @param {Found} found @param {number} place @param {(id: number) => void} open @returns {HTMLLIElement} */
export function tileOf(found, place, open) {
  const hit = found.hits[place];
  const label = [`result ${place + 1}: ${titleOf(hit)}`, moment(hit), `similarity ${similarity(hit)}`].filter(Boolean).join(", ");
  const meta = el("p.found-meta", {}, el("span", { text: similarity(hit), title: "Similarity, as CLIP sees it: 1 is the same" }), moment(hit) && el("span", { text: moment(hit) }));
  return el("li.found", {}, hit.name === null ? elsewhere(hit) : here(found, hit, label, open), el("p.found-words", { text: titleOf(hit), title: titleOf(hit) }), meta);
}

/**
 * @typedef {{like: (hit: Hit) => void, variations: (id: string) => Promise<void>, edit: (id: string) => void,
 *   attach: (id: string) => void, open: (id: number) => void, closed: () => void}} FoundActions
 */

export class FoundViewer {
  #actions;
  /** @type {Found | null} */
  #found = null;
  /** @type {Hit | null} */
  #hit = null;
  #stored = new Map(); // what was brought to the server's pictures before, by its url

  /** @param {FoundActions} actions */
  constructor(actions) {
    this.#actions = actions;
    this.box = new Lightbox("found-viewer", { step: (way) => this.#step(way), closed: () => this.#actions.closed(), keys: () => this.#keys() });
    this.place = el("p.muted.viewer-place");
    this.failure = el("p.composer-error", { role: "alert" });
    this.details = el("dl.details");
    const act = (name, icon, key, what, look = "") => button({ name, icon, key, look, onclick: () => what() });
    const main = el(
      "div.viewer-actions",
      {},
      act("More like this", "search", "M", () => this.#like(), "primary"),
      act("Variations", "variations", "V", () => this.#use(this.#actions.variations)),
      act("Edit", "edit", "E", () => this.#use(this.#actions.edit)),
    );
    const more = el("div.viewer-more", {}, act("Use in the prompt box", "image", undefined, () => this.#use(this.#actions.attach), "quiet"));
    this.box.panel.append(this.place, main, this.failure, more, el("h3", { text: "Details" }), this.details);
  }

  get isOpen() {
    return this.box.isOpen;
  }

  close() {
    this.box.close();
  }

  /** @param {Found} found @param {Hit} hit */
  show(found, hit) {
    if (this.isOpen && this.#found === found && this.#hit === hit) return;
    this.#found = found;
    this.#hit = hit;
    this.failure.textContent = "";
    const image = pictureOf(found, hit, true);
    image.alt = titleOf(hit);
    image.addEventListener("error", () => this.#tellWhy(hit), { once: true });
    this.box.show(image, pictureOf(found, hit));
    this.box.title.textContent = titleOf(hit);
    this.place.textContent = `Result ${found.hits.indexOf(hit) + 1} of ${found.hits.length}`;
    const rows = [["Similarity", similarity(hit)], ["Index", found.index], ["File", hit.name], ["Time", moment(hit)]];
    if (hit.width && hit.height) rows.push(["Pixels", `${hit.width} × ${hit.height}`]);
    this.details.replaceChildren(...rows.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", { text: name }), el("dd", { text: value })]));
    const shown = this.#shown;
    this.box.bound(shown[0] === hit, shown.at(-1) === hit);
    announce(`${titleOf(hit)}. ${this.place.textContent}`);
  }

  /** Those that can be shown large. */
  get #shown() {
    return this.#found.hits.filter((hit) => hit.name !== null);
  }

  #url(hit) {
    return foundUrl(this.#found.index, this.#found.edition, hit.id);
  }

  #keys() {
    return { m: () => this.#like(), v: () => this.#use(this.#actions.variations), e: () => this.#use(this.#actions.edit) };
  }

  #step(way) {
    const shown = this.#shown;
    const to = shown[shown.indexOf(this.#hit) + way];
    if (to) this.#actions.open(to.id);
    else announce(way > 0 ? "This is the last picture." : "This is the first picture.");
  }

  #like() {
    this.#actions.like(this.#hit);
  }

  /** An image that fails does not say why; the server does. */
  async #tellWhy(hit) {
    const why = await send(this.#url(hit)).then(() => "This picture cannot be shown.", (error) => error.message);
    if (hit === this.#hit) this.failure.textContent = why;
  }

  /** Brings the picture to the server's own, as if it had been uploaded, and does something with it. */
  async #use(what) {
    this.failure.textContent = "";
    const url = this.#url(this.#hit);
    try {
      if (!this.#stored.has(url)) this.#stored.set(url, (await uploadPicture(await (await send(url)).blob())).id);
      await what(this.#stored.get(url));
      this.close();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#stored.delete(url);
      this.failure.textContent = error.message;
    }
  }
}
