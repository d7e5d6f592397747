/**
 * The editor: mask a part or drag the frame past the edge, say what should be there, choose a candidate. Each frame is one
 * `inpaint` job of the server; accepted pixels are merged here, and what was known and not covered stays as it was to the bit.
 */

import { api, imageBlob } from "../api.js";
import { button, el, toast } from "../dom.js";
import { requestOf } from "../form.js";
import { machine } from "../state.js";
import { TokenNote } from "../tokens.js";
import { fileName } from "../words.js";
import { Desk } from "./desk.js";
import { exportFrame, maskBlob, openShare, pictureBlob } from "./document.js";
import { keep, kept } from "./keep.js";
import { keysOf } from "./keys.js";
import { Making } from "./making.js";
import { createTools } from "./tools.js";

const KEEP_AFTER = 800; // ms
const LOCKED = ["sending", "making", "choosing"];

const STATES = {
  empty: { load: "loading" },
  loading: { loaded: "ready", refused: "empty" },
  ready: { load: "loading", send: "sending", resume: "making" },
  sending: { accepted: "making", refused: "ready" },
  making: { some: "choosing", none: "ready" },
  choosing: { accept: "ready", leave: "ready", retry: "sending" },
};

export class Editor {
  #place;
  #given;
  #flow = machine("empty", STATES);
  #keeping = null;

  /**
   * @param {HTMLElement} place
   * @param {object} given
   * @param {import("../api.js").ServerConfig} given.config
   * @param {ReturnType<typeof import("../jobs.js").createJobs>} given.jobs
   * @param {() => import("../form.js").Form} given.settings of the prompt box: seed, steps and the rest hold here too
   * @param {() => void} given.open asks for a picture
   */
  constructor(place, given) {
    this.#place = place;
    this.#given = given;
    const changed = () => (this.#show(), this.#keepSoon());
    const canvas = el("canvas.plane", { tabindex: 0, role: "application", "aria-label": "Canvas. Arrow keys move the brush or the frame, Space paints." });
    this.desk = new Desk(canvas, given.config, {
      locked: () => LOCKED.includes(this.#flow.state),
      bare: () => this.#flow.state === "choosing" && this.desk.candidate !== null,
      changed,
    });
    const told = { show: () => this.#show(), changed, fail: (message) => this.#fail(message), retry: () => this.#retry() };
    this.making = new Making({ jobs: given.jobs, desk: this.desk, flow: this.#flow, ...told });
    this.#build(canvas);
    this.#listen(canvas);
    this.#show();
  }

  /** @returns {keyof typeof STATES} */
  get state() {
    return this.#flow.state;
  }

  #build(canvas) {
    this.tools = createTools({
      tool: (tool) => this.take(tool),
      radius: (radius) => this.resize(radius),
      side: (side) => this.desk.setSide(side),
      act: {
        undo: () => this.desk.undo.undo(), redo: () => this.desk.undo.redo(), all: () => this.desk.cover(true), none: () => this.desk.cover(false),
        open: this.#given.open, save: () => this.#save(), fit: () => this.fit(), closer: () => this.zoom(1.25), wider: () => this.zoom(0.8),
      },
    });
    this.empty = this.#emptyWords();
    this.failure = el("p.composer-error", { role: "alert" });
    const top = el("div.editor-top", {}, this.#promptForm(), this.tokens.read, this.tokens.cut, this.failure);
    const side = el("div.editor-side", {}, this.tools.element, this.making.candidates.element);
    const stage = el("div.editor-stage", {}, canvas, this.empty, this.tools.zoom);
    this.#place.append(el("div.editor", {}, top, side, stage));
  }

  #emptyWords() {
    const words = el("p.muted", { text: "Open a picture: drop it here, paste it, or choose one of the history." });
    const open = button({ name: "Open a picture", icon: "upload", look: "primary", onclick: this.#given.open });
    const begin = button({ name: "Begin with an empty frame", look: "quiet", onclick: () => this.begin(null) });
    return el("div.editor-empty", {}, el("h1", { text: "Editor" }), words, el("div.row", {}, open, begin));
  }

  #promptForm() {
    const { config } = this.#given;
    this.tokens = new TokenNote("editor");
    this.prompt = el("input.editor-words", {
      type: "text", id: "editor-prompt", "aria-label": "What should be there", "aria-describedby": this.tokens.described, placeholder: "What should be there", autocomplete: "off", maxlength: config.prompt_limit,
    });
    const counts = [1, 2, 3, 4].filter((n) => n <= config.max_n);
    this.count = el("select", { "aria-label": "Candidates" }, ...counts.map((n) => el("option", { value: n, text: String(n), selected: n === 4 })));
    this.submitter = el("button.primary", { type: "submit", text: "Generate", "aria-keyshortcuts": "Control+Enter" });
    this.form = el("form.editor-prompt", { novalidate: true }, this.prompt, this.tokens.count, this.count, this.submitter);
    return this.form;
  }

  #listen(canvas) {
    const onKey = keysOf(this);
    document.addEventListener("keydown", (event) => {
      if (!this.#place.hidden && !document.querySelector("dialog[open]")) onKey(event);
    });
    canvas.addEventListener("wheel", () => requestAnimationFrame(() => this.#show()), { passive: true });
    this.prompt.addEventListener("input", () => {
      this.#tellTokens();
      this.#keepSoon();
    });
    this.form.addEventListener("submit", (event) => (event.preventDefault(), this.generate()));
  }

  #tellTokens() {
    this.tokens.show(this.prompt.value, this.#given.settings());
  }

  #show() {
    const { desk, tools } = this;
    const there = desk.layers !== null;
    const { locked } = desk;
    this.#place.dataset.state = this.#flow.state;
    this.empty.hidden = there;
    tools.element.hidden = !this.making.candidates.element.hidden;
    tools.zoom.hidden = !there;
    desk.canvas.classList.toggle("paints", ["brush", "eraser"].includes(desk.tool));
    desk.canvas.dataset.tool = desk.tool;
    const { canUndo, canRedo } = desk.undo;
    tools.show({ tool: desk.tool, radius: desk.radius, side: desk.frame.side, sides: desk.sides, canUndo, canRedo, locked, scale: desk.view.scale, there });
    this.submitter.disabled = this.#flow.state !== "ready";
    this.submitter.textContent = { sending: "Sending…", making: "Painting…" }[this.#flow.state] ?? "Generate";
    this.prompt.disabled = this.count.disabled = locked;
    desk.view.ask();
  }

  #fail(message) {
    this.failure.textContent = message;
  }

  /** Begins with a picture, or with nothing known. @param {Blob | null} blob */
  async begin(blob) {
    if (!this.#flow.send("load")) return this.#fail("Accept or cancel the candidates first.");
    this.#fail("");
    this.making.drop();
    try {
      const bitmap = blob && (await createImageBitmap(blob, { imageOrientation: "from-image" }));
      this.desk.begin(bitmap);
      this.#flow.send("loaded");
      this.#keepSoon();
    } catch {
      this.#flow.send("refused");
      this.#fail("This picture cannot be read: it may be damaged.");
    }
    this.#show();
  }

  take(tool) {
    this.desk.take(tool);
    this.#show();
  }

  resize(radius) {
    this.desk.resize(radius);
    this.#show();
  }

  zoom(factor) {
    this.desk.view.zoom(factor);
    this.#show();
  }

  fit() {
    this.desk.view.fitAll();
    this.#show();
  }

  /** Asks the server for what is open in the frame. */
  generate() {
    if (!this.#flow.can("send") && !this.#flow.can("retry")) return;
    this.#fail("");
    const { layers, frame } = this.desk;
    const share = openShare(layers, frame);
    if (share === 0) return this.#fail("Nothing in the frame is to be painted: cover a part with the brush, or move the frame past the edge.");
    if (share === 1 && !this.prompt.value.trim()) return this.#fail("The frame is empty, so say what should be there.");
    this.#flow.send(this.#flow.can("send") ? "send" : "retry");
    this.making.begin(() => this.#request(share === 1));
  }

  /** @param {boolean} whole whether nothing in the frame is known */
  async #request(whole) {
    const { sizes } = this.#given.config;
    const size = sizes.find((each) => each >= this.desk.frame.side) ?? sizes.at(-1);
    const form = { ...this.#given.settings(), images: [], prompt: this.prompt.value };
    const request = { ...requestOf(form, whole ? "generate" : "inpaint"), n: Number(this.count.value), size };
    if (!request.prompt) delete request.prompt;
    if (whole) return request;
    const sent = await exportFrame(this.desk.layers, this.desk.frame, size);
    const [image, mask] = await Promise.all([api.upload(sent.image), api.upload(sent.mask, "mask")]);
    return { ...request, images: [image.id], mask: mask.id };
  }

  #retry() {
    if (!this.#flow.can("retry")) return;
    this.making.candidates.hide();
    this.generate();
  }

  async #save() {
    if (!this.desk.layers) return;
    const link = el("a", { href: URL.createObjectURL(await pictureBlob(this.desk.layers)), download: fileName(this.prompt.value || "canvas", null) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  #keepSoon() {
    clearTimeout(this.#keeping);
    this.#keeping = setTimeout(() => this.desk.layers && this.#keep(), KEEP_AFTER);
  }

  async #keep() {
    const { layers, frame } = this.desk;
    const [picture, mask] = await Promise.all([pictureBlob(layers), maskBlob(layers)]);
    const done = await keep({ picture, mask, origin: layers.origin, frame, prompt: this.prompt.value, job: this.making.job });
    if (!done) toast("This browser gives no room to keep the canvas over a reload.", { failure: true });
  }

  /** What was on the canvas before the page was left, with its job where that still runs. */
  async #restore() {
    const found = await kept();
    if (!found || !this.#flow.send("load")) return;
    try {
      const [picture, mask] = await Promise.all([createImageBitmap(found.picture), createImageBitmap(found.mask)]);
      this.desk.restore({ ...found, picture, mask });
      this.prompt.value = found.prompt;
      this.#flow.send("loaded");
    } catch {
      this.#flow.send("refused");
      return;
    }
    if (found.job) await this.making.resume(found.job);
  }

  /** Shows the editor, with a picture of the server, or with what it held. @param {string | null} image */
  async show(image) {
    if (image) {
      try {
        await this.begin(await imageBlob(image));
      } catch (error) {
        this.#fail(error.message);
      }
    } else if (this.#flow.state === "empty") await this.#restore();
    this.#tellTokens(); // the settings may have changed on the other page
    this.#show();
  }
}
