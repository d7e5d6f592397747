/** One picture, large: what it is, where it came from, and what can be made of it. Arrows go to its neighbours. */

import { api, ApiError, hasKey, imageBlob, imageUrl } from "./api.js";
import { announce, ask, button, el, toast } from "./dom.js";
import { picture } from "./pictures.js";
import { fileName, fullDate, seedOf, settingsOf, titleOf } from "./words.js";

/**
 * @typedef {{id: string, request: any | null, slot: number, created: number, width: number, height: number, parents: string[]}} Shown
 */

/** Hands a picture to the browser's downloads. */
export async function download(id, name) {
  const link = el("a", { download: name, href: imageUrl(id) });
  if (hasKey()) {
    link.href = URL.createObjectURL(await imageBlob(id));
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }
  link.click();
}

/**
 * @param {object} given
 * @param {ReturnType<typeof import("./jobs.js").createJobs>} given.jobs
 * @param {{variations: (id: string) => Promise<void>, edit: (id: string) => void, attach: (id: string) => void,
 *   reuse: (request: any) => void, open: (id: string, replace?: boolean) => void, closed: () => void,
 *   collect: (id: string) => Promise<HTMLElement>}} given.actions
 */
export function createViewer({ jobs, actions }) {
  const dialog = el("dialog.viewer", { "aria-labelledby": "viewer-title" });
  const stage = el("div.viewer-stage");
  // The title takes the focus: a button might be hidden at the first or last picture, and the keys with it.
  const title = el("h2.viewer-title", { id: "viewer-title", tabindex: -1, autofocus: true });
  const place = el("p.muted.viewer-place");
  const details = el("dl.details");
  const parents = el("div.viewer-parents");
  const failure = el("p.composer-error", { role: "alert" });
  const collecting = el("div.viewer-collect");
  let shown = null;

  const act = (given) => button({ ...given, onclick: () => run(given.run) });
  const actionsRow = el(
    "div.viewer-actions",
    {},
    act({ name: "Variations", icon: "variations", look: "primary", key: "V", run: variations }),
    act({ name: "Edit", icon: "edit", key: "E", run: () => actions.edit(shown.id) }),
    act({ name: "Download", icon: "download", key: "D", run: save }),
  );
  const more = el(
    "div.viewer-more",
    {},
    act({ name: "Use in the prompt box", icon: "image", look: "quiet", run: () => (actions.attach(shown.id), close()) }),
    act({ name: "Blend with another", icon: "blend", look: "quiet", run: blend }),
    act({ name: "Reuse settings", icon: "words", look: "quiet", key: "R", run: reuse }),
    act({ name: "Add to a collection", icon: "folder", look: "quiet", key: "C", run: collect }),
    act({ name: "Delete", icon: "trash", look: "quiet", run: remove }),
  );
  const previous = button({ name: "Previous picture", icon: "chevronLeft", label: false, look: "floating previous", onclick: () => step(-1) });
  const next = button({ name: "Next picture", icon: "chevronRight", label: false, look: "floating next", onclick: () => step(1) });
  const closer = button({ name: "Close", icon: "close", label: false, look: "quiet viewer-close", key: "Esc", onclick: close });
  const panel = el("div.viewer-panel", {}, title, place, actionsRow, failure, more, collecting, el("h3", { text: "Details" }), details, parents);
  dialog.append(el("div.viewer-main", {}, stage, previous, next), panel, closer);
  document.body.append(dialog);

  async function run(what) {
    failure.textContent = "";
    try {
      await what();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      failure.textContent = error.message;
    }
  }

  /** All pictures that the history holds, as it shows them. */
  const neighbours = () => jobs.ids().flatMap((id) => jobs.get(id).job.images.filter(Boolean));

  function step(way) {
    const all = neighbours();
    const to = all[all.indexOf(shown?.id) + way];
    if (to && all.includes(shown.id)) actions.open(to, true);
    else announce(way > 0 ? "This is the last picture." : "This is the first picture.");
  }

  async function lookUp(id) {
    for (const job of jobs.ids()) {
      const { job: found } = jobs.get(job);
      const slot = found.images.indexOf(id);
      if (slot >= 0) return { id, request: found.request, slot, created: found.created, parents: found.request.images };
    }
    const told = await api.info(id);
    const job = told.job ? await api.job(told.job).catch(() => null) : null;
    return { id, request: job?.request ?? null, slot: told.slot ?? 0, created: told.created, parents: told.parents ?? [] };
  }

  async function show(id) {
    failure.textContent = "";
    collecting.replaceChildren();
    const image = picture(id, { full: true, lazy: false });
    const below = picture(id, { lazy: false });
    below.classList.add("viewer-thumb");
    image.addEventListener("load", () => (below.remove(), describe(image)), { once: true });
    image.addEventListener("error", () => (failure.textContent = "This picture is not on the server any more."), { once: true });
    stage.replaceChildren(below, image);
    if (!dialog.open) dialog.showModal();
    title.focus();
    try {
      shown = { id, request: null, slot: 0, created: 0, parents: [] };
      const found = await lookUp(id);
      if (shown.id !== id) return;
      shown = found;
    } catch (error) {
      failure.textContent = error.message;
    }
    describe(image);
  }

  function describe(image) {
    const { id, request, slot } = shown;
    if (image.dataset.image !== id) return;
    title.textContent = request ? titleOf(request) : "A picture of yours";
    image.alt = title.textContent;
    const all = neighbours();
    const index = all.indexOf(id);
    for (const [each, gone] of [[previous, index <= 0], [next, index < 0 || index === all.length - 1]]) {
      if (gone && document.activeElement === each) title.focus();
      each.hidden = gone;
    }
    const count = request ? jobs.ids().map((each) => jobs.get(each)).find((each) => each.job.images[slot] === id)?.slots.length : 0;
    place.textContent = count > 1 ? `Picture ${slot + 1} of ${count}` : "";
    const rows = request ? settingsOf(request, slot) : [["Made by", "You"]];
    if (image.naturalWidth) rows.push(["Pixels", `${image.naturalWidth} × ${image.naturalHeight}`]);
    if (shown.created) rows.push(["When", fullDate(shown.created)]);
    details.replaceChildren(...rows.flatMap(([name, value]) => [el("dt", { text: name }), el("dd", { text: value })]));
    parents.hidden = shown.parents.length === 0;
    parents.replaceChildren(
      el("h3", { text: "Made from" }),
      ...shown.parents.map((parent, i) => el("button.parent", { type: "button", "aria-label": `Open picture ${i + 1} that it was made from`, onclick: () => actions.open(parent, true) }, picture(parent, { lazy: false }))),
    );
    actionsRow.querySelectorAll("button").forEach((each) => (each.disabled = false));
    more.children[2].hidden = !request;
    announce(`${title.textContent}. ${place.textContent}`);
  }

  async function variations() {
    await actions.variations(shown.id);
    close();
  }

  function save() {
    return download(shown.id, fileName(title.textContent, shown.request ? seedOf(shown.request, shown.slot) : null));
  }

  function blend() {
    actions.attach(shown.id);
    close();
    toast("Open another picture and choose “Use in the prompt box” to blend the two.");
  }

  function reuse() {
    if (!shown.request) return;
    actions.reuse({ ...shown.request, seed: seedOf(shown.request, shown.slot) });
    close();
  }

  async function collect() {
    if (collecting.children.length) return collecting.replaceChildren();
    collecting.replaceChildren(await actions.collect(shown.id));
    collecting.querySelector("input, button")?.focus();
  }

  async function remove() {
    if (!(await ask("Delete this picture? It cannot be brought back.", { yes: "Delete", danger: true }))) return;
    const { id, request } = shown;
    await api.removeImage(id);
    const holder = request && jobs.ids().find((each) => jobs.get(each).job.images.includes(id));
    if (holder) await jobs.refresh(holder);
    close();
    toast("The picture is deleted.");
  }

  function close() {
    if (dialog.open) dialog.close();
  }

  dialog.addEventListener("close", () => {
    stage.replaceChildren();
    shown = null;
    actions.closed();
  });
  dialog.addEventListener("click", (event) => (event.target === dialog || event.target === stage) && close());
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=text], textarea")) return;
    const keys = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), v: variations, e: () => actions.edit(shown.id), d: save, r: reuse, c: collect, Delete: remove };
    const what = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!what || !shown) return;
    event.preventDefault();
    event.stopPropagation();
    run(what);
  });

  return { show, close, isOpen: () => dialog.open };
}
