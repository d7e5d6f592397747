/** What is known of a picture: by the history where that has it, else by the server. */

import { api } from "./api.js";

/** @typedef {{id: string, request: any | null, slot: number, created: number, parents: string[], count: number, read?: string | null}} Known
 *   `count`: pictures of its job; `request` null: it was not made here;
 *   `read`: its words as the model read them, null where as they are, undefined until `readOf` says */

/**
 * @param {ReturnType<typeof import("./jobs.js").createJobs>} jobs
 * @param {string} id
 * @returns {Promise<Known>}
 */
export async function lookUp(jobs, id) {
  const holder = holderOf(jobs, id);
  if (holder) return known(id, jobs.get(holder).job);
  const told = await api.info(id);
  const job = told.job && (await api.job(told.job).catch(() => null));
  const read = readIn(told);
  return job ? { ...known(id, job), slot: told.slot, read } : { id, read, request: null, slot: 0, created: told.created, parents: told.parents, count: 0 };
}

/** What the model made of the words that a picture was asked with, where it read them as others: of one whose job the history holds. */
export const readOf = async (id) => readIn(await api.info(id).catch(() => null));

const readIn = (told) => told?.settings?.read ?? told?.settings?.new_read ?? null;

const known = (id, job) => ({ id, request: job.request, slot: job.images.indexOf(id), created: job.created, parents: job.request.images, count: job.images.length });

/** The job of the history that made a picture. */
export const holderOf = (jobs, id) => jobs.ids().find((each) => jobs.get(each).job.images.includes(id));

/** All pictures that the history holds, as it shows them. */
export const picturesOf = (jobs) => jobs.ids().flatMap((id) => jobs.get(id).job.images.filter(Boolean));
