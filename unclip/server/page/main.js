/** The page put together. */

import { api, onKeyWanted } from "./api.js";
import { collectionPicker, createCollections } from "./collections.js";
import { createComposer } from "./composer.js";
import { announce, ask, button, el, icon, toast } from "./dom.js";
import { createEditor } from "./editor/editor.js";
import { requestOf } from "./form.js";
import { createHistory } from "./history.js";
import { createJobs } from "./jobs.js";
import { createKeyAsker } from "./key.js";
import { createKeys } from "./keys.js";
import { createQueue } from "./queue.js";
import { createRouter } from "./router.js";
import { createUpload, uploadPicture } from "./upload.js";
import { createViewer } from "./viewer.js";

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

async function start() {
  place("show-keys").append(icon("keyboard"));
  const showConnection = createConnection();
  const jobs = createJobs();
  const askKey = createKeyAsker(() => jobs.restart());
  onKeyWanted(askKey);
  const config = await configured(showConnection);

  const pictures = {
    async take(files) {
      for (const file of files) {
        try {
          if (document.body.dataset.page === "edit") return void (await editor.begin(file));
          composer.attach((await uploadPicture(file)).id);
        } catch (error) {
          composer.fail(error.message);
        }
      }
      composer.focus();
    },
  };
  const pick = createUpload((files) => pictures.take(files));

  const submit = async (request) => {
    const id = await jobs.submit(request);
    router.to("#/");
    return id;
  };

  const composer = createComposer(place("composer"), { config, submit, pick, edit: (image) => router.to(`#/edit/${image}`) });

  const actions = {
    open: (image, instead) => router.open(image, instead),
    edit: (image) => router.to(`#/edit/${image}`),
    attach: (image) => (router.to("#/"), composer.attach(image), scrollTo({ top: 0 })),
    closed: () => router.closed(),
    collect: collectionPicker,
    cancel: jobs.cancel,
    reuse(request) {
      router.to("#/");
      composer.reuse(request);
      scrollTo({ top: 0 });
      composer.focus();
      announce("The settings are in the prompt box.");
    },
    async variations(image) {
      const form = { ...composer.form(), images: [image], seed: "" };
      await submit(requestOf(form, "variations"));
      scrollTo({ top: 0 });
    },
    async again(record) {
      try {
        await jobs.submit({ ...record.job.request, seed: null });
        scrollTo({ top: 0 });
      } catch (error) {
        toast(error.message, { failure: true });
      }
    },
    async forget(id) {
      if (!(await ask("Delete this and its pictures from the history?", { yes: "Delete", danger: true }))) return;
      await jobs.forget(id).catch((error) => toast(`It could not be deleted. ${error.message}`, { failure: true }));
    },
  };

  const viewer = createViewer({ jobs, actions });
  const editor = createEditor(place("edit"), { config, jobs, settings: composer.form, pick });
  const collections = createCollections(place("collections"), { open: actions.open });
  const router = createRouter({ collections: collections.show, edit: editor.show, viewer });
  const showKeys = createKeys({ toPrompt: () => (router.to("#/"), scrollTo({ top: 0 }), composer.focus()) });
  place("show-keys").addEventListener("click", showKeys);
  const history = createHistory(place("history"), jobs, actions, () => firstSteps((prompt) => (composer.set("prompt", prompt), composer.send())));
  createQueue(place("queue"), jobs, (id) => (router.to("#/"), history.reveal(id)));

  jobs.onChange((change) => change.kind === "connection" && showConnection(change.state));
  if (config.key_required) await api.jobs(null, 1).catch(() => null); // asks for the key now rather than at the first click
  jobs.start();
  router.go();
}

start();
