/** What is in the prompt box and under its fold, as data: kept on this computer, and turned into a request. */

const KEPT = "unclip.form";
const LONGEST = 1000; // letters of a stranger's words

/** @typedef {{prompt: string, old: string, new: string, images: string[], task: string, model: string, n: string, size: string,
 *   seed: string, steps: string, guidance: string, prior_steps: string, prior_guidance: string, upsampler_steps: string, eta: string,
 *   strength: string, frames: string, theta: string, as_typed: boolean}} Form all as typed; "" leaves a setting to the model */

/** @type {Form} */
export const EMPTY = {
  prompt: "", old: "", new: "", images: [], task: "variations", model: "", n: "4", size: "", seed: "", steps: "", guidance: "",
  prior_steps: "", prior_guidance: "", upsampler_steps: "", eta: "", strength: "0.6", frames: "9",
  theta: "0.3", as_typed: false,
};

const WORDED = ["generate", "image_to_image", "inpaint", "text_diff"]; // tasks that words are read for
export const NUMBERS = ["seed", "steps", "guidance", "prior_steps", "prior_guidance", "upsampler_steps", "eta"];

/** @returns {Form} */
export function readForm() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
    const known = Object.keys(EMPTY).filter((name) => typeof kept[name] === typeof EMPTY[name]);
    return { ...EMPTY, ...Object.fromEntries(known.map((name) => [name, kept[name]])) };
  } catch {
    return { ...EMPTY };
  }
}

export function keepForm(form) {
  try {
    localStorage.setItem(KEPT, JSON.stringify(form));
  } catch {
    // A full or forbidden storage only costs the memory of what was typed.
  }
}

/** What the form would ask for: pictures decide. @param {Form} form */
export function taskOf(form) {
  if (form.images.length === 0) return "generate";
  return form.images.length > 1 ? "interpolate" : form.task;
}

/** Why the form cannot be sent yet, or null. @returns {{field: string, message: string} | null} */
export function missing(form) {
  const task = taskOf(form);
  if (task === "generate" && !form.prompt.trim()) return { field: "prompt", message: "Say what you would like to see." };
  if (task === "image_to_image" && !form.prompt.trim()) return { field: "prompt", message: "Say what the picture should become." };
  if (task === "text_diff" && !form.old.trim()) return { field: "old", message: "Say what the picture shows now." };
  if (task === "text_diff" && !form.new.trim()) return { field: "new", message: "Say what it should show instead." };
  if (task === "text_diff" && form.old.trim() === form.new.trim()) return { field: "new", message: "The two descriptions are the same." };
  for (const name of NUMBERS) {
    if (form[name] !== "" && !Number.isFinite(Number(form[name]))) return { field: name, message: "This is not a number." };
  }
  return null;
}

/** `n` even steps up to how far the change goes. */
const steps = (far, n) => Array.from({ length: n }, (_, index) => Math.round((far * (index + 1) * 1000) / n) / 1000);

/** @param {Form} form @returns {any} a JobRequest; what is left to the model is left out */
export function requestOf(form, task = taskOf(form)) {
  const request = { task, n: Number(form.n) };
  if (form.model) request.model = form.model;
  if (form.size) request.size = Number(form.size);
  for (const name of NUMBERS) if (form[name] !== "") request[name] = Number(form[name]);
  if (form.as_typed && WORDED.includes(task)) request.as_typed = true;
  if (task !== "generate") request.images = form.images;
  if (["generate", "image_to_image", "inpaint"].includes(task)) request.prompt = form.prompt.trim();
  if (task === "image_to_image") request.strength = Number(form.strength);
  if (task === "interpolate") request.frames = Number(form.frames);
  if (task === "text_diff") Object.assign(request, { old: form.old.trim(), new: form.new.trim(), theta: steps(Number(form.theta), Number(form.n)) });
  return request;
}

/** The form that would make a request again, pictures and seed included. @returns {Form} */
export function formOf(request) {
  const typed = (value) => (value === null || value === undefined ? "" : String(value));
  const form = { ...EMPTY, as_typed: request.as_typed === true };
  for (const name of ["model", "n", "size", "strength", "frames", ...NUMBERS]) form[name] = typed(request[name]) || EMPTY[name];
  const masked = request.task === "inpaint" || request.task === "outpaint";
  if (request.task === "text_diff") Object.assign(form, { n: String(request.theta.length), theta: String(request.theta.at(-1)) });
  Object.assign(form, { prompt: request.prompt ?? "", old: request.old ?? "", new: request.new ?? "", images: masked ? [] : [...request.images] });
  if (["variations", "image_to_image", "text_diff"].includes(request.task)) form.task = request.task;
  return form;
}

/**
 * What a PNG says of itself, as a request without its pictures, which are not in the file. The words are a stranger's: only
 * what a form can hold is taken. @returns {any | null} null where nothing of it can be used
 */
export function requestIn(settings) {
  const task = settings?.task ?? (settings?.prompt && "generate"); // what is made from words alone names no task
  if (typeof task !== "string") return null;
  const request = { task, n: 1, images: [], theta: [Number(EMPTY.theta)], as_typed: settings.as_typed === true };
  const numbers = [...NUMBERS, "size", "strength", "frames"];
  for (const name of numbers) if (Number.isFinite(settings[name])) request[name] = settings[name];
  for (const name of ["prompt", "old", "new", "model"]) if (typeof settings[name] === "string") request[name] = [...settings[name]].slice(0, LONGEST).join("");
  const thetas = [settings.theta].flat().filter(Number.isFinite).slice(0, 10);
  return { ...request, ...(thetas.length ? { theta: thetas } : {}) };
}

/** A line that says what the fold holds. */
export function summaryOf(form, task = taskOf(form)) {
  const count = Number(form.n);
  const words = [];
  if (task === "interpolate") words.push(`${form.frames} frames`);
  else words.push(count === 1 ? "1 picture" : `${count} pictures`);
  if (form.size) words.push(`${form.size} px`);
  words.push(form.seed === "" ? "any seed" : `seed ${form.seed}`);
  if (form.steps) words.push(`${form.steps} steps`);
  if (form.guidance) words.push(`guidance ${form.guidance}`);
  if (form.as_typed && WORDED.includes(task)) words.push("as typed");
  return words.join(" · ");
}
