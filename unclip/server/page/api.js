/**
 * /api as functions. Every failure is an ApiError whose message can be shown to people as it stands.
 */

/** @typedef {{models: string[], sizes: number[], default_size: number, max_n: number, prompt_limit: number, tasks: string[],
 *   key_required: boolean, signature: boolean, indices: Record<string, number>}} ServerConfig `indices`: rows by name */

export class ApiError extends Error {
  /** @param {number} status 0: the server did not answer */
  constructor(status, { message, code = null, param = null, retryMs = null }) {
    super(message);
    Object.assign(this, { status, code, param, retryMs });
  }
}

const KEY = "unclip.key";
let key = sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY);
const keyWanted = new Set();

export const hasKey = () => key !== null;

/** @param {string} given @param {boolean} keep on this computer, not only in this tab */
export function setKey(given, keep) {
  key = given;
  (keep ? localStorage : sessionStorage).setItem(KEY, given);
}

/** @param {() => void} tell called when the server refuses the key, or wants one */
export const onKeyWanted = (tell) => keyWanted.add(tell);

const WORDS = {
  0: "The server does not answer. Nothing is lost: try again when it is back.",
  401: "The server wants an API key, or does not know this one.",
  403: "The server does not allow this from here.",
  404: "This is not on the server any more.",
  413: "This is larger than the server takes.",
  429: "The queue is full.",
  503: "The server is about to stop and takes nothing new.",
};

async function failureOf(response) {
  const told = await response.json().then((body) => body.error ?? {}, () => ({}));
  const after = Number(response.headers.get("retry-after-ms")) || Number(response.headers.get("retry-after")) * 1000 || null;
  const wait = after ? ` Try again in ${Math.max(1, Math.round(after / 1000))} s.` : "";
  const fallback = WORDS[response.status] ?? (response.status >= 500 ? "Something went wrong on the server." : "The server did not accept this.");
  const message = (typeof told.message === "string" && told.message) || fallback;
  if (response.status === 401) keyWanted.forEach((tell) => tell());
  return new ApiError(response.status, { message: message + wait, code: told.code, param: told.param, retryMs: after });
}

/** A fetch that throws ApiError unless the answer is a success. @returns {Promise<Response>} */
export async function send(path, { method = "GET", body, json, headers = {}, signal } = {}) {
  const given = { ...headers };
  if (key) given.Authorization = `Bearer ${key}`;
  if (json !== undefined) given["Content-Type"] = "application/json";
  let response;
  try {
    const sent = json === undefined ? body : JSON.stringify(json);
    response = await fetch(path, { method, headers: given, body: sent, signal, credentials: "same-origin", cache: "no-cache" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { message: WORDS[0] });
  }
  if (!response.ok) throw await failureOf(response);
  return response;
}

async function ask(path, options) {
  const response = await send(path, options);
  return response.status === 204 ? null : response.json();
}

const at = encodeURIComponent;
const list = (key) => (told) => (Array.isArray(told) ? told : told[key]);

export const api = {
  /** @returns {Promise<ServerConfig>} */
  config: () => ask("/api/config"),
  /** @returns {Promise<{prompt: string}>} */
  surprise: () => ask("/api/surprise"),
  /** The newest first. @returns {Promise<import("./state.js").Job[]>} */
  jobs: (before, limit = 50) => ask(`/api/jobs?limit=${limit}${before ? `&before=${at(before)}` : ""}`).then(list("jobs")),
  job: (id) => ask(`/api/jobs/${at(id)}`),
  submit: (request) => ask("/api/jobs", { method: "POST", json: request }),
  cancel: (id) => ask(`/api/jobs/${at(id)}/cancel`, { method: "POST" }),
  /** @returns {Promise<{ids: string[]}>} of those that were stopped */
  cancelAll: (waiting) => ask(`/api/jobs/cancel?waiting=${waiting}`, { method: "POST" }),
  cancelSlot: (id, slot) => ask(`/api/jobs/${at(id)}/slots/${slot}/cancel`, { method: "POST" }),
  /** @param {string | null} before null: to the end of the queue */
  move: (id, before) => ask(`/api/jobs/${at(id)}/move`, { method: "POST", json: { before } }),
  withdraw: (id) => ask(`/api/jobs/${at(id)}/withdraw`, { method: "POST" }),
  forget: (id) => ask(`/api/jobs/${at(id)}`, { method: "DELETE" }),
  /** @param {Blob} blob @param {"upload" | "mask"} kind @returns {Promise<{id: string, width: number, height: number}>} */
  upload: (blob, kind = "upload") =>
    ask(`/api/images?kind=${kind}`, { method: "POST", body: blob, headers: { "Content-Type": blob.type || "application/octet-stream" } }),
  info: (id) => ask(`/api/images/${at(id)}/info`),
  removeImage: (id) => ask(`/api/images/${at(id)}`, { method: "DELETE" }),
  /** @returns {Promise<{id: string, name: string, images: string[]}[]>} */
  collections: () => ask("/api/collections").then(list("collections")),
  makeCollection: (name) => ask("/api/collections", { method: "POST", json: { name } }),
  renameCollection: (id, name) => ask(`/api/collections/${at(id)}`, { method: "PATCH", json: { name } }),
  removeCollection: (id) => ask(`/api/collections/${at(id)}`, { method: "DELETE" }),
  collect: (id, image) => ask(`/api/collections/${at(id)}/images/${at(image)}`, { method: "POST" }),
  /** @returns {Promise<import("./found.js").Found & {seconds: number}>} */
  search: (request, signal) => ask("/api/search", { method: "POST", json: request, signal }),
  uncollect: (id, image) => ask(`/api/collections/${at(id)}/images/${at(image)}`, { method: "DELETE" }),
};

export const imageUrl = (id) => `/api/images/${at(id)}`;
export const thumbUrl = (id) => `/api/images/${at(id)}/thumb`;
/** A picture of an index, or its thumb. */
export const foundUrl = (index, edition, id, thumb = false) => `/api/search/${at(index)}/${at(edition)}/${id}${thumb ? "/thumb" : ""}`;

/** The bytes of a stored picture. @returns {Promise<Blob>} */
export const imageBlob = (id) => send(imageUrl(id)).then((response) => response.blob());
