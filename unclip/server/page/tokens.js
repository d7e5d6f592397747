/** What the model makes of a prompt, told while it is typed: how many tokens, what it will not take, how it reads the rest. */

import { send } from "./api.js";
import { announce, el } from "./dom.js";

const QUIET = 250; // ms without a key
const RESTING = 1200; // ms more until what is read is spoken: half a word is read as nothing
const MOST_UNKNOWN = 8; // that are named

/** @typedef {{word: string, known: string}} Read
 * @typedef {{count: number | null, limit: number | null, kept: number | null, read: string | null, words: Read[] | null, unknown: string[] | null}} Told */

const NOTHING = { count: null, limit: null, kept: null, read: null, words: null, unknown: null };

export class TokenNote {
  #asked = ""; // what was asked for last
  #timer = null;
  #cut = false;
  #said = ""; // of what is read, aloud
  #saying = null;

  /** @param {string} place of the prompt, for the ids of the notes */
  constructor(place) {
    this.count = el("span.count");
    this.cut = el("p.cut", { id: `${place}-cut`, hidden: true });
    this.read = el("ul.read", { id: `${place}-read`, hidden: true });
    this.described = `${this.read.id} ${this.cut.id}`;
  }

  /** @param {string} prompt "" hides it @param {{model: string, as_typed: boolean}} form no model is the server's own */
  show(prompt, { model, as_typed }) {
    const request = { prompt, ...(model ? { model } : {}), ...(as_typed ? { as_typed } : {}) };
    const key = JSON.stringify(request);
    if (key === this.#asked) return;
    this.#asked = key;
    clearTimeout(this.#timer);
    clearTimeout(this.#saying);
    if (!prompt.trim()) return this.#draw(prompt, NOTHING);
    this.#timer = setTimeout(() => this.#ask(key, request), QUIET);
  }

  async #ask(key, request) {
    try {
      const answer = await send("/api/tokens", { method: "POST", json: request });
      const told = await answer.json();
      if (key === this.#asked) this.#draw(request.prompt, told);
    } catch {
      if (key === this.#asked) this.#asked = ""; // only a convenience: the next key asks again
    }
  }

  /** @param {string} prompt @param {Told} told */
  #draw(prompt, told) {
    this.#drawCount(told.read ?? prompt, told);
    this.#drawRead(told.words ?? [], told.unknown ?? []);
  }

  /** @param {string} text that the model is given */
  #drawCount(text, { count, limit, kept }) {
    const cut = count !== null && count > limit;
    this.count.textContent = count === null ? "" : `${count} of ${limit} tokens`;
    this.count.classList.toggle("over", cut);
    this.cut.hidden = !cut;
    if (cut) {
      const rest = [...text].slice(kept).join("").trim();
      this.cut.replaceChildren("The model reads no further than this. Left out: ", el("s", { text: rest }));
      if (!this.#cut) announce(`The prompt is too long for the model. Left out: ${rest}`);
    }
    this.#cut = cut;
  }

  /** @param {Read[]} words @param {string[]} unknown */
  #drawRead(words, unknown) {
    const lines = words.map(({ word, known }) => el("li", {}, `${word}: read as `, el("b", { text: known })));
    const more = unknown.length > MOST_UNKNOWN ? ` and ${unknown.length - MOST_UNKNOWN} more` : "";
    if (unknown.length) lines.push(el("li", { text: `unknown: ${unknown.slice(0, MOST_UNKNOWN).join(", ")}${more}` }));
    this.read.replaceChildren(...lines);
    this.read.hidden = lines.length === 0;
    const said = lines.map((line) => line.textContent).join(". ");
    if (said && said !== this.#said) this.#saying = setTimeout(() => this.#say(said), RESTING);
    else this.#said = said;
  }

  #say(said) {
    this.#said = said;
    announce(said);
  }
}
