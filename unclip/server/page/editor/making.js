/** What is made for the frame: one job of the server, the candidates it brings, and the one that is taken. */

import { ApiError } from "../api.js";
import { announce, el } from "../dom.js";
import { isOver } from "../state.js";
import { errorWords, stateWords } from "../words.js";
import { Candidates } from "./candidates.js";
import { merged, through } from "./document.js";

export class Making {
  #jobs;
  #desk;
  #flow;
  #given;
  #job = null;
  #chosen = 0;

  /**
   * @param {object} given
   * @param {ReturnType<typeof import("../jobs.js").createJobs>} given.jobs
   * @param {import("./desk.js").Desk} given.desk
   * @param {ReturnType<typeof import("../state.js").machine>} given.flow the editor's
   * @param {() => void} given.show draws the editor anew
   * @param {() => void} given.changed draws it, and keeps what there is
   * @param {(message: string) => void} given.fail
   * @param {() => void} given.retry
   */
  constructor({ jobs, desk, flow, ...given }) {
    this.#jobs = jobs;
    this.#desk = desk;
    this.#flow = flow;
    this.#given = given;
    this.candidates = new Candidates({ choose: (index) => this.#choose(index), accept: () => this.accept(), retry: given.retry, cancel: () => this.cancel() });
    jobs.onChange((change) => change.id === this.#job && this.#follow());
  }

  /** Of the job that runs or whose candidates wait. */
  get job() {
    return this.#job;
  }

  /** Sends a request and follows it. @param {() => Promise<any>} request */
  async begin(request) {
    this.#job = this.#desk.candidate = null;
    this.#given.changed();
    try {
      this.#job = await this.#jobs.submit(await request());
      this.#flow.send("accepted");
      this.#chosen = 0;
      this.#follow();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#flow.send("refused");
      this.candidates.hide();
      this.#given.fail(error.message);
    }
    this.#given.changed();
  }

  /** Goes on with a job from before a reload, as soon as anything is known of it. */
  async resume(job) {
    this.#job = job;
    await this.#jobs.refresh(job);
    this.#follow();
  }

  /** The canvas is for something else now. */
  drop() {
    this.#job = null;
  }

  /** Shows how the job stands, and goes on when it is over. */
  #follow() {
    const record = this.#jobs.get(this.#job);
    if (!record) return;
    const before = this.#flow.state;
    if (before === "ready") this.#flow.send("resume");
    if (!["making", "choosing"].includes(this.#flow.state)) return;
    const over = isOver(record.job.state);
    const some = record.slots.findIndex((slot) => slot.image);
    const comes = this.#flow.state === "making" && over;
    if (comes && some < 0) return this.#end("none", record.job.state === "failed" ? errorWords(record.job.error, record.job.detail) : "");
    if (comes && !record.slots[this.#chosen].image) this.#chosen = some;
    if (comes) this.#flow.send("some");
    this.candidates.show(record, this.#chosen, over);
    this.#draw(record.slots[this.#chosen]);
    if (this.#flow.state !== before) this.#given.show();
    if (!comes) return;
    announce(`${stateWords(record)} Choose a candidate with the arrows, Enter accepts.`);
    this.candidates.focus();
  }

  /** @param {"none" | "leave" | "accept"} event */
  #end(event, message = "") {
    if (!this.#flow.send(event)) return false;
    this.#job = this.#desk.candidate = null;
    this.candidates.hide();
    if (message) this.#given.fail(message);
    this.#given.changed();
    return true;
  }

  /** Puts the chosen candidate, or its preview, into the frame. @param {import("../state.js").Slot} slot */
  async #draw(slot) {
    const [job, chosen] = [this.#job, this.#chosen];
    const image = slot.image ? await this.#pixels(slot) : await decoded(slot.preview);
    if (!image || job !== this.#job || chosen !== this.#chosen || !this.#desk.locked) return;
    this.#desk.candidate = through(this.#desk.layers, this.#desk.frame, image);
    this.#desk.view.ask();
  }

  #pixels(slot) {
    return this.candidates.pixels(this.#chosen, slot.image).catch((error) => (this.#given.fail(error.message), null));
  }

  #choose(index) {
    if (this.#flow.state === "choosing" && !this.#jobs.get(this.#job).slots[index].image) return;
    this.#chosen = index;
    this.#follow();
  }

  /** To the next candidate, or the one before. @param {1 | -1} way */
  cycle(way) {
    const { slots } = this.#jobs.get(this.#job);
    const usable = slots.map((_, index) => index).filter((index) => slots[index].image || this.#flow.state === "making");
    this.#choose(usable[(usable.indexOf(this.#chosen) + way + usable.length) % usable.length]);
    announce(`Candidate ${this.#chosen + 1}`);
  }

  async accept() {
    if (!this.#flow.can("accept")) return;
    const image = await this.#pixels(this.#jobs.get(this.#job).slots[this.#chosen]);
    if (!image || !this.#end("accept")) return;
    this.#desk.undo.replace(merged(this.#desk.layers, this.#desk.frame, image));
    this.#desk.take("frame");
    this.#given.changed();
    this.#desk.canvas.focus();
    announce("Accepted.");
  }

  cancel() {
    if (this.#flow.state === "making") this.#jobs.cancel(this.#job);
    else if (this.#end("leave")) this.#desk.canvas.focus();
  }
}

async function decoded(url) {
  if (!url) return null;
  const image = el("img", { src: url });
  return image.decode().then(() => image, () => null);
}
