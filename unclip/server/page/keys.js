/** Shortcuts of the whole page, and the sheet that names them all. The viewer and the editor hold their own. */

import { el, button } from "./dom.js";

const SHEET = {
  Anywhere: [["/", "Go to the prompt"], ["Ctrl Enter", "Generate"], ["Ctrl V", "Bring in a picture"], ["Esc", "Close, or stop what the editor makes"], ["?", "This list"]],
  History: [["PageUp PageDown", "Previous, next job"], ["Enter", "Open the picture"]],
  Picture: [["← →", "Neighbours"], ["V", "Variations"], ["E", "Edit"], ["D", "Download"], ["R", "Reuse settings"], ["C", "Add to a collection"], ["Delete", "Delete"]],
  Editor: [
    ["B", "Brush"], ["E", "Eraser"], ["F", "Frame"], ["H, Space", "Move the canvas"], ["[ ]", "Brush size"], ["+ − 0", "Zoom, fit"],
    ["Ctrl Z", "Undo"], ["Ctrl Shift Z", "Redo"], ["← ↑ → ↓", "Move the brush or the frame; with Shift, further"],
    ["Space", "With the arrows: paint here"], ["← → Enter", "Candidates: other, accept"],
  ],
};

const SEARCH = { Search: [["Enter", "Look for it"], ["← →", "Neighbours of an open result"], ["M", "More like this"], ["V", "Variations"], ["E", "Edit"]] };

const writing = (target) => target.closest?.("input:not([type=radio]):not([type=checkbox]):not([type=range]), textarea, select, [contenteditable]");

/** @param {{toPrompt: () => void, searches: boolean}} given @returns {() => void} shows the sheet */
export function createKeys({ toPrompt, searches }) {
  const groups = Object.entries({ ...SHEET, ...(searches ? SEARCH : {}) }).map(([name, rows]) => el(
    "section",
    {},
    el("h3", { text: name }),
    el("dl.keys", {}, ...rows.flatMap(([keys, what]) => [el("dt", {}, ...keys.split(" ").map((key) => el("kbd", { text: key }))), el("dd", { text: what })])),
  ));
  const dialog = el("dialog.sheet", { "aria-labelledby": "keys-title" });
  const closer = button({ name: "Close", icon: "close", label: false, look: "quiet", onclick: () => dialog.close() });
  dialog.append(el("div.row.spread", {}, el("h2", { id: "keys-title", text: "Keyboard" }), closer), el("div.keys-groups", {}, ...groups));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  const show = () => dialog.open || dialog.showModal();

  document.addEventListener("keydown", (event) => {
    if (writing(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "?") {
      event.preventDefault();
      show();
    } else if (event.key === "/" && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      toPrompt();
    }
  });
  return show;
}
