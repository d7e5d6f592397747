/** The page put together. */

import { api, onKeyWanted } from "./api.js";
import { Chooser } from "./chooser.js";
import { Collections, collectionPicker } from "./collections.js";
import { Composer } from "./composer.js";
import { announce, ask, button, el, icon, toast } from "./dom.js";
import { Drag } from "./drag.js";
import { Editor } from "./editor/editor.js";
import { requestOf } from "./form.js";
import { createHistory } from "./history.js";
import { createJobs } from "./jobs.js";
import { createKeyAsker } from "./key.js";
import { createKeys } from "./keys.js";
import { leaving } from "./leaving.js";
import { askWhat } from "./offer.js";
import { createQueue } from "./queue.js";
import { createRouter } from "./router.js";
import { Search } from "./search.js";
import { createPicker, uploadPicture } from "./upload.js";
import { Viewer } from "./viewer.js";

const place = (id) => document.getElementById(id);
const EXAMPLES = 3;
const SLOW = 1200; // ms until a lost connection is worth a word

const CONNECTION = {
  connecting: "",
  live: "",
  waiting: "The server does not answer. What it makes goes on there; this page joins again by itself.",
  locked: "The server wants a key.",
};

/** A banner while the server is away; short gaps pass unseen. */
function createConnection() {
  let timer = null;
  return (state) => {
    clearTimeout(timer);
    const say = () => (place("connection").textContent = CONNECTION[state]);
    if (state === "live") say();
    else timer = setTimeout(say, SLOW);
  };
}

/** The server's config; asked for until it answers. */
async function configured(showConnection) {
  for (let wait = 500; ; wait = Math.min(8000, wait * 2)) {
    try {
      const config = await api.config();
      showConnection("live");
      return config;
    } catch (error) {
      showConnection(error.status === 401 ? "locked" : "waiting");
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

/** What a history without jobs shows: three prompts of the server's own to begin with. */
function firstSteps(use) {
  const row = el("div.examples");
  Promise.all(Array.from({ length: EXAMPLES }, () => api.surprise())).then(
    (drawn) => row.append(...[...new Set(drawn.map(({ prompt }) => prompt))].map((prompt) => button({ name: prompt, look: "example", onclick: () => use(prompt) }))),
    () => row.remove(),
  );
  return el("div.first-steps", {}, el("p.nothing-words", { text: "Your pictures will be here. Begin with words of your own, or with these." }), row);
}

/** What the parts of the page ask of one another. */
class Page {
  /** @param {import("./api.js").ServerConfig} config @param {ReturnType<typeof createJobs>} jobs */
  constructor(config, jobs) {
    this.jobs = jobs;
    const pick = createPicker((files) => this.#take(files));
    this.chooser = new Chooser(jobs, pick);
    this.composer = new Composer(place("composer"), { config, submit: this.#submit, add: () => this.chooser.ask((image) => this.composer.attach(image)), edit: this.#edit });
    this.viewer = new Viewer({ jobs, actions: this.#actions(config) });
    this.editor = new Editor(place("edit"), { config, jobs, settings: () => this.composer.form, open: () => this.chooser.ask(this.#edit) });
    const collections = new Collections(place("collections"), this.#open);
    this.search = Object.keys(config.indices).length ? this.#searching(config.indices) : null;
    this.router = createRouter({
      collections: (id) => collections.show(id),
      edit: (image) => this.editor.show(image),
      search: this.search && ((query) => this.search.show(query)),
      viewer: { show: (image) => this.viewer.show(image), close: () => this.viewer.close(), isOpen: () => this.viewer.isOpen },
    });
    this.history = createHistory(place("history"), jobs, this.#actions(config), () => firstSteps((prompt) => (this.composer.set("prompt", prompt), this.composer.send())));
    createQueue(place("queue"), jobs, { takeBack: this.#takeBack, reveal: (id) => (this.router.to("#/"), this.history.reveal(id)) });
    new Drag({ take: (files) => this.#take(files), to: { attach: this.#attach, edit: this.#edit }, box: this.composer.box });
    place("show-keys").addEventListener("click", createKeys({ searches: Boolean(this.search), toPrompt: () => this.#toWords() }));
  }

  /** The place to search, and the way to it, which leads back to what was found. @param {Record<string, number>} indices */
  #searching(indices) {
    const link = document.querySelector("a[data-page=search]");
    link.hidden = false;
    return new Search(place("search"), {
      indices,
      asked: (hash) => (link.href = hash),
      go: (hash, instead) => this.router.to(hash, instead),
      add: () => this.chooser.ask((image) => this.search.seekPicture(image)),
      use: { variations: this.#variations, edit: this.#edit, attach: this.#attach },
    });
  }

  /** To the line that words are typed into. */
  #toWords() {
    if (document.body.dataset.page === "search") return this.search.focus();
    this.#top();
    this.composer.focus();
  }

  #top() {
    this.router.to("#/");
    scrollTo({ top: 0 });
  }

  #open = (image, instead) => this.router.open(image, instead);

  #edit = (image) => this.router.to(`#/edit/${image}`);

  #attach = (image) => {
    this.#top();
    this.composer.attach(image);
  };

  #submit = async (request) => {
    const id = await this.jobs.submit(request);
    this.router.to("#/");
    return id;
  };

  #variations = async (image) => {
    await this.#submit(requestOf({ ...this.composer.form, images: [image], seed: "" }, "variations"));
    scrollTo({ top: 0 });
  };

  #reuse = (request) => {
    this.#top();
    this.composer.reuse(request);
    this.composer.focus();
    announce("The settings are in the prompt box.");
  };

  #takeBack = async (id) => {
    try {
      this.#reuse(await this.jobs.withdraw(id));
    } catch (error) {
      toast(error.message, { failure: true });
    }
  };

  /** The settings in a file, which holds no pictures but its own. */
  #reuseFile(request) {
    this.#reuse(request);
    if (request.task !== "generate") toast("The picture that it was made from is not in the file: add it to make this again.");
  }

  /** Pictures from this computer: to the editor or the search where that is shown, else to the prompt box. @param {File[]} files */
  async #take(files) {
    const over = [...document.querySelectorAll("dialog[open]")];
    if (over.some((dialog) => dialog.matches(".small, .offer"))) return; // a question waits
    over.forEach((dialog) => dialog.close());
    const { page } = document.body.dataset;
    if (page === "search") return this.search.take(files[0]);
    const editing = page === "edit";
    try {
      if (editing) return void (await this.editor.begin(files[0]));
      const { what, request } = files.length === 1 ? await askWhat(files[0]) : { what: "picture" };
      if (what === "settings") return this.#reuseFile(request);
      if (what === "picture") for (const file of files) this.composer.attach((await uploadPicture(file)).id);
    } catch (error) {
      this.composer.fail(error.message);
    }
    this.composer.focus();
  }

  /** @returns {import("./card.js").CardActions & import("./viewer.js").ViewerActions} */
  #actions(config) {
    return {
      open: this.#open,
      edit: this.#edit,
      attach: this.#attach,
      reuse: this.#reuse,
      collect: collectionPicker,
      closed: () => this.router.closed(),
      cancel: this.jobs.cancel,
      cancelSlot: this.jobs.cancelSlot,
      takeBack: this.#takeBack,
      blend: (image) => (this.#attach(image), this.chooser.ask(this.#attach)),
      variations: this.#variations,
      search: Object.keys(config.indices).length ? (image) => this.search.seekPicture(image) : null,
      again: async (record) => {
        try {
          await this.jobs.submit({ ...record.job.request, seed: null });
          scrollTo({ top: 0 });
        } catch (error) {
          toast(error.message, { failure: true });
        }
      },
      forget: async (id) => {
        if (!(await ask("Delete this and its pictures from the history?", { yes: "Delete", danger: true }))) return;
        await this.jobs.forget(id).catch((error) => toast(`It could not be deleted. ${error.message}`, { failure: true }));
      },
    };
  }
}

async function start() {
  place("show-keys").append(icon("keyboard"));
  const showConnection = createConnection();
  const jobs = createJobs();
  onKeyWanted(createKeyAsker(() => jobs.restart()));
  const config = await configured(showConnection);
  leaving.begin(config);
  const page = new Page(config, jobs);
  jobs.onChange((change) => change.kind === "connection" && showConnection(change.state));
  if (config.key_required) await api.jobs(null, 1).catch(() => null); // asks for the key now rather than at the first click
  jobs.start();
  page.router.go();
}

start();
