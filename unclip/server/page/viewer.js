/** One picture, large: what it is, where it came from, and what can be made of it. Arrows and swipes go to its neighbours. */

import { api, ApiError } from "./api.js";
import { announce, ask, button, el, toast } from "./dom.js";
import { canShare, leaving } from "./leaving.js";
import { Lightbox } from "./lightbox.js";
import { holderOf, lookUp, picturesOf, readOf } from "./lookup.js";
import { picture } from "./pictures.js";
import { fileName, fullDate, seedOf, settingsOf, titleOf } from "./words.js";

/**
 * @typedef {{variations: (id: string) => Promise<void>, edit: (id: string) => void, attach: (id: string) => void,
 *   blend: (id: string) => void, reuse: (request: any) => void, open: (id: string, replace?: boolean) => void,
 *   closed: () => void, collect: (id: string) => Promise<HTMLElement>, search: ((id: string) => void) | null}} ViewerActions
 */

export class Viewer {
  #jobs;
  #actions;
  /** @type {import("./lookup.js").Known | null} */
  #shown = null;

  /** @param {{jobs: ReturnType<typeof import("./jobs.js").createJobs>, actions: ViewerActions}} given */
  constructor({ jobs, actions }) {
    this.#jobs = jobs;
    this.#actions = actions;
    this.box = new Lightbox("viewer", { step: (way) => this.#step(way), closed: () => this.#closed(), keys: () => this.#keys() });
    this.title = this.box.title;
    this.#fill(this.box.panel);
    jobs.onChange((change) => change.kind === "ready" && this.#shown && this.#drawNeighbours());
  }

  get isOpen() {
    return this.box.isOpen;
  }

  #fill(panel) {
    this.place = el("p.muted.viewer-place");
    this.failure = el("p.composer-error", { role: "alert" });
    this.collecting = el("div.viewer-collect");
    this.details = el("dl.details");
    this.parents = el("div.viewer-parents");
    this.leaves = el("div.viewer-leaves", { id: "viewer-leaves", hidden: true }, leaving.switches("viewer"));
    const heading = el("h3", { text: "Details" });
    panel.append(this.place, this.#mainActions(), this.leaves, this.failure, this.#moreActions(), this.collecting, heading, this.details, this.parents);
  }

  #act = (given) => button({ ...given, onclick: () => this.#run(given.run) });

  #mainActions() {
    this.tuner = button({ name: "How it is downloaded", icon: "tune", label: false, onclick: () => this.#showLeaves(this.leaves.hidden) });
    this.tuner.setAttribute("aria-controls", "viewer-leaves");
    this.tuner.setAttribute("aria-expanded", "false");
    return el(
      "div.viewer-actions",
      {},
      this.#act({ name: "Variations", icon: "variations", look: "primary", key: "V", run: () => this.#variations() }),
      this.#act({ name: "Edit", icon: "edit", key: "E", run: () => this.#actions.edit(this.#shown.id) }),
      el("div.joined", {}, this.#act({ name: "Download", icon: "download", key: "D", run: () => leaving.download(this.#shown.id, this.#fileName()) }), this.tuner),
    );
  }

  #moreActions() {
    const quiet = (given) => this.#act({ ...given, look: "quiet" });
    this.reuser = quiet({ name: "Reuse settings", icon: "words", key: "R", run: () => this.#reuse() });
    return el(
      "div.viewer-more",
      {},
      quiet({ name: "Use in the prompt box", icon: "image", run: () => (this.#actions.attach(this.#shown.id), this.close()) }),
      quiet({ name: "Blend with another", icon: "blend", run: () => this.#blend() }),
      this.#actions.search && quiet({ name: "Find similar pictures", icon: "search", run: () => this.#search() }),
      this.reuser,
      quiet({ name: canShare() ? "Share" : "Copy picture", icon: "share", run: () => this.#share() }),
      quiet({ name: "Add to a collection", icon: "folder", key: "C", run: () => this.#collect() }),
      quiet({ name: "Delete", icon: "trash", run: () => this.#remove() }),
    );
  }

  #closed() {
    this.#shown = null;
    this.#actions.closed();
  }

  #keys() {
    const run = (what) => () => this.#shown && this.#run(what);
    return {
      v: run(() => this.#variations()),
      e: run(() => this.#actions.edit(this.#shown.id)),
      d: run(() => leaving.download(this.#shown.id, this.#fileName())),
      r: run(() => this.#reuse()),
      c: run(() => this.#collect()),
      Delete: run(() => this.#remove()),
    };
  }

  /** Does what a button or a key asks for, and tells in the panel why it could not. */
  async #run(what) {
    this.failure.textContent = "";
    try {
      await what();
    } catch (error) {
      if (!(error instanceof ApiError || error instanceof DOMException)) throw error;
      this.failure.textContent = error instanceof ApiError ? error.message : "This browser does not allow it.";
    }
  }

  async show(id) {
    this.failure.textContent = "";
    this.collecting.replaceChildren();
    const image = picture(id, { full: true, lazy: false });
    const below = picture(id, { lazy: false });
    image.addEventListener("load", () => this.#describe(image), { once: true });
    image.addEventListener("error", () => (this.failure.textContent = "This picture is not on the server any more."), { once: true });
    this.box.show(image, below);
    this.#shown = { id, request: null, slot: 0, created: 0, parents: [], count: 0 };
    try {
      const found = await lookUp(this.#jobs, id);
      if (this.#shown?.id !== id) return;
      this.#shown = found;
    } catch (error) {
      this.failure.textContent = error.message;
    }
    this.#describe(image);
    if (this.#shown?.id !== id || this.#shown.read !== undefined) return;
    const read = await readOf(id);
    if (!read || this.#shown?.id !== id) return;
    this.#shown.read = read;
    this.#drawDetails(image);
  }

  /** @param {HTMLImageElement} image */
  #describe(image) {
    if (image.dataset.image !== this.#shown?.id) return;
    const { request, slot, count } = this.#shown;
    this.title.textContent = request ? titleOf(request) : "A picture of yours";
    image.alt = this.title.textContent;
    this.place.textContent = count > 1 ? `Picture ${slot + 1} of ${count}` : "";
    this.#drawDetails(image);
    this.reuser.hidden = !request;
    this.#drawParents();
    this.#drawNeighbours();
    announce(`${this.title.textContent}. ${this.place.textContent}`);
  }

  /** @param {HTMLImageElement} image */
  #drawDetails(image) {
    const { request, slot, created, read } = this.#shown;
    const rows = request ? settingsOf(request, slot) : [["Made by", "You"]];
    if (read) rows.push(["Read as", read]);
    if (image.naturalWidth) rows.push(["Pixels", `${image.naturalWidth} × ${image.naturalHeight}`]);
    if (created) rows.push(["When", fullDate(created)]);
    this.details.replaceChildren(...rows.flatMap(([name, value]) => [el("dt", { text: name }), el("dd", { text: value })]));
  }

  #drawParents() {
    const { parents } = this.#shown;
    this.parents.hidden = parents.length === 0;
    const opener = (id, index) =>
      el("button.parent", { type: "button", "aria-label": `Open picture ${index + 1} that it was made from`, onclick: () => this.#actions.open(id, true) }, picture(id, { lazy: false }));
    this.parents.replaceChildren(el("h3", { text: "Made from" }), ...parents.map(opener));
  }

  #drawNeighbours() {
    const all = picturesOf(this.#jobs);
    const index = all.indexOf(this.#shown.id);
    this.box.bound(index <= 0, index < 0 || index === all.length - 1);
  }

  #step(way) {
    const all = picturesOf(this.#jobs);
    const index = all.indexOf(this.#shown?.id);
    const to = index < 0 ? null : all[index + way];
    if (to) this.#actions.open(to, true);
    else announce(way > 0 ? "This is the last picture." : "This is the first picture.");
  }

  #showLeaves(there) {
    this.leaves.hidden = !there;
    this.tuner.setAttribute("aria-expanded", String(there));
  }

  #fileName() {
    const { request, slot } = this.#shown;
    return fileName(this.title.textContent, request ? seedOf(request, slot) : null);
  }

  async #variations() {
    await this.#actions.variations(this.#shown.id);
    this.close();
  }

  #blend() {
    const { id } = this.#shown;
    this.close();
    this.#actions.blend(id);
  }

  #search() {
    const { id } = this.#shown;
    this.close();
    this.#actions.search(id);
  }

  #reuse() {
    const { request, slot } = this.#shown;
    if (!request) return;
    this.#actions.reuse({ ...request, seed: seedOf(request, slot) });
    this.close();
  }

  async #share() {
    if ((await leaving.share(this.#shown.id, this.#fileName())) === "copied") toast("The picture is on the clipboard.");
  }

  async #collect() {
    if (this.collecting.children.length) return this.collecting.replaceChildren();
    this.collecting.replaceChildren(await this.#actions.collect(this.#shown.id));
    this.collecting.querySelector("input, button")?.focus();
  }

  async #remove() {
    if (!(await ask("Delete this picture? It cannot be brought back.", { yes: "Delete", danger: true }))) return;
    const { id } = this.#shown;
    await api.removeImage(id);
    const holder = holderOf(this.#jobs, id);
    if (holder) await this.#jobs.refresh(holder);
    this.close();
    toast("The picture is deleted.");
  }

  close() {
    this.box.close();
  }
}
