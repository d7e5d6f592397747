/**
 * The editor: mask a part or drag the frame past the edge, say what should be there, choose a candidate. Each frame is one
 * `inpaint` job of the server; accepted pixels are merged here, and what was known and not covered stays as it was to the bit.
 */

import { api, ApiError, imageBlob } from "../api.js";
import { announce, button, el, toast } from "../dom.js";
import { requestOf } from "../form.js";
import { isOver, machine } from "../state.js";
import { errorWords, fileName, stateWords } from "../words.js";
import { createCandidates } from "./candidates.js";
import { exportFrame, fillMask, maskBlob, merged, newLayers, openShare, pictureBlob, sizeOf, stroke, through } from "./document.js";
import { createInput } from "./input.js";
import { keep, kept } from "./keep.js";
import { createTools, TOOLS } from "./tools.js";
import { createUndo } from "./undo.js";
import { createView } from "./view.js";

const KEEP_AFTER = 800; // ms

const STATES = {
  empty: { load: "loading" },
  loading: { loaded: "ready", refused: "empty" },
  ready: { load: "loading", send: "sending", resume: "making" },
  sending: { accepted: "making", refused: "ready" },
  making: { some: "choosing", none: "ready" },
  choosing: { accept: "ready", leave: "ready", retry: "sending" },
};

/**
 * @param {HTMLElement} place
 * @param {object} given
 * @param {import("../api.js").ServerConfig} given.config
 * @param {ReturnType<typeof import("../jobs.js").createJobs>} given.jobs
 * @param {() => import("../form.js").Form} given.settings of the prompt box: seed, steps and the rest hold here too
 * @param {() => void} given.pick opens the file picker
 */
export function createEditor(place, { config, jobs, settings, pick }) {
  const flow = machine("empty", STATES);
  let layers = null;
  let frame = { x: 0, y: 0, side: config.default_size };
  let tool = "brush";
  let radius = 20;
  let brush = null;
  let dirty = null; // of the stroke that is drawn
  let job = null;
  let chosen = 0;
  let candidate = null;
  let keeping = null;

  const canvas = el("canvas.plane", { tabindex: 0, role: "application", "aria-label": "Canvas. Arrow keys move the brush or the frame, Space paints." });
  const prompt = el("input.editor-words", { type: "text", id: "editor-prompt", "aria-label": "What should be there", placeholder: "What should be there", autocomplete: "off", maxlength: config.prompt_limit });
  const count = el("select", { "aria-label": "Candidates" }, ...[1, 2, 3, 4].filter((n) => n <= config.max_n).map((n) => el("option", { value: n, text: String(n), selected: n === 4 })));
  const submitter = el("button.primary", { type: "submit", text: "Generate", "aria-keyshortcuts": "Control+Enter" });
  const failure = el("p.composer-error", { role: "alert" });
  const form = el("form.editor-prompt", { novalidate: true }, prompt, count, submitter);
  const empty = el("div.editor-empty", {}, el("h1", { text: "Editor" }), el("p.muted", { text: "Open a picture: drop it here, paste it, or choose “Edit” at a picture of the history." }));
  empty.append(el("div.row", {}, button({ name: "Open a picture", icon: "upload", look: "primary", onclick: pick }), button({ name: "Begin with an empty frame", look: "quiet", onclick: () => begin(null) })));
  const candidates = createCandidates({ choose, accept, retry, cancel });
  const act = {
    undo: () => undo.undo(), redo: () => undo.redo(), all: () => cover(true), none: () => cover(false), open: pick, save,
    fit: () => view.fitAll(), closer: () => view.zoom(1.25), wider: () => view.zoom(0.8),
  };
  const tools = createTools({ tool: take, radius: resize, side: setSide, act: Object.fromEntries(Object.entries(act).map(([name, what]) => [name, () => (what(), show())])) });
  const stage = el("div.editor-stage", {}, canvas, empty, tools.zoom);
  place.append(el("div.editor", {}, el("div.editor-top", {}, form, failure), el("div.editor-side", {}, tools.element, candidates.element), stage));

  const locked = () => ["sending", "making", "choosing"].includes(flow.state);
  const holder = { get: () => layers, set: (next) => (layers = next) };
  const undo = createUndo(holder, () => (show(), keepSoon()));
  const view = createView(canvas, () => ({
    layers, frame, candidate: locked() ? candidate : null, masked: flow.state !== "choosing" || !candidate, locked: locked(),
    brush: brush && { ...brush, radius },
  }));
  const paint = {
    begin: () => (undo.begin(), (dirty = null)),
    stroke(from, to, erase) {
      const rect = stroke(layers, from, to, radius, erase);
      const [left, top] = [Math.min(rect.left, dirty?.left ?? Infinity), Math.min(rect.top, dirty?.top ?? Infinity)];
      const [right, bottom] = [Math.max(rect.right, dirty?.right ?? -Infinity), Math.max(rect.bottom, dirty?.bottom ?? -Infinity)];
      dirty = new DOMRect(left, top, right - left, bottom - top);
      view.ask();
    },
    end: () => undo.end(dirty),
    cancel: () => (undo.end(dirty), undo.undo()),
  };
  createInput(canvas, {
    view, paint,
    now: () => ({ tool, radius, locked: locked(), frame, layers }),
    moveFrame(to, done) {
      frame = { ...frame, ...to };
      view.ask();
      if (done) (keepSoon(), announce(`Frame at ${frame.x}, ${frame.y}`));
    },
    hover: (at) => ((brush = at), view.ask()),
  });

  function show() {
    const there = layers !== null;
    place.dataset.state = flow.state;
    empty.hidden = there;
    tools.element.hidden = !candidates.element.hidden;
    tools.zoom.hidden = !there;
    canvas.classList.toggle("paints", ["brush", "eraser"].includes(tool));
    canvas.dataset.tool = tool;
    const own = there ? Math.min(sizeOf(layers).width, sizeOf(layers).height) : config.default_size;
    const sides = [...new Set([...config.sizes, frame.side, Math.min(own, 2048)])].sort((a, b) => a - b);
    tools.show({ tool, radius, side: frame.side, sides, canUndo: undo.canUndo, canRedo: undo.canRedo, locked: locked(), scale: view.scale, there });
    submitter.disabled = flow.state !== "ready";
    submitter.textContent = { sending: "Sending…", making: "Painting…" }[flow.state] ?? "Generate";
    prompt.disabled = count.disabled = locked();
    view.ask();
  }

  function take(next) {
    tool = next;
    brush = null;
    show();
  }

  function resize(next) {
    radius = Math.min(100, Math.max(1, next));
    show();
  }

  function setSide(side) {
    const shift = Math.round((frame.side - side) / 2);
    frame = { x: frame.x + shift, y: frame.y + shift, side };
    show();
    keepSoon();
  }

  function cover(all) {
    if (!layers) return;
    undo.begin();
    const whole = new DOMRect(0, 0, layers.mask.width, layers.mask.height);
    if (all) fillMask(layers, frame, true);
    else fillMask(layers, { ...layers.origin, side: Math.max(whole.width, whole.height) }, false);
    undo.end(whole);
  }

  /** Begins with a picture, or with nothing known. @param {Blob | null} blob */
  async function begin(blob) {
    if (!flow.send("load")) return fail("Accept or cancel the candidates first.");
    failure.textContent = "";
    try {
      const bitmap = blob && (await createImageBitmap(blob, { imageOrientation: "from-image" }));
      layers = newLayers(bitmap, config.default_size);
      const { width, height } = sizeOf(layers);
      const side = Math.min(width, height, 2048);
      frame = { x: Math.round((width - side) / 2), y: Math.round((height - side) / 2), side };
      radius = Math.max(4, Math.round(side / 16));
      undo.clear();
      flow.send("loaded");
      take(blob ? "brush" : "frame");
      view.fitAll();
      keepSoon();
    } catch {
      flow.send("refused");
      fail("This picture cannot be read: it may be damaged.");
    }
    show();
  }

  function fail(message) {
    failure.textContent = message;
  }

  async function generate() {
    if (!flow.can("send") && !flow.can("retry")) return;
    failure.textContent = "";
    const share = openShare(layers, frame);
    if (share === 0) return fail("Nothing in the frame is to be painted: cover a part with the brush, or move the frame past the edge.");
    const whole = share === 1;
    if (whole && !prompt.value.trim()) return fail("The frame is empty, so say what should be there.");
    flow.send(flow.can("send") ? "send" : "retry");
    candidate = null;
    show();
    try {
      const size = config.sizes.find((each) => each >= frame.side) ?? config.sizes.at(-1);
      const request = { ...requestOf({ ...settings(), prompt: prompt.value }, whole ? "generate" : "inpaint"), n: Number(count.value), size };
      if (!whole) Object.assign(request, await sendFrame(size));
      if (!request.prompt) delete request.prompt;
      job = await jobs.submit(request);
      flow.send("accepted");
      chosen = 0;
      follow();
      keepSoon();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      flow.send("refused");
      candidates.hide();
      fail(error.message);
    }
    show();
  }

  async function sendFrame(size) {
    const sent = await exportFrame(layers, frame, size);
    const [image, mask] = await Promise.all([api.upload(sent.image), api.upload(sent.mask, "mask")]);
    return { images: [image.id], mask: mask.id };
  }

  /** Shows how the job of the frame stands, and goes on when it is over. */
  function follow() {
    const record = job && jobs.get(job);
    if (!record || !["making", "choosing"].includes(flow.state)) return;
    const over = isOver(record.job.state);
    const some = record.slots.findIndex((slot) => slot.image);
    if (flow.state === "making" && over) {
      if (some < 0) return end(record.job.state === "failed" ? errorWords(record.job.error) : "");
      if (!record.slots[chosen].image) chosen = some;
      flow.send("some");
      announce(`${stateWords(record)} Choose a candidate with the arrows, Enter accepts.`);
      candidates.show(record, chosen, true);
      show();
      candidates.focus();
    }
    candidates.show(record, chosen, over);
    tools.element.hidden = true;
    drawCandidate(record.slots[chosen]);
  }

  function end(message) {
    flow.send("none");
    job = null;
    candidates.hide();
    if (message) fail(message);
    show();
    keepSoon();
  }

  async function drawCandidate(slot) {
    const [of, which] = [job, chosen];
    const image = slot.image ? await candidates.pixels(chosen, slot.image).catch((error) => fail(error.message)) : await decoded(slot.preview);
    if (!image || of !== job || which !== chosen || !locked()) return;
    candidate = through(layers, frame, image);
    view.ask();
  }

  async function decoded(url) {
    if (!url) return null;
    const image = el("img", { src: url });
    return image.decode().then(() => image, () => null);
  }

  function choose(index) {
    const { slots } = jobs.get(job);
    if (flow.state === "choosing" && !slots[index].image) return;
    chosen = index;
    follow();
  }

  function cycle(way) {
    const { slots } = jobs.get(job);
    const usable = slots.map((_, index) => index).filter((index) => slots[index].image || flow.state === "making");
    choose(usable[(usable.indexOf(chosen) + way + usable.length) % usable.length]);
    announce(`Candidate ${chosen + 1}`);
  }

  async function accept() {
    if (!flow.can("accept")) return;
    const slot = jobs.get(job).slots[chosen];
    const image = await candidates.pixels(chosen, slot.image).catch((error) => fail(error.message));
    if (!image || !flow.send("accept")) return;
    job = candidate = null;
    candidates.hide();
    undo.replace(merged(layers, frame, image));
    take("frame");
    canvas.focus();
    announce("Accepted.");
  }

  function retry() {
    if (!flow.can("retry")) return;
    candidates.hide();
    generate();
  }

  function cancel() {
    if (flow.state === "making" && job) return jobs.cancel(job);
    if (!flow.send("leave")) return;
    job = candidate = null;
    candidates.hide();
    show();
    keepSoon();
    canvas.focus();
  }

  async function save() {
    if (!layers) return;
    const link = el("a", { href: URL.createObjectURL(await pictureBlob(layers)), download: fileName(prompt.value || "canvas", null) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  function keepSoon() {
    clearTimeout(keeping);
    keeping = setTimeout(async () => {
      if (!layers) return;
      const held = layers;
      const [picture, mask] = await Promise.all([pictureBlob(held), maskBlob(held)]);
      const done = await keep({ picture, mask, origin: held.origin, frame, prompt: prompt.value, job });
      if (!done) toast("This browser gives no room to keep the canvas over a reload.", { failure: true });
    }, KEEP_AFTER);
  }

  /** What was on the canvas before the page was left, with its job where that still runs. */
  async function restore() {
    const found = await kept();
    if (!found || !flow.send("load")) return;
    try {
      const [picture, mask] = await Promise.all([createImageBitmap(found.picture), createImageBitmap(found.mask)]);
      layers = { ...newLayers(picture, 1), origin: found.origin };
      layers.mask.getContext("2d", { willReadFrequently: true }).drawImage(mask, 0, 0);
      ({ frame } = found);
      radius = Math.max(4, Math.round(frame.side / 16));
      prompt.value = found.prompt;
      flow.send("loaded");
    } catch {
      flow.send("refused");
      return show();
    }
    if (found.job) await jobs.refresh(found.job);
    if (found.job && jobs.get(found.job) && flow.send("resume")) {
      job = found.job;
      follow();
    }
    show();
    view.fitAll();
  }

  const KEYS = { "[": () => resize(radius / 1.25), "]": () => resize(radius * 1.25), "+": () => view.zoom(1.25), "=": () => view.zoom(1.25), "-": () => view.zoom(0.8), 0: () => view.fitAll() };
  for (const [name, { key }] of Object.entries(TOOLS)) KEYS[key.toLowerCase()] = () => locked() || take(name);

  function onKey(event) {
    if (place.hidden || document.querySelector("dialog[open]")) return;
    const typing = event.target.matches("input[type=text], textarea, select");
    const control = event.ctrlKey || event.metaKey;
    let done = true;
    if (event.key === "Escape" && locked()) cancel();
    else if (control && event.key === "Enter") generate();
    else if (typing || event.altKey) done = false;
    else if (control && event.key.toLowerCase() === "z") locked() || (event.shiftKey ? undo.redo() : undo.undo());
    else if (control && event.key.toLowerCase() === "y") locked() || undo.redo();
    else if (control) done = false;
    else if (flow.state === "choosing" && event.key === "Enter" && event.target.tagName !== "BUTTON") accept();
    else if (["making", "choosing"].includes(flow.state) && /^Arrow(Left|Right)$/.test(event.key)) cycle(event.key === "ArrowLeft" ? -1 : 1);
    else if (KEYS[event.key.toLowerCase()] && layers) (KEYS[event.key.toLowerCase()](), show());
    else done = false;
    if (done) event.preventDefault();
  }

  document.addEventListener("keydown", onKey);
  canvas.addEventListener("wheel", () => requestAnimationFrame(show), { passive: true });
  prompt.addEventListener("input", keepSoon);
  form.addEventListener("submit", (event) => (event.preventDefault(), generate()));
  jobs.onChange((change) => change.id === job && follow());
  show();

  return {
    /** Shows the editor, with a picture of the server, or with what it held. @param {string | null} image */
    async show(image) {
      if (image) {
        try {
          await begin(await imageBlob(image));
        } catch (error) {
          fail(error.message);
        }
      } else if (flow.state === "empty") await restore();
      show();
    },
    begin,
  };
}
