/** What is sought, as data: read off the address and written into it, so that a reload or a bookmark asks again. */

/** @typedef {{index: string, words: string, picture: string, like: string, weight: string, n: string}} Seek
 *   `picture`: the id of a stored picture; `like`: a row that was found, as "edition.id"; `weight`: of the picture */

/** @type {Seek} */
export const EMPTY = { index: "", words: "", picture: "", like: "", weight: "0.5", n: "40" };
export const MORE = 40;
export const MOST = 200;

/** @param {string} query of the address @returns {{seek: Seek, open: string | null}} `open`: the row that is shown large */
export function readSeek(query) {
  const given = new URLSearchParams(query);
  const seek = Object.fromEntries(Object.entries(EMPTY).map(([name, value]) => [name, given.get(name) ?? value]));
  return { seek, open: given.get("open") };
}

/** @param {Seek} seek @param {string | number | null} [open] */
export function hashOf(seek, open = null) {
  const told = Object.entries(seek).filter(([name, value]) => value !== EMPTY[name]);
  if (open !== null) told.push(["open", String(open)]);
  return told.length ? `#/search?${new URLSearchParams(told)}` : "#/search";
}

/** @param {Seek} seek */
export const hasPicture = ({ picture, like }) => Boolean(picture || like);

/** @param {Seek} seek */
export const seeksNothing = (seek) => !seek.words.trim() && !hasPicture(seek);

/** @param {string} like @returns {{edition: string, id: number}} */
export function rowOf(like) {
  const [edition, id] = like.split(".");
  return { edition, id: Number(id) || 0 };
}

/** @param {Seek} seek @returns {any} a request to /api/search */
export function requestOf(seek) {
  const request = { index: seek.index, n: Math.min(MOST, Math.max(1, Number(seek.n) || MORE)) };
  if (seek.words.trim()) request.text = seek.words.trim();
  if (seek.picture) request.image = seek.picture;
  else if (seek.like) request.like = rowOf(seek.like);
  if (request.text && hasPicture(seek)) request.weight = Math.min(1, Math.max(0, Number(seek.weight) || 0));
  return request;
}

/** As players show it: 0:07, 12:40, 1:02:03. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const two = (value) => String(value).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}
