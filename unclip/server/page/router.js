/** Which page is shown, as the address says after its #: so that back, forward, reload and a bookmark work. */

const PAGES = ["create", "collections", "edit"];

/**
 * @param {object} given
 * @param {(id: string | null) => void} given.collections
 * @param {(image: string | null) => void} given.edit
 * @param {{show: (image: string) => void, close: () => void, isOpen: () => boolean}} given.viewer
 */
export function createRouter({ collections, edit, viewer }) {
  let behind = "#/"; // what lies under the viewer
  let drawn = null;

  function go() {
    const [first = "", second = null] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
    if (first === "image" && second) {
      if (!drawn) draw("", null);
      return viewer.show(second);
    }
    if (viewer.isOpen()) viewer.close();
    behind = location.hash || "#/";
    draw(first, second);
  }

  function draw(first, second) {
    const page = PAGES.includes(first) ? first : "create";
    const key = `${page}/${second}`;
    if (drawn === key && page !== "collections") return;
    drawn = key;
    for (const name of PAGES) document.getElementById(name).hidden = name !== page;
    document.body.dataset.page = page;
    for (const link of document.querySelectorAll("a[data-page]")) {
      if (link.dataset.page === page) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = { create: "unclip", collections: "Collections · unclip", edit: "Editor · unclip" }[page];
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

  window.addEventListener("hashchange", go);
  return {
    go,
    /** Opens a picture over what is shown. @param {boolean} [instead] of the picture that is open */
    open(image, instead = false) {
      const hash = `#/image/${encodeURIComponent(image)}`;
      if (!instead) return void (location.hash = hash);
      history.replaceState(history.state, "", hash);
      go();
    },
    /** The viewer was closed by its own button or by Esc. */
    closed() {
      if (!location.hash.startsWith("#/image/")) return;
      history.replaceState(history.state, "", behind);
      if (behind.startsWith("#/collections")) go();
    },
    to: (hash) => (location.hash === hash ? go() : void (location.hash = hash)),
  };
}
