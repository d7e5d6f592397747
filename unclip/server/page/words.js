/** What the page says: states, failures, times and settings as people read them. */

export const TASKS = {
  generate: "From words",
  variations: "Variations",
  inpaint: "Edit",
  outpaint: "Wider",
  interpolate: "Blend",
  text_diff: "Changed by words",
  image_to_image: "From picture and words",
};

/** The server's fixed list (Job.error); its own words for each. */
const ERRORS = {
  interrupted: "The server stopped twice while it worked on this.",
  worker_died: "The process that painted this died twice.",
  out_of_memory: "There was not enough memory for this: try a smaller size or fewer pictures.",
  model: "The model could not be loaded.",
  refused: "The model cannot do this.",
  image_gone: "A picture that this needs is no longer there.",
  storage: "The pictures could not be stored: the disk may be full.",
  internal: "Something went wrong on the server.",
};

/** @param {string | null} key @param {string | null} [detail] the server's own words on a refusal */
export function errorWords(key, detail) {
  const words = ERRORS[key] ?? key ?? ERRORS.internal;
  return detail ? `${words.replace(/\.$/, "")}: ${detail.replace(/\.$/, "")}.` : words;
}

const STAGES = { prior: "Imagining", decoder: "Painting" };

/** @param {string} stage "prior", "decoder" or "upsampler_256" */
export const stageWords = (stage) => STAGES[stage] ?? (stage.startsWith("upsampler") ? "Sharpening" : "Working");

/** What a job is called: its prompt, or what it does. */
export function titleOf(request) {
  if (request.prompt) return request.prompt;
  if (request.task === "text_diff") return `${request.old} → ${request.new}`;
  if (request.task === "interpolate") return `Between ${request.images.length} pictures`;
  return { variations: "Variations of a picture", outpaint: "A wider picture" }[request.task] ?? "Without words";
}

/** @param {import("./state.js").JobRecord} record */
export function stateWords(record) {
  const { job, slots } = record;
  const made = slots.filter((slot) => slot.image).length;
  if (record.asked === "cancel") return "Stopping…";
  if (job.state === "queued") {
    const place = record.position === null ? "In the queue" : record.position === 0 ? "Next in the queue" : `${record.position} ahead in the queue`;
    return `${place}${soon(record)}`;
  }
  if (job.state === "running") {
    const stage = slots.find((slot) => slot.stage && !slot.image)?.stage;
    const done = made && slots.length > 1 ? `, ${made} of ${slots.length} ready` : "";
    return `${stage ? stageWords(stage) : "Starting"}${done}${soon(record)}`;
  }
  if (job.state === "failed") return errorWords(job.error, job.detail);
  if (job.state === "cancelled") return made ? `Stopped, ${made} of ${slots.length} kept` : "Stopped";
  return "";
}

/** ", done in about 3 min", of a job whose end can be told; else nothing. */
export function soon({ due }) {
  if (!due) return "";
  const left = (due - Date.now()) / 1000;
  return `, done in ${left < 1.5 ? "" : "about "}${duration(left)}`;
}

export function duration(seconds) {
  if (seconds < 1.5) return "a moment";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
const dated = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });

/** @param {number} seconds Unix time */
export function ago(seconds, now = Date.now() / 1000) {
  const past = seconds - now;
  if (past > -45) return "just now";
  if (past > -3600) return relative.format(Math.round(past / 60), "minute");
  if (past > -86_400) return relative.format(Math.round(past / 3600), "hour");
  if (past > -7 * 86_400) return relative.format(Math.round(past / 86_400), "day");
  return dated.format(seconds * 1000);
}

export const fullDate = (seconds) => dated.format(seconds * 1000);

/** Code points, as the server counts them. */
export const lengthOf = (text) => [...text].length;

/** A name for a file: the prompt's first words and the seed. */
export function fileName(title, seed) {
  const words = title.toLowerCase().normalize("NFKD").replace(/[^a-z0-9]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 48);
  return `unclip-${words || "picture"}${seed === null || seed === undefined ? "" : `-${seed}`}.png`;
}

/** Seed of one slot, as the server has it: the frames of a strip share one. */
export function seedOf(request, slot) {
  if (request.seed === null || request.seed === undefined) return null;
  return ["interpolate", "text_diff"].includes(request.task) ? request.seed : request.seed + slot;
}

/** @returns {[string, string][]} what a request says beside its prompt, as names and values */
export function settingsOf(request, slot) {
  const rows = [["Made by", TASKS[request.task]], ["Model", request.model]];
  const seed = seedOf(request, slot);
  if (seed !== null) rows.push(["Seed", String(seed)]);
  if (request.size) rows.push(["Size", `${request.size} × ${request.size}`]);
  const named = { steps: "Steps", guidance: "Guidance", prior_steps: "Prior steps", prior_guidance: "Prior guidance", upsampler_steps: "Upsampler steps", eta: "Eta" };
  for (const [key, name] of Object.entries(named)) if (request[key] !== null && request[key] !== undefined) rows.push([name, String(request[key])]);
  if (request.as_typed) rows.push(["Words", "As typed"]);
  if (request.task === "image_to_image") rows.push(["Change", `${Math.round(request.strength * 100)} %`]);
  if (request.task === "interpolate") rows.push(["Place", `${slot + 1} of ${request.frames}`]);
  if (request.task === "text_diff") rows.push(["From", request.old], ["To", request.new], ["How far", String(request.theta[slot])]);
  return rows;
}
