/** The prompt box: words, pictures that go with them, what to do with those, and the button. */

import { api } from "./api.js";
import { announce, button, el, icon } from "./dom.js";
import { EMPTY, formOf, keepForm, missing, readForm, requestOf, summaryOf, taskOf } from "./form.js";
import { picture } from "./pictures.js";
import { createSettings, field } from "./settings.js";
import { machine } from "./state.js";
import { lengthOf } from "./words.js";

const MOST_PICTURES = 8;

const MODES = {
  variations: "Variations",
  image_to_image: "Guide with words",
  text_diff: "Change by words",
};

const SENDS = { generate: "Generate", variations: "Make variations", image_to_image: "Generate", text_diff: "Change", interpolate: "Blend" };

/**
 * @param {HTMLElement} place
 * @param {object} given
 * @param {import("./api.js").ServerConfig} given.config
 * @param {(request: any) => Promise<string>} given.submit
 * @param {() => void} given.pick opens the file picker
 * @param {(image: string) => void} given.edit
 */
export function createComposer(place, { config, submit, pick, edit }) {
  let form = readForm();
  form.n = String(Math.min(Number(form.n) || 4, config.max_n));
  if (!config.models.includes(form.model)) form.model = "";
  const sending = machine("idle", { idle: { send: "sending" }, sending: { sent: "idle", refused: "idle" } });

  const prompt = el("textarea.prompt", { id: "prompt", name: "prompt", rows: 1, autocomplete: "off", "aria-label": "Prompt", "aria-describedby": "prompt-count error-prompt" });
  const count = el("span.count", { id: "prompt-count" });
  const old = el("input", { type: "text", autocomplete: "off", placeholder: "a photo of a cat" });
  const fresh = el("input", { type: "text", autocomplete: "off", placeholder: "an anime drawing of a super saiyan cat" });
  const pair = el("div.pair", {}, field("old", "What it shows now", old), field("new", "What it should show", fresh));
  const strength = el("input", { type: "range", min: 0.05, max: 1, step: 0.05 });
  const frames = el("input", { type: "range", min: 3, max: 32, step: 1 });
  const change = field("strength", "How much may change", strength);
  const length = field("frames", "Frames between the pictures", frames);
  const extra = el("div.extra", {}, change, length);
  const attached = el("div.attached");
  const failure = el("p.composer-error", { id: "composer-error", role: "alert" });
  const promptError = el("p.field-error", { id: "error-prompt", role: "alert" });
  const submitter = el("button.primary.submit", { type: "submit", "aria-keyshortcuts": "Control+Enter", title: "Ctrl+Enter" });
  const surprise = button({ name: "Surprise me", icon: "sparkle", look: "quiet", onclick: surpriseMe });
  const upload = button({ name: "Add a picture", icon: "image", look: "quiet", onclick: pick });
  const settings = createSettings(config, change_);
  const summary = el("span.muted");
  const fold = el("details.settings", {}, el("summary", {}, icon("chevronRight"), el("span", { text: "Settings" }), summary), settings.element);

  const foot = el("div.composer-foot", {}, el("div.row", {}, upload, surprise), el("div.row.end", {}, count, submitter));
  const box = el("div.composer-box", {}, attached, prompt, promptError, pair, extra, foot);
  const element = el("form.composer", { novalidate: true, autocomplete: "off" }, box, failure, fold);
  place.append(element);

  function change_(name, value) {
    form = { ...form, [name]: value };
    keepForm(form);
    forgive(name);
    show();
  }

  function show() {
    const task = taskOf(form);
    if (prompt.value !== form.prompt) prompt.value = form.prompt;
    for (const [input, name] of [[old, "old"], [fresh, "new"], [strength, "strength"], [frames, "frames"]]) {
      if (input.value !== form[name]) input.value = form[name];
    }
    prompt.hidden = !["generate", "image_to_image"].includes(task);
    prompt.placeholder = task === "generate" ? "Describe a picture" : "Describe what the picture should become";
    pair.hidden = task !== "text_diff";
    change.hidden = task !== "image_to_image";
    length.hidden = task !== "interpolate";
    extra.hidden = change.hidden && length.hidden;
    change.querySelector(".hint").textContent = `${Math.round(Number(form.strength) * 100)} %`;
    length.querySelector(".hint").textContent = `${form.frames} frames`;
    const used = lengthOf(form.prompt);
    count.textContent = !prompt.hidden && used > config.prompt_limit * 0.8 ? `${used} of ${config.prompt_limit}` : "";
    count.classList.toggle("over", used > config.prompt_limit);
    surprise.hidden = task !== "generate";
    submitter.textContent = sending.state === "sending" ? "Sending…" : SENDS[task];
    submitter.disabled = sending.state === "sending" || (!prompt.hidden && used > config.prompt_limit);
    summary.textContent = summaryOf(form);
    settings.show(form);
    showAttached();
    grow();
  }

  function showAttached() {
    const key = `${form.images.join()}|${form.task}`;
    if (attached.dataset.key === key) return;
    const had = attached.contains(document.activeElement) ? document.activeElement.id : null;
    attached.dataset.key = key;
    attached.hidden = form.images.length === 0;
    const pictures = form.images.map((image, index) => {
      const remove = button({ name: `Take picture ${index + 1} out`, icon: "close", label: false, look: "quiet", onclick: () => detach(index) });
      return el("div.attached-picture", {}, picture(image, { alt: `Picture ${index + 1}`, lazy: false }), remove);
    });
    const modes = el("div.modes", { role: "radiogroup", "aria-label": "What to make of the picture" });
    if (form.images.length === 1) {
      for (const [value, text] of Object.entries(MODES).filter(([value]) => config.tasks.includes(value))) {
        const input = el("input.unseen", { type: "radio", name: "task", value, id: `task-${value}`, checked: form.task === value, onchange: () => change_("task", value) });
        modes.append(input, el("label", { for: input.id, text }));
      }
      modes.append(button({ name: "Edit", icon: "edit", look: "quiet", onclick: () => edit(form.images[0]) }));
    } else if (form.images.length > 1) modes.replaceChildren();
    const note = form.images.length > 1 ? el("p.muted", { text: "The pictures between these, in this order. Add more to go on." }) : null;
    attached.replaceChildren(el("div.attached-row", {}, ...pictures), note ?? modes);
    if (had) document.getElementById(had)?.focus();
  }

  /** As high as its words; the browser's own field-sizing where it has it. */
  function grow() {
    if (CSS.supports("field-sizing", "content")) return;
    prompt.style.height = "auto";
    prompt.style.height = `${prompt.scrollHeight}px`;
  }

  function detach(index) {
    change_("images", form.images.filter((_, other) => other !== index));
    (form.images.length ? attached.querySelector("button") : prompt).focus();
  }

  /** Tells a failure where it happened: at its field, or under the box. */
  function fail(message, param) {
    const at = param && element.querySelector(`#error-${CSS.escape(param)}`);
    (at ?? failure).textContent = message;
    if (!at) return;
    if (fold.contains(at)) fold.open = true;
    const input = element.querySelector(`[name="${CSS.escape(param)}"]`);
    input?.setAttribute("aria-invalid", "true");
    input?.focus();
  }

  function forgive(name) {
    failure.textContent = "";
    for (const error of element.querySelectorAll(name ? `#error-${CSS.escape(name)}` : ".field-error")) error.textContent = "";
    for (const input of element.querySelectorAll("[aria-invalid]")) if (!name || input.name === name) input.removeAttribute("aria-invalid");
  }

  async function send() {
    if (!sending.can("send")) return;
    forgive();
    const lack = missing(form);
    if (lack) return fail(lack.message, lack.field);
    sending.send("send");
    try {
      await submit(requestOf(form));
      sending.send("sent");
      announce("Sent.");
    } catch (error) {
      sending.send("refused");
      show();
      fail(error.message, error.param);
    }
  }

  async function surpriseMe() {
    try {
      change_("prompt", (await api.surprise()).prompt);
      prompt.focus();
    } catch (error) {
      fail(error.message);
    }
  }

  sending.onChange(show);
  prompt.addEventListener("input", () => change_("prompt", prompt.value));
  old.addEventListener("input", () => change_("old", old.value));
  fresh.addEventListener("input", () => change_("new", fresh.value));
  strength.addEventListener("input", () => change_("strength", strength.value));
  frames.addEventListener("input", () => change_("frames", frames.value));
  element.addEventListener("submit", (event) => (event.preventDefault(), send()));
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing || event.shiftKey) return;
    if (event.ctrlKey || event.metaKey || event.target === prompt) {
      event.preventDefault();
      send();
    }
  });
  show();

  return {
    /** @returns {import("./form.js").Form} */
    form: () => form,
    focus: () => (prompt.hidden ? submitter : prompt).focus(),
    set: change_,
    fail,
    send,
    /** Puts a picture into the box, as the last of those that are there. */
    attach(image) {
      if (form.images.includes(image)) return;
      if (form.images.length === MOST_PICTURES) return fail(`${MOST_PICTURES} pictures are the most.`);
      change_("images", [...form.images, image]);
      announce("The picture is in the prompt box.");
    },
    /** Takes everything of a request into the form. */
    reuse(request) {
      form = { ...EMPTY, ...formOf(request) };
      if (!config.models.includes(form.model)) form.model = "";
      keepForm(form);
      forgive();
      show();
      fold.open = true;
    },
  };
}
