/**
 * What the page knows of the server's jobs. The server owns them: this holds its last word and asks again whenever it was away.
 *
 * One stream tells of all jobs; those that run now also have a stream of their own, for previews. A job whose events do not
 * fit what is known (state.js) is asked for again instead of being guessed at.
 */

import { api } from "./api.js";
import { openStream } from "./events.js";
import { afterEvent, isOver, recordOf } from "./state.js";

const PAGE = 50;
const OWN_STREAMS = 2; // of the browser's six connections: one more tells of all jobs, three are left for pictures
const REST_AFTER = 5000;

/** @typedef {import("./state.js").JobRecord} JobRecord */

export function createJobs() {
  /** @type {Map<string, JobRecord>} */
  const records = new Map();
  /** @type {Map<string, ReturnType<typeof openStream>>} */
  const streams = new Map();
  const listeners = new Set();
  const asking = new Set();
  let order = []; // ids, the newest first
  let whole = false; // whether the oldest job is known
  let all = null; // the stream of all jobs
  let connection = "connecting";
  let resting = null;

  const tell = (change) => listeners.forEach((listener) => listener(change));

  function connectionIs(state) {
    if (connection !== state) tell({ kind: "connection", state: (connection = state) });
  }

  function sort() {
    order = [...records.keys()].sort((a, b) => records.get(b).job.created - records.get(a).job.created || (a < b ? 1 : -1));
  }

  /** Takes the server's word for some jobs. */
  function put(...jobs) {
    const before = jobs.map((job) => records.get(job.id));
    jobs.forEach((job, index) => records.set(job.id, recordOf(job, before[index])));
    if (before.includes(undefined)) sort();
    jobs.forEach(({ id }, index) => tell({ kind: before[index] ? "changed" : "added", id, from: before[index]?.job.state }));
  }

  function drop(id) {
    if (!records.delete(id)) return;
    order = order.filter((other) => other !== id);
    tell({ kind: "removed", id });
    follow();
  }

  async function refresh(id) {
    if (asking.has(id)) return;
    asking.add(id);
    try {
      put(await api.job(id));
    } catch (error) {
      if (error.status === 404) drop(id);
    } finally {
      asking.delete(id);
    }
    follow();
  }

  function apply(id, kind, data, eventId = 0) {
    const record = records.get(id);
    const next = record && afterEvent(record, kind, data);
    if (!next) return refresh(id);
    if (eventId) next.lastEvent = Math.max(next.lastEvent, eventId);
    records.set(id, next);
    tell({ kind: "changed", id, from: record.job.state });
    if (kind !== "state") return;
    if (isOver(data.state)) refresh(id); // its times, as the server has them
    follow();
  }

  /** Gives the jobs that run now their streams, the oldest first, and takes them from the others. */
  function follow() {
    const running = order.filter((id) => records.get(id).job.state === "running").reverse();
    for (const [id, stream] of streams) {
      // A job that waits again, since its worker died, keeps its stream.
      if (!all || isOver(records.get(id)?.job.state ?? "cancelled")) {
        stream.close();
        streams.delete(id);
      }
    }
    if (!all) return;
    for (const id of running) {
      if (streams.has(id) || streams.size >= OWN_STREAMS) continue;
      const stream = openStream(`/api/jobs/${encodeURIComponent(id)}/events`, {
        after: records.get(id).lastEvent,
        onEvent: (kind, data, eventId) => apply(id, kind, data, eventId),
        isOver: () => isOver(records.get(id)?.job.state ?? "cancelled"),
        onState: (state) => {
          if (state === "over") refresh(id);
        },
      });
      streams.set(id, stream);
    }
  }

  /** The first page of the list again: what happened while nobody listened. */
  async function catchUp() {
    const jobs = await api.jobs(null, PAGE);
    const oldest = jobs.at(-1)?.created ?? 0;
    const there = new Set(jobs.map((job) => job.id));
    put(...jobs);
    for (const id of order) {
      const { job } = records.get(id);
      const expected = jobs.length < PAGE || job.created > oldest;
      if (!there.has(id) && expected) drop(id);
      else if (!there.has(id) && !isOver(job.state)) refresh(id);
    }
    if (jobs.length < PAGE) whole = true;
    follow();
    tell({ kind: "ready" });
  }

  function listen() {
    if (all) return;
    all = openStream("/api/events", {
      onEvent: (kind, data) => data.job && (records.has(data.job) && streams.has(data.job) ? null : apply(data.job, kind, data)),
      onState: (state, error) => {
        if (state === "live") {
          connectionIs("live");
          streams.forEach((stream) => stream.wake());
          catchUp().catch(() => connectionIs("waiting"));
        } else connectionIs(state === "over" && error?.status === 401 ? "locked" : "waiting");
      },
    });
  }

  function rest() {
    all?.close();
    all = null;
    follow();
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(resting);
    if (document.hidden) resting = setTimeout(rest, REST_AFTER);
    else listen();
  });
  window.addEventListener("online", () => all?.wake());

  return {
    /** @returns {JobRecord | undefined} */
    get: (id) => records.get(id),
    /** Ids, the newest first. */
    ids: () => order,
    get connection() {
      return connection;
    },
    get whole() {
      return whole;
    },
    /** Those that are not over, the next to run first. @returns {JobRecord[]} */
    unfinished: () => order.map((id) => records.get(id)).filter((record) => !isOver(record.job.state)).reverse(),
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    start: listen,
    /** Listens again, as with a new key. */
    restart: () => (rest(), listen()),
    refresh,
    /** Older jobs than are known. @returns {Promise<void>} */
    async more() {
      if (whole) return;
      const jobs = await api.jobs(order.at(-1) ?? null, PAGE);
      if (jobs.length < PAGE) whole = true;
      put(...jobs);
    },
    /** @returns {Promise<string>} the new job's id; ApiError when it was refused */
    async submit(request) {
      const job = await api.submit(request);
      put(job);
      follow();
      return job.id;
    },
    /** Asks the server to stop a job; what is finished of it stays. */
    async cancel(id) {
      const asked = (what, failure) => {
        const record = records.get(id);
        if (record) records.set(id, { ...record, asked: what, failure });
        tell({ kind: "changed", id, from: record?.job.state });
      };
      asked("cancel", null);
      try {
        const job = await api.cancel(id);
        if (job?.id) put(job);
        else await refresh(id);
      } catch (error) {
        asked(null, `It could not be cancelled. ${error.message}`);
      }
      follow();
    },
    async forget(id) {
      await api.forget(id);
      drop(id);
    },
  };
}
