/** Which page is shown, as the address says after its #: so that back, forward, reload and a bookmark work. */

const TITLES = { create: "unclip", collections: "Collections · unclip", edit: "Editor · unclip", search: "Search · unclip" };

/** Shows one page and marks the link that leads there. */
function reveal(page) {
  for (const name of Object.keys(TITLES)) document.getElementById(name).hidden = name !== page;
  document.body.dataset.page = page;
  for (const link of document.querySelectorAll("a[data-page]")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = TITLES[page];
}

/**
 * @param {object} given
 * @param {(id: string | null) => void} given.collections
 * @param {(image: string | null) => void} given.edit
 * @param {((query: string) => void) | null} given.search where the server has something to search
 * @param {{show: (image: string) => void, close: () => void, isOpen: () => boolean}} given.viewer
 */
export function createRouter({ collections, edit, search, viewer }) {
  const pages = Object.keys(TITLES).filter((name) => name !== "search" || search);
  let behind = "#/"; // what lies under the viewer
  let drawn = null;

  function go() {
    const [path, ...query] = location.hash.replace(/^#\/?/, "").split("?");
    const [first = "", second = null] = path.split("/").map(decodeURIComponent);
    if (first === "image" && second) {
      if (!drawn) draw("", null);
      return viewer.show(second);
    }
    if (viewer.isOpen()) viewer.close();
    behind = location.hash || "#/";
    draw(first, second);
    if (document.body.dataset.page === "search") search(query.join("?"));
  }

  function draw(first, second) {
    const page = pages.includes(first) ? first : "create";
    const key = `${page}/${second}`;
    if (drawn === key && page !== "collections") return;
    drawn = key;
    reveal(page);
    if (page === "collections") collections(second);
    if (page === "edit") {
      edit(second);
      if (second) replace("#/edit"); // a reload then brings back what was done, not the picture as it was
    }
  }

  function replace(hash) {
    history.replaceState(history.state, "", hash);
    if (hash === "#/edit") drawn = "edit/null";
    behind = hash;
  }

  /** @param {string} hash @param {boolean} [instead] of the address that is there, in the browser's history too */
  function to(hash, instead = false) {
    if (instead) history.replaceState(history.state, "", hash);
    if (location.hash === hash) go();
    else location.hash = hash;
  }

  window.addEventListener("hashchange", go);
  return {
    go,
    /** Opens a picture over what is shown. @param {boolean} [instead] of the picture that is open */
    open: (image, instead = false) => to(`#/image/${encodeURIComponent(image)}`, instead),
    /** The viewer was closed by its own button or by Esc. */
    closed() {
      if (!location.hash.startsWith("#/image/")) return;
      history.replaceState(history.state, "", behind);
      if (behind.startsWith("#/collections")) go();
    },
    to,
  };
}
