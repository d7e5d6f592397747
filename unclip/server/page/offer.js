/** What to do with a picture that was made here and came back: its pixels, or the settings that stand in it. */

import { button, el } from "./dom.js";
import { requestIn } from "./form.js";
import { settingsIn } from "./png.js";
import { titleOf } from "./words.js";

const MOST = 64 << 20; // bytes; no picture of ours is so large

/**
 * Looks into a file and, where its settings stand in it, asks.
 * @param {File} file
 * @returns {Promise<{what: "picture" | "nothing"} | {what: "settings", request: any}>}
 */
export async function askWhat(file) {
  const request = file.type === "image/png" && file.size < MOST ? requestIn(await settingsIn(file)) : null;
  if (!request) return { what: "picture" };
  const what = await question(file, request);
  return what === "settings" ? { what, request } : { what };
}

/** @returns {Promise<"picture" | "settings" | "nothing">} */
function question(file, request) {
  return new Promise((resolve) => {
    const url = URL.createObjectURL(file);
    const answer = (value) => () => dialog.close(value);
    const words = el("div.offer-words", {}, el("h2", { id: "offer-title", text: "This picture was made here" }), el("p.muted", { text: titleOf(request) }));
    const row = el(
      "div.row.end.wrap",
      {},
      button({ name: "Use as a picture", icon: "image", onclick: answer("picture") }),
      button({ name: "Reuse its settings", icon: "words", look: "primary", onclick: answer("settings") }),
    );
    const closer = button({ name: "Close", icon: "close", label: false, look: "quiet offer-close", key: "Esc", onclick: answer("nothing") });
    const dialog = el("dialog.offer", { "aria-labelledby": "offer-title" }, el("div.offer-head", {}, el("img", { src: url, alt: "" }), words, closer), row);
    dialog.addEventListener("close", () => {
      dialog.remove();
      URL.revokeObjectURL(url);
      resolve(dialog.returnValue || "nothing");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
