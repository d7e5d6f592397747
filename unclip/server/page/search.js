/** Search: words, a picture, or both, and what an index has that is nearest to them. */

import { api, ApiError, foundUrl } from "./api.js";
import { button, el } from "./dom.js";
import { FoundViewer, tileOf } from "./found.js";
import { picture, pictureAt } from "./pictures.js";
import { EMPTY, hashOf, hasPicture, MORE, MOST, readSeek, requestOf, rowOf, seeksNothing } from "./seek.js";
import { field } from "./settings.js";
import { uploadPicture } from "./upload.js";

const counted = (rows) => (rows === 1 ? "1 picture" : `${rows.toLocaleString("en")} pictures`);

export class Search {
  #given;
  /** @type {import("./seek.js").Seek} what is in the box */
  #seek = EMPTY;
  /** @type {import("./seek.js").Seek | null} what the hits are of */
  #asked = null;
  #asking = new AbortController();
  /** @type {import("./found.js").Found | null} */
  #found = null;

  /**
   * @param {HTMLElement} place
   * @param {object} given
   * @param {Record<string, number>} given.indices
   * @param {(hash: string, instead?: boolean) => void} given.go
   * @param {(hash: string) => void} given.asked told where the hits are found again
   * @param {() => void} given.add asks for a picture
   * @param {Pick<import("./found.js").FoundActions, "variations" | "edit" | "attach">} given.use
   */
  constructor(place, given) {
    this.#given = given;
    this.viewer = new FoundViewer({ ...given.use, like: (hit) => this.#like(hit), open: (id) => this.#open(id, true), closed: () => this.#closed() });
    this.#build(place);
    this.#listen();
  }

  #build(place) {
    const names = Object.keys(this.#given.indices);
    this.words = el("input.prompt", { type: "search", id: "search-words", maxlength: 1000, autocomplete: "off", "aria-label": "What to look for", placeholder: "Describe what you look for" });
    this.attached = el("div.attached", { hidden: true });
    this.weight = el("input", { type: "range", min: 0, max: 1, step: 0.05 });
    this.mix = field("weight", "How much the picture counts beside the words", this.weight);
    this.index = el("select", { "aria-label": "Where to look", hidden: names.length < 2 }, ...names.map((name) => el("option", { value: name, text: name })));
    const submitter = el("button.primary.submit", { type: "submit", text: "Search" });
    const upload = button({ name: "Add a picture", icon: "image", look: "quiet", onclick: this.#given.add });
    const foot = el("div.composer-foot", {}, el("div.row", {}, upload), el("div.row.end", {}, this.index, submitter));
    this.failure = el("p.composer-error", { role: "alert" });
    this.form = el("form.composer", { role: "search", novalidate: true }, el("div.composer-box", {}, this.attached, this.words, el("div.extra", {}, this.mix), foot), this.failure);
    this.status = el("p.muted.search-status", { role: "status", tabindex: -1 });
    this.hits = el("ul.found-grid", { "aria-label": "Results, the nearest first" });
    this.more = button({ name: "Show more", onclick: () => this.#seekMore() });
    place.append(el("h1.unseen", { text: "Search pictures" }), this.form, this.status, this.hits, el("div.feed-foot", {}, this.more));
  }

  #listen() {
    window.addEventListener("hashchange", () => location.hash.startsWith("#/search") || this.viewer.close());
    this.form.addEventListener("submit", (event) => (event.preventDefault(), this.#send()));
    this.words.addEventListener("input", () => this.#set({ words: this.words.value }));
    this.weight.addEventListener("input", () => this.#set({ weight: this.weight.value }));
    this.weight.addEventListener("change", () => this.#send());
    this.index.addEventListener("change", () => {
      this.#set({ index: this.index.value, like: "" });
      if (!seeksNothing(this.#seek)) this.#send();
    });
  }

  focus() {
    this.words.focus();
  }

  /** What the address says. @param {string} query */
  async show(query) {
    const { seek, open } = readSeek(query);
    if (!(seek.index in this.#given.indices)) Object.assign(seek, { index: this.index.options[0].value, like: "" });
    this.#seek = seek;
    this.#draw();
    if (!this.#isAsked(seek)) await this.#ask(seek);
    if (!this.#isAsked(seek)) return; // something else is sought by now
    const hit = open === null ? null : this.#found?.hits.find(({ id, name }) => String(id) === open && name !== null);
    if (hit) this.viewer.show(this.#found, hit);
    else this.viewer.close();
  }

  #isAsked = (seek) => this.#asked !== null && hashOf(this.#asked) === hashOf(seek);

  /** Looks for what a stored picture shows, beside the words that are there. @param {string} id */
  seekPicture(id) {
    this.#set({ picture: id, like: "" });
    this.#send();
  }

  /** A picture from this computer. @param {File} file */
  async take(file) {
    this.failure.textContent = "";
    try {
      this.seekPicture((await uploadPicture(file)).id);
    } catch (error) {
      this.failure.textContent = error.message;
    }
    this.focus();
  }

  #set(changes) {
    this.#seek = { ...this.#seek, ...changes, n: EMPTY.n };
    this.#draw();
  }

  #send() {
    if (seeksNothing(this.#seek)) {
      this.failure.textContent = "Say what to look for, or add a picture.";
      return this.focus();
    }
    this.#asked = null;
    this.#given.go(hashOf(this.#seek));
  }

  /** @param {import("./found.js").Hit} hit */
  #like(hit) {
    this.#set({ picture: "", like: `${this.#found.edition}.${hit.id}`, words: "" });
    this.#given.go(hashOf(this.#seek));
    this.viewer.close();
    this.status.focus({ preventScroll: true });
    scrollTo({ top: 0 });
  }

  #seekMore() {
    this.#given.go(hashOf({ ...this.#asked, n: String(Math.min(MOST, this.#found.hits.length + MORE)) }), true);
  }

  #open(id, instead = false) {
    this.#given.go(hashOf(this.#asked, id), instead);
  }

  #closed() {
    const [path, query] = location.hash.split("?");
    if (path === "#/search" && readSeek(query).open !== null) this.#given.go(hashOf(this.#asked), true);
  }

  /** The box as what is sought. */
  #draw() {
    const { words, picture: id, like, weight, index } = this.#seek;
    if (this.words.value !== words) this.words.value = words;
    this.weight.value = weight;
    this.mix.querySelector(".hint").textContent = `${Math.round(Number(weight) * 100)} %`;
    this.mix.hidden = !(words.trim() && hasPicture(this.#seek));
    this.index.value = index;
    this.attached.hidden = !hasPicture(this.#seek);
    if (this.attached.dataset.shown === (id || like)) return;
    this.attached.dataset.shown = id || like;
    if (!hasPicture(this.#seek)) return this.attached.replaceChildren();
    const how = { alt: "The picture that is looked for", lazy: false };
    const { edition, id: row } = rowOf(like);
    const shown = id ? picture(id, how) : pictureAt(foundUrl(index, edition, row, true), how);
    const remove = button({ name: "Take the picture out", icon: "close", label: false, look: "quiet", onclick: () => this.#takeOut() });
    this.attached.replaceChildren(el("div.attached-picture", {}, shown, remove));
  }

  #takeOut() {
    this.#set({ picture: "", like: "" });
    this.focus();
    if (!seeksNothing(this.#seek)) this.#send();
  }

  /** @param {import("./seek.js").Seek} seek */
  async #ask(seek) {
    const goesOn = this.#found !== null && this.#isAsked({ ...seek, n: this.#asked?.n ?? "" });
    this.#asking.abort();
    this.#asking = new AbortController();
    this.#asked = seek;
    this.#given.asked(hashOf(seek));
    this.failure.textContent = "";
    if (seeksNothing(seek)) return this.#tell(null);
    this.status.textContent = "Looking…";
    this.hits.setAttribute("aria-busy", "true");
    try {
      const found = await api.search(requestOf(seek), this.#asking.signal);
      this.#tell({ ...found, index: seek.index }, goesOn ? this.#found.hits.length : 0);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ApiError)) throw error;
      this.#tell(null);
      this.failure.textContent = error.message;
    }
  }

  /** Shows the hits, from some place on where those before are there already. */
  #tell(found, from = 0) {
    this.#found = found;
    this.hits.removeAttribute("aria-busy");
    const tiles = found ? found.hits.slice(from).map((_, place) => tileOf(found, from + place, (id) => this.#open(id))) : [];
    if (from) this.hits.append(...tiles);
    else this.hits.replaceChildren(...tiles);
    this.more.hidden = !found || !tiles.length || found.hits.length >= Math.min(MOST, found.total);
    this.status.textContent = this.#wordsOf(found);
  }

  #wordsOf(found) {
    const rows = found?.total ?? this.#given.indices[this.#seek.index];
    if (!rows) return "There is nothing in this index.";
    if (!found) return `${counted(rows)} to look through, by words, by a picture, or by both.`;
    return `The nearest ${found.hits.length} of ${counted(rows)}, in ${found.seconds.toFixed(2)} s`;
  }
}
