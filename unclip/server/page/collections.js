/** Collections: named sets of pictures, a page of them all, a page of one, and the small list that puts a picture in. */

import { api } from "./api.js";
import { ask, button, el } from "./dom.js";
import { picture } from "./pictures.js";

const COVERS = 4;

/** @typedef {{id: string, name: string, images: string[]}} Collection */

const countOf = ({ images }) => (images.length === 1 ? "1 picture" : `${images.length} pictures`);

/** A line to type a new name into. */
function namer(label, action, submit) {
  const input = el("input", { type: "text", maxlength: 100, required: true, "aria-label": label, placeholder: label, autocomplete: "off" });
  const failure = el("p.field-error", { role: "alert" });
  const form = el("form.namer", {}, input, el("button", { type: "submit", text: action }), failure);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    failure.textContent = "";
    try {
      await submit(input.value.trim());
    } catch (error) {
      failure.textContent = error.message;
    }
  });
  return form;
}

/** A list of all collections with a mark at those that hold a picture. @returns {Promise<HTMLElement>} */
export async function collectionPicker(image) {
  const element = el("div.picker", { role: "group", "aria-label": "Collections" });
  const failure = el("p.field-error", { role: "alert" });

  async function draw() {
    const all = await api.collections();
    const rows = all.map((each) => {
      const box = el("input", { type: "checkbox", checked: each.images.includes(image) });
      box.addEventListener("change", async () => {
        failure.textContent = "";
        try {
          await (box.checked ? api.collect(each.id, image) : api.uncollect(each.id, image));
        } catch (error) {
          box.checked = !box.checked;
          failure.textContent = error.message;
        }
      });
      return el("label.picker-row", {}, box, el("span", { text: each.name }), el("span.muted", { text: countOf(each) }));
    });
    const fresh = namer("New collection", "Add", async (name) => {
      await api.collect((await api.makeCollection(name)).id, image);
      await draw();
    });
    element.replaceChildren(...rows, fresh, failure);
  }

  await draw();
  return element;
}

export class Collections {
  #place;
  #open;
  #failure = el("p.composer-error", { role: "alert" });

  /** @param {HTMLElement} place @param {(image: string) => void} open */
  constructor(place, open) {
    this.#place = place;
    this.#open = open;
  }

  /** The page of them all, or of one. @param {string | null} id */
  show(id) {
    return id ? this.#showOne(id) : this.#showAll();
  }

  #page(title, ...children) {
    this.#place.replaceChildren(el("header.page-head", {}, title), this.#failure, ...children);
  }

  async #attempt(what) {
    this.#failure.textContent = "";
    try {
      return await what();
    } catch (error) {
      this.#failure.textContent = error.message;
      return null;
    }
  }

  async #showAll() {
    this.#page(el("h1", { text: "Collections" }));
    const all = await this.#attempt(api.collections);
    if (!all) return;
    const fresh = namer("Name of a new collection", "Create", async (name) => {
      await api.makeCollection(name);
      await this.#showAll();
    });
    const hint = el("p.nothing-words", { text: "Nothing is collected yet. Open a picture and choose “Add to a collection”." });
    this.#page(el("h1", { text: "Collections" }), fresh, all.length ? el("ul.collection-grid", {}, ...all.map(cover)) : hint);
  }

  async #showOne(id) {
    this.#page(el("h1", { text: "Collection" }));
    const all = await this.#attempt(api.collections);
    if (!all) return;
    const found = all.find((each) => each.id === id);
    if (!found) return this.#page(el("h1", { text: "This collection is gone" }), el("a", { href: "#/collections", text: "All collections" }));
    const rename = namer("New name", "Rename", async (name) => (await api.renameCollection(id, name), this.#showOne(id)));
    rename.querySelector("input").value = found.name;
    const remove = button({ name: "Delete collection", icon: "trash", look: "quiet", onclick: () => this.#attempt(() => this.#remove(found)) });
    const tiles = found.images.map((image, index) => this.#tile(found, image, index));
    const empty = el("p.nothing-words", { text: "This collection is empty." });
    const title = el("div", {}, el("a.back", { href: "#/collections", text: "Collections" }), el("h1", { text: found.name }));
    this.#page(title, el("div.row.wrap", {}, rename, remove), tiles.length ? el("div.tiles", {}, ...tiles) : empty);
  }

  /** @param {Collection} of */
  #tile(of, image, index) {
    const opener = el("button.tile-open", { type: "button", "aria-label": `Open picture ${index + 1} of ${of.name}`, onclick: () => this.#open(image) }, picture(image));
    const out = async () => (await api.uncollect(of.id, image), this.#showOne(of.id));
    const remove = button({ name: `Take picture ${index + 1} out`, icon: "close", label: false, look: "floating take-out", onclick: () => this.#attempt(out) });
    return el("div.tile", { "data-state": "done" }, opener, remove);
  }

  /** @param {Collection} of */
  async #remove(of) {
    if (!(await ask(`Delete “${of.name}”? Its pictures stay in the history.`, { yes: "Delete", danger: true }))) return;
    await api.removeCollection(of.id);
    location.hash = "#/collections";
  }
}

/** @param {Collection} each */
function cover(each) {
  const shown = each.images.slice(-COVERS).reverse().map((image) => picture(image));
  const pictures = el("div.cover", { "data-count": shown.length, "aria-hidden": "true" }, ...shown);
  return el("li", {}, el("a.collection", { href: `#/collections/${each.id}` }, pictures, el("span.collection-name", { text: each.name }), el("span.muted", { text: countOf(each) })));
}
