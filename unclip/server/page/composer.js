/** The prompt box: words, pictures that go with them, what to do with those, and the button. */

import { api } from "./api.js";
import { Attached } from "./attached.js";
import { announce, button, el, icon } from "./dom.js";
import { EMPTY, formOf, keepForm, missing, readForm, requestOf, summaryOf, taskOf } from "./form.js";
import { createSettings, field } from "./settings.js";
import { machine } from "./state.js";
import { TokenNote } from "./tokens.js";
import { lengthOf } from "./words.js";

const MOST_PICTURES = 8;
const SENDS = { generate: "Generate", variations: "Make variations", image_to_image: "Generate", text_diff: "Change", interpolate: "Blend" };
const PROMPTED = ["generate", "image_to_image"];

/** A slider that belongs to one task, and what its place means in words. */
class Slider {
  constructor(name, label, limits, words, onInput) {
    Object.assign(this, { name, words });
    this.input = el("input", { type: "range", ...limits, oninput: () => onInput(name, this.input.value) });
    this.element = field(name, label, this.input);
    this.hint = this.element.querySelector(".hint");
  }

  show(form, there) {
    this.element.hidden = !there;
    this.input.value = form[this.name];
    this.hint.textContent = this.words(form);
  }
}

const percent = (value) => `${Math.round(Number(value) * 100)} %`;

export class Composer {
  #given;
  #form;
  #sending = machine("idle", { idle: { send: "sending" }, sending: { sent: "idle", refused: "idle" } });

  /**
   * @param {HTMLElement} place
   * @param {object} given
   * @param {import("./api.js").ServerConfig} given.config
   * @param {(request: any) => Promise<string>} given.submit
   * @param {() => void} given.add asks for a picture
   * @param {(image: string) => void} given.edit
   */
  constructor(place, given) {
    this.#given = given;
    this.#form = this.#served(readForm());
    this.#build(place);
    this.#listen();
    this.#show();
  }

  /** A form that this server can do. */
  #served(form) {
    const { config } = this.#given;
    const n = String(Math.min(Number(form.n) || 4, config.max_n));
    return { ...form, n, model: config.models.includes(form.model) ? form.model : "" };
  }

  #build(place) {
    const { config, add, edit } = this.#given;
    const set = (name, value) => this.set(name, value);
    this.tokens = new TokenNote("prompt");
    this.prompt = el("textarea.prompt", { id: "prompt", name: "prompt", rows: 1, autocomplete: "off", "aria-label": "Prompt", "aria-describedby": `prompt-count ${this.tokens.described} error-prompt` });
    this.letters = el("span.count", { id: "prompt-count" });
    this.pair = this.#words(set);
    this.sliders = {
      image_to_image: new Slider("strength", "How much may change", { min: 0.05, max: 1, step: 0.05 }, ({ strength }) => percent(strength), set),
      interpolate: new Slider("frames", "Frames, ends included", { min: 3, max: 32, step: 1 }, ({ frames }) => `${frames} frames`, set),
      text_diff: new Slider("theta", "How far to go", { min: 0.05, max: 0.5, step: 0.01 }, ({ theta, n }) => (n === "1" ? `at ${theta}` : `${n} pictures, up to ${theta}`), set),
    };
    this.attached = new Attached(config.tasks, { task: (task) => set("task", task), images: (images) => this.#setImages(images), edit, add });
    this.failure = el("p.composer-error", { id: "composer-error", role: "alert" });
    this.submitter = el("button.primary.submit", { type: "submit", "aria-keyshortcuts": "Control+Enter", title: "Ctrl+Enter" });
    this.surprise = button({ name: "Surprise me", icon: "sparkle", look: "quiet", onclick: () => this.#surpriseMe() });
    this.settings = createSettings(config, set);
    this.summary = el("span.muted");
    this.fold = el("details.settings", {}, el("summary", {}, icon("chevronRight"), el("span", { text: "Settings" }), this.summary), this.settings.element);
    const upload = button({ name: "Add a picture", icon: "image", look: "quiet", onclick: add });
    const extra = el("div.extra", {}, ...Object.values(this.sliders).map((slider) => slider.element));
    const foot = el("div.composer-foot", {}, el("div.row", {}, upload, this.surprise), el("div.row.end", {}, this.letters, this.tokens.count, this.submitter));
    const promptError = el("p.field-error", { id: "error-prompt", role: "alert" });
    this.box = el("div.composer-box", {}, this.attached.element, this.prompt, this.tokens.read, this.tokens.cut, promptError, this.pair.element, extra, foot);
    this.element = el("form.composer", { novalidate: true, autocomplete: "off" }, this.box, this.failure, this.fold);
    place.append(this.element);
  }

  /** The two descriptions of a change by words. */
  #words(set) {
    const typed = (name, placeholder) => el("input", { type: "text", autocomplete: "off", placeholder, oninput: (event) => set(name, event.target.value) });
    const inputs = { old: typed("old", "a photo of a cat"), new: typed("new", "an anime drawing of a super saiyan cat") };
    const fields = { old: field("old", "What it shows now", inputs.old), new: field("new", "What it should show", inputs.new) };
    const notes = { old: new TokenNote("old"), new: new TokenNote("new") };
    for (const [name, note] of Object.entries(notes)) {
      inputs[name].setAttribute("aria-describedby", `${note.described} ${inputs[name].getAttribute("aria-describedby")}`);
      inputs[name].after(note.read, note.cut);
    }
    return { element: el("div.pair", {}, fields.old, fields.new), inputs, notes };
  }

  #listen() {
    this.#sending.onChange(() => this.#show());
    this.prompt.addEventListener("input", () => this.set("prompt", this.prompt.value));
    this.element.addEventListener("submit", (event) => (event.preventDefault(), this.send()));
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing || event.shiftKey) return;
      if (event.ctrlKey || event.metaKey || event.target === this.prompt) {
        event.preventDefault();
        this.send();
      }
    });
  }

  #show() {
    const form = this.#form;
    const task = taskOf(form);
    const prompted = PROMPTED.includes(task);
    if (this.prompt.value !== form.prompt) this.prompt.value = form.prompt;
    this.prompt.hidden = !prompted;
    this.prompt.placeholder = task === "generate" ? "Describe a picture" : "Describe what the picture should become";
    for (const [name, input] of Object.entries(this.pair.inputs)) if (input.value !== form[name]) input.value = form[name];
    this.pair.element.hidden = task !== "text_diff";
    for (const [of, slider] of Object.entries(this.sliders)) slider.show(form, of === task);
    const over = this.#countLetters(prompted ? form.prompt : "");
    this.tokens.show(prompted ? form.prompt : "", form);
    for (const [name, note] of Object.entries(this.pair.notes)) note.show(task === "text_diff" ? form[name] : "", form);
    const busy = this.#sending.state === "sending";
    this.surprise.hidden = task !== "generate";
    this.submitter.textContent = busy ? "Sending…" : SENDS[task];
    this.submitter.disabled = busy || over;
    this.summary.textContent = summaryOf(form);
    this.settings.show(form, task);
    this.attached.show(form);
    this.#grow();
  }

  /** Tells how long a prompt is once that matters. @returns {boolean} whether it is too long for the server */
  #countLetters(prompt) {
    const limit = this.#given.config.prompt_limit;
    const used = lengthOf(prompt);
    this.letters.textContent = used > limit * 0.8 ? `${used} of ${limit} letters` : "";
    this.letters.classList.toggle("over", used > limit);
    return used > limit;
  }

  /** As high as its words; the browser's own field-sizing where it has it. */
  #grow() {
    if (CSS.supports("field-sizing", "content")) return;
    this.prompt.style.height = "auto";
    this.prompt.style.height = `${this.prompt.scrollHeight}px`;
  }

  #setImages(images) {
    this.set("images", images);
    if (!this.element.contains(document.activeElement)) (images.length ? this.attached.element.querySelector("button") : this.prompt).focus();
  }

  /** Tells a failure where it happened: at its field, or under the box. */
  fail(message, param) {
    const at = param && this.element.querySelector(`#error-${CSS.escape(param)}`);
    (at ?? this.failure).textContent = message;
    if (!at) return;
    if (this.fold.contains(at)) this.fold.open = true;
    const input = this.element.querySelector(`[name="${CSS.escape(param)}"]`);
    input?.setAttribute("aria-invalid", "true");
    input?.focus();
  }

  #forgive(name) {
    this.failure.textContent = "";
    for (const error of this.element.querySelectorAll(name ? `#error-${CSS.escape(name)}` : ".field-error")) error.textContent = "";
    for (const input of this.element.querySelectorAll("[aria-invalid]")) if (!name || input.name === name) input.removeAttribute("aria-invalid");
  }

  async #surpriseMe() {
    try {
      this.set("prompt", (await api.surprise()).prompt);
      this.prompt.focus();
    } catch (error) {
      this.fail(error.message);
    }
  }

  /** @returns {import("./form.js").Form} */
  get form() {
    return this.#form;
  }

  set(name, value) {
    this.#form = { ...this.#form, [name]: value };
    keepForm(this.#form);
    this.#forgive(name);
    this.#show();
  }

  async send() {
    if (!this.#sending.can("send")) return;
    this.#forgive();
    const lack = missing(this.#form);
    if (lack) return this.fail(lack.message, lack.field);
    this.#sending.send("send");
    try {
      await this.#given.submit(requestOf(this.#form));
      this.#sending.send("sent");
      announce("Sent.");
    } catch (error) {
      this.#sending.send("refused");
      this.fail(error.message, error.param);
    }
  }

  focus() {
    (this.prompt.hidden ? this.submitter : this.prompt).focus();
  }

  /** Puts a picture into the box, as the last of those that are there. */
  attach(image) {
    const { images } = this.#form;
    if (images.includes(image)) return;
    if (images.length === MOST_PICTURES) return this.fail(`${MOST_PICTURES} pictures are the most.`);
    this.set("images", [...images, image]);
    announce("The picture is in the prompt box.");
  }

  /** Takes everything of a request into the form. */
  reuse(request) {
    this.#form = this.#served({ ...EMPTY, ...formOf(request) });
    keepForm(this.#form);
    this.#forgive();
    this.#show();
    this.fold.open = true;
  }
}
