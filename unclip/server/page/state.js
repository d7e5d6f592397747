/**
 * Finite states, written as tables. A machine is in one named state; what no row allows does not happen and says so.
 */

/**
 * @template {string} S
 * @param {S} first
 * @param {Record<S, Partial<Record<string, S>>>} table state -> event -> next state
 */
export function machine(first, table) {
  let state = first;
  const listeners = new Set();
  return {
    get state() {
      return state;
    },
    /** @returns {boolean} whether the event means anything here */
    can: (event) => event in table[state],
    /** Goes where the table says; false, and nothing happens, where it says nothing. */
    send(event, detail) {
      const next = table[state][event];
      if (next === undefined) return false;
      const from = state;
      state = next;
      for (const tell of listeners) tell({ state, from, event, detail });
      return true;
    },
    /** @param {(change: {state: S, from: S, event: string, detail: any}) => void} tell @returns {() => void} ends it */
    onChange(tell) {
      listeners.add(tell);
      return () => listeners.delete(tell);
    },
  };
}

/** Where a job may go from where it is, as the server's JobState. A worker that died puts a running job back. */
export const JOB_MOVES = {
  queued: ["queued", "running", "done", "failed", "cancelled"],
  running: ["running", "queued", "done", "failed", "cancelled"],
  done: ["done"],
  failed: ["failed"],
  cancelled: ["cancelled"],
};

export const isOver = (state) => JOB_MOVES[state].length === 1;

/**
 * @typedef {{id: string, request: any, state: string, created: number, started: number | null, finished: number | null,
 *   error: string | null, detail: string | null, images: (string | null)[], dropped: number[], progress: number, attempts: number,
 *   position: number | null, eta_seconds: number | null}} Job
 * @typedef {{fraction: number, stage: string, preview: string | null, image: string | null, dropped: boolean}} Slot
 * @typedef {{job: Job, slots: Slot[], position: number | null, due: number | null, begun: {at: number, fraction: number} | null,
 *   lastEvent: number, asked: string | null, failure: string | null}} JobRecord what the page knows of a job: `position` in the
 *   queue, 0 is next; `due`, when it should be done, in ms as of Date.now(); `begun`, where it stood when the page first saw it
 *   move; `asked` is "cancel" while the server has not answered that
 */

/** @param {Job} job @param {JobRecord} [old] @returns {JobRecord} the server's word, with the previews that we already have */
export function recordOf(job, old) {
  const slots = job.images.map((image, index) => ({
    fraction: image ? 1 : old?.slots[index]?.fraction ?? 0,
    stage: old?.slots[index]?.stage ?? "",
    preview: old?.slots[index]?.preview ?? null,
    image,
    dropped: job.dropped?.includes(index) ?? false,
  }));
  const queued = job.state === "queued" ? placeOf(job) : { position: null, due: null };
  const kept = { begun: old?.begun ?? null, lastEvent: old?.lastEvent ?? 0 };
  return { job, slots, ...queued, ...kept, asked: isOver(job.state) ? null : old?.asked ?? null, failure: old?.failure ?? null };
}

const placeOf = ({ position = null, eta_seconds: eta }) => ({ position, due: eta ? Date.now() + eta * 1000 : null });

const SETTLED = 500; // ms until all of a job has been told that was known before
const WARM = 3000; // ms of work until its pace says something of the rest

/** When a running job should be done, from how it has come on since the page saw it: ms as of Date.now(), null while that says little. */
function dueOf(begun, fraction) {
  const spent = Date.now() - begun.at;
  if (spent < WARM || fraction - begun.fraction < 0.02) return null;
  return Date.now() + (spent * (1 - fraction)) / (fraction - begun.fraction);
}

/**
 * A record after one event. An event that the table forbids changes nothing: `null` says "ask the server".
 * @param {JobRecord} record
 * @param {string} kind
 * @param {any} data
 * @returns {JobRecord | null}
 */
export function afterEvent(record, kind, data) {
  if (kind === "state") {
    if (!JOB_MOVES[record.job.state].includes(data.state)) return null;
    const job = { ...record.job, state: data.state, error: data.error ?? null, detail: data.detail ?? null };
    if (data.state === "running" && !job.started) job.started = Date.now() / 1000;
    return { ...record, job, ...placeOf(data), asked: isOver(data.state) ? null : record.asked };
  }
  if (!(data.slot in record.slots)) return null;
  const slots = record.slots.slice();
  const slot = { ...slots[data.slot] };
  slots[data.slot] = slot;
  if (kind === "progress" && !slot.image) Object.assign(slot, { stage: data.stage, fraction: data.fraction });
  if (kind === "preview" && !slot.image) slot.preview = `data:image/png;base64,${data.png}`;
  if (kind === "dropped") {
    Object.assign(slot, { dropped: true, preview: null });
    return { ...record, slots, begun: null, due: null };
  }
  if (kind !== "image") return cameOn({ ...record, slots });
  Object.assign(slot, { image: data.image, fraction: 1, preview: null });
  const images = record.job.images.slice();
  images[data.slot] = data.image;
  return { ...record, job: { ...record.job, images }, slots };
}

/** How much of the whole job is done, 0 to 1. */
export function fractionOf({ slots }) {
  const wanted = slots.filter((slot) => !slot.dropped);
  return wanted.reduce((sum, slot) => sum + slot.fraction, 0) / Math.max(1, wanted.length);
}

function cameOn(record) {
  const fraction = fractionOf(record);
  const at = record.begun?.at ?? Date.now();
  const begun = Date.now() - at > SETTLED ? record.begun : { at, fraction }; // after a reload it is told of one slot at a time
  return { ...record, begun, due: dueOf(begun, fraction) };
}
