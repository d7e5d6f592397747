/** What is in the prompt box and under its fold, as data: kept on this computer, and turned into a request. */

const KEPT = "unclip.form";

/** @typedef {{prompt: string, old: string, new: string, images: string[], task: string, model: string, n: string, size: string,
 *   seed: string, steps: string, guidance: string, prior_steps: string, prior_guidance: string, upsampler_steps: string, eta: string,
 *   strength: string, frames: string}} Form all as typed; "" leaves a setting to the model */

/** @type {Form} */
export const EMPTY = {
  prompt: "", old: "", new: "", images: [], task: "variations", model: "", n: "4", size: "", seed: "", steps: "", guidance: "",
  prior_steps: "", prior_guidance: "", upsampler_steps: "", eta: "", strength: "0.6", frames: "9",
};

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

/** @param {Form} form @returns {any} a JobRequest; what is left to the model is left out */
export function requestOf(form, task = taskOf(form)) {
  const request = { task, n: Number(form.n) };
  if (form.model) request.model = form.model;
  if (form.size) request.size = Number(form.size);
  for (const name of NUMBERS) if (form[name] !== "") request[name] = Number(form[name]);
  if (task !== "generate") request.images = form.images;
  if (["generate", "image_to_image", "inpaint"].includes(task)) request.prompt = form.prompt.trim();
  if (task === "image_to_image") request.strength = Number(form.strength);
  if (task === "interpolate") request.frames = Number(form.frames);
  if (task === "text_diff") Object.assign(request, { old: form.old.trim(), new: form.new.trim() });
  return request;
}

/** The form that would make a request again, pictures and seed included. @returns {Form} */
export function formOf(request) {
  const typed = (value) => (value === null || value === undefined ? "" : String(value));
  const form = { ...EMPTY };
  for (const name of ["model", "n", "size", "strength", "frames", ...NUMBERS]) form[name] = typed(request[name]) || EMPTY[name];
  const masked = request.task === "inpaint" || request.task === "outpaint";
  Object.assign(form, { prompt: request.prompt ?? "", old: request.old ?? "", new: request.new ?? "", images: masked ? [] : [...request.images] });
  if (request.images.length === 1 && !masked) form.task = request.task;
  return form;
}

/** A line that says what the fold holds. */
export function summaryOf(form, task = taskOf(form)) {
  const count = Number(form.n);
  const words = [];
  if (task === "interpolate") words.push(`${form.frames} frames`);
  else if (task === "text_diff") words.push("3 pictures");
  else words.push(count === 1 ? "1 picture" : `${count} pictures`);
  if (form.size) words.push(`${form.size} px`);
  words.push(form.seed === "" ? "any seed" : `seed ${form.seed}`);
  if (form.steps) words.push(`${form.steps} steps`);
  if (form.guidance) words.push(`guidance ${form.guidance}`);
  return words.join(" · ");
}
