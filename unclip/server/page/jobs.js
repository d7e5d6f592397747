/**
 * What the page knows of the server's jobs. The server owns them: this holds its last word and asks again whenever it was away.
 *
 * One stream tells of all jobs; those that run now also have a stream of their own, for previews. A job whose events do not
 * fit what is known (state.js) is asked for again instead of being guessed at.
 */

import { api } from "./api.js";
import { openStream } from "./events.js";
import { afterEvent, isOver, recordOf } from "./state.js";

const PAGE = 100; // more than wait at a time, as servers are set up
const OLDER = 200;
const OWN_STREAMS = 2; // of the browser's six connections: one more tells of all jobs, three are left for pictures
const REST_AFTER = 5000;
const TICK = 2000; // how often "done in" counts down

/** @typedef {import("./state.js").JobRecord} JobRecord */

class Jobs {
  /** @type {Map<string, JobRecord>} */
  #records = new Map();
  /** @type {Map<string, ReturnType<typeof openStream>>} */
  #streams = new Map();
  #listeners = new Set();
  #asking = new Set();
  #leaving = new Set();
  #unfinished = new Set();
  #order = []; // ids, the newest first; another array whenever it is another order
  #all = null; // the stream of all jobs
  #resting = null;
  /** Whether the oldest job is known. */
  whole = false;
  connection = "connecting";

  constructor() {
    document.addEventListener("visibilitychange", () => {
      clearTimeout(this.#resting);
      if (document.hidden) this.#resting = setTimeout(() => this.#rest(), REST_AFTER);
      else this.start();
    });
    window.addEventListener("online", () => this.#all?.wake());
    setInterval(() => {
      for (const id of this.#unfinished) if (this.#records.get(id).due && !document.hidden) this.#tell({ kind: "changed", id });
    }, TICK);
  }

  /** @returns {JobRecord | undefined} */
  get = (id) => this.#records.get(id);

  /** Ids, the newest first. */
  ids = () => this.#order;

  /** Those that are not over, the next to run first. @returns {JobRecord[]} */
  unfinished() {
    const place = ({ job, position }) => (job.state === "running" ? -1 : position ?? Infinity);
    const records = [...this.#unfinished].map(this.get);
    return records.sort((a, b) => place(a) - place(b) || a.job.created - b.job.created);
  }

  /** Those of them that wait. */
  waiting = () => this.unfinished().filter(({ job }) => job.state === "queued");

  onChange(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  start() {
    if (this.#all) return;
    this.#all = openStream("/api/events", {
      onEvent: (kind, data) => data.job && !(this.#records.has(data.job) && this.#streams.has(data.job)) && this.#apply(data.job, kind, data),
      onState: (state, error) => {
        if (state === "live") {
          this.#connectionIs("live");
          this.#streams.forEach((stream) => stream.wake());
          this.#catchUp().catch(() => this.#connectionIs("waiting"));
        } else this.#connectionIs(state === "over" && error?.status === 401 ? "locked" : "waiting");
      },
    });
  }

  /** Listens again, as with a new key. */
  restart() {
    this.#rest();
    this.start();
  }

  /** Older jobs than are known. @returns {Promise<void>} */
  async more() {
    if (this.whole) return;
    const jobs = await api.jobs(this.#order.at(-1) ?? null, OLDER);
    if (jobs.length < OLDER) this.whole = true;
    this.#put(...jobs);
  }

  /** @returns {Promise<string>} the new job's id; ApiError when it was refused */
  async submit(request) {
    const job = await api.submit(request);
    this.#put(job);
    this.#follow();
    return job.id;
  }

  /** Asks the server to stop a job; what is finished of it stays. */
  cancel = (id) => this.#ask(id, () => api.cancel(id));

  /** The same for one picture of it. */
  cancelSlot = (id, slot) => this.#ask(id, () => api.cancelSlot(id, slot), null);

  /** The same for all jobs, or for those that wait. */
  async cancelAll(waiting) {
    const meant = waiting ? this.waiting() : this.unfinished();
    meant.forEach(({ job }) => this.#asked(job.id, "cancel", null));
    try {
      await api.cancelAll(waiting);
    } catch (error) {
      meant.forEach(({ job }) => this.#asked(job.id, null, `It could not be cancelled. ${error.message}`));
    }
    meant.forEach(({ job }) => this.refresh(job.id));
  }

  /** Puts a job that waits before another, or, with null, at the end. */
  async move(id, before) {
    const waiting = this.waiting();
    const places = waiting.map((record) => record.position);
    const order = waiting.filter(({ job }) => job.id !== id).map(({ job }) => job.id);
    order.splice(before === null ? order.length : order.indexOf(before), 0, id);
    order.forEach((each, index) => this.#set(each, { position: places[index] })); // the server's word follows
    try {
      this.#put(await api.move(id, before));
    } catch (error) {
      order.forEach((each) => this.refresh(each));
      throw error;
    }
  }

  /** Takes a job out of the queue. @returns {Promise<any>} its request; ApiError when it has begun */
  async withdraw(id) {
    const job = await this.#letGo(id, () => api.withdraw(id));
    if (job.images.some(Boolean)) this.#put(job); // it ran before, and is kept
    else this.#drop(id);
    return job.request;
  }

  async forget(id) {
    await this.#letGo(id, () => api.forget(id));
    this.#drop(id);
  }

  /** Has a job taken away; its last event, which may come before the answer or after it, is no reason to ask for it. */
  async #letGo(id, question) {
    this.#leaving.add(id);
    try {
      return await question();
    } catch (error) {
      this.#leaving.delete(id);
      throw error;
    }
  }

  /** Asks the server for a job. */
  refresh = async (id) => {
    if (this.#asking.has(id) || this.#leaving.has(id)) return;
    this.#asking.add(id);
    try {
      this.#put(await api.job(id));
    } catch (error) {
      if (error.status === 404) this.#drop(id);
    } finally {
      this.#asking.delete(id);
    }
    this.#follow();
  };

  #tell(change) {
    this.#listeners.forEach((listener) => listener(change));
  }

  #connectionIs(state) {
    if (this.connection !== state) this.#tell({ kind: "connection", state: (this.connection = state) });
  }

  /** Takes the server's word for some jobs. */
  #put(...jobs) {
    const before = jobs.map(({ id }) => this.#records.get(id));
    const fresh = jobs.filter((_, index) => !before[index]).map(({ id }) => id);
    jobs.forEach((job, index) => this.#keep(job.id, recordOf(job, before[index])));
    if (fresh.length) {
      const age = (id) => this.#records.get(id).job.created;
      this.#order = [...this.#order, ...fresh].sort((a, b) => age(b) - age(a) || (a < b ? 1 : -1));
    }
    jobs.forEach(({ id }, index) => this.#tell({ kind: before[index] ? "changed" : "added", id, from: before[index]?.job.state }));
  }

  #keep(id, record) {
    this.#records.set(id, record);
    if (isOver(record.job.state)) this.#unfinished.delete(id);
    else this.#unfinished.add(id);
  }

  #set(id, changes) {
    const record = this.#records.get(id);
    if (!record) return;
    this.#keep(id, { ...record, ...changes });
    this.#tell({ kind: "changed", id, from: record.job.state });
  }

  #drop(id) {
    if (!this.#records.delete(id)) return;
    this.#unfinished.delete(id);
    this.#order = this.#order.filter((other) => other !== id);
    this.#tell({ kind: "removed", id });
    this.#follow();
  }

  #asked(id, asked, failure) {
    this.#set(id, { asked, failure });
  }

  async #ask(id, question, as = "cancel") {
    this.#asked(id, as, null);
    try {
      const job = await question();
      if (job?.id) this.#put(job);
      else await this.refresh(id);
    } catch (error) {
      this.#asked(id, null, `It could not be cancelled. ${error.message}`);
    }
    this.#follow();
  }

  #apply(id, kind, data, eventId = 0) {
    const record = this.#records.get(id);
    const next = record && afterEvent(record, kind, data);
    if (!next) return this.refresh(id);
    if (eventId) next.lastEvent = Math.max(next.lastEvent, eventId);
    this.#keep(id, next);
    this.#tell({ kind: "changed", id, from: record.job.state });
    if (kind !== "state") return;
    if (isOver(data.state)) this.refresh(id); // its times, as the server has them
    this.#follow();
  }

  #isOver = (id) => isOver(this.#records.get(id)?.job.state ?? "cancelled");

  /** Gives the jobs that run now their streams, the oldest first, and takes them from the others. */
  #follow() {
    for (const [id, stream] of this.#streams) {
      // A job that waits again, since its worker died, keeps its stream.
      if (this.#all && !this.#isOver(id)) continue;
      stream.close();
      this.#streams.delete(id);
    }
    if (!this.#all) return;
    for (const { job, lastEvent } of this.unfinished().filter((each) => each.job.state === "running")) {
      if (!this.#streams.has(job.id) && this.#streams.size < OWN_STREAMS) this.#streams.set(job.id, this.#stream(job.id, lastEvent));
    }
  }

  #stream(id, after) {
    return openStream(`/api/jobs/${encodeURIComponent(id)}/events`, {
      after,
      onEvent: (kind, data, eventId) => this.#apply(id, kind, data, eventId),
      isOver: () => this.#isOver(id),
      onState: (state) => {
        if (state === "over") this.refresh(id);
      },
    });
  }

  /** The first page of the list again: what happened while nobody listened. */
  async #catchUp() {
    const jobs = await api.jobs(null, PAGE);
    const oldest = jobs.at(-1)?.created ?? 0;
    const there = new Set(jobs.map((job) => job.id));
    this.#put(...jobs);
    for (const id of this.#order) {
      const { job } = this.#records.get(id);
      const expected = jobs.length < PAGE || job.created > oldest;
      if (!there.has(id) && expected) this.#drop(id);
      else if (!there.has(id) && !isOver(job.state)) this.refresh(id);
    }
    if (jobs.length < PAGE) this.whole = true;
    this.#follow();
    this.#tell({ kind: "ready" });
  }

  #rest() {
    this.#all?.close();
    this.#all = null;
    this.#follow();
  }
}

export const createJobs = () => new Jobs();
