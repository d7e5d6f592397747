/**
 * How pictures leave for a file or another program: with or without what made them inside, with or without the signature,
 * which the server draws. The choice is this browser's and holds until it is changed; before that, the server's own.
 */

import { hasKey, imageUrl, send } from "./api.js";
import { el, toggle } from "./dom.js";

const KEPT = "unclip.leaving";
const WORDS = {
  settings: ["Settings inside", "The prompt, the seed and the rest stand in the file, so that it can be made again."],
  signature: ["Signature", "Five small coloured squares in the lower right corner."],
};

/** @typedef {{settings: boolean, signature: boolean}} Choice */

function kept() {
  try {
    const found = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
    return Object.fromEntries(Object.keys(WORDS).filter((name) => typeof found[name] === "boolean").map((name) => [name, found[name]]));
  } catch {
    return {};
  }
}

class Leaving {
  /** @type {Choice} */
  #choice = { settings: true, signature: false, ...kept() };
  #boxes = new Set();

  /** Takes the server's habit where nothing was chosen. @param {import("./api.js").ServerConfig} config */
  begin(config) {
    this.#choice = { settings: true, signature: config.signature, ...kept() };
  }

  #set(name, value) {
    this.#choice = { ...this.#choice, [name]: value };
    try {
      localStorage.setItem(KEPT, JSON.stringify({ ...kept(), [name]: value }));
    } catch {
      // A full or forbidden storage only costs the memory of the choice.
    }
    for (const box of this.#boxes) box.checked = this.#choice[box.name];
  }

  /** A switch for each choice; all that are on the page agree. @param {string} place in the page, for ids */
  switches(place) {
    const rows = Object.entries(WORDS).map(([name, [label, hint]]) => {
      const { box, element } = toggle({ id: `${place}-${name}`, name, label, hint, onchange: (on) => this.#set(name, on) });
      box.checked = this.#choice[name];
      this.#boxes.add(box);
      return element;
    });
    return el("fieldset.switches", {}, el("legend", { text: "Downloads" }), ...rows);
  }

  #url = (id) => `${imageUrl(id)}?${new URLSearchParams({ settings: this.#choice.settings, signature: this.#choice.signature })}`;

  /** The file of a picture, as it shall leave. @returns {Promise<File>} */
  async file(id, name) {
    const blob = await (await send(this.#url(id))).blob();
    return new File([blob], name, { type: "image/png" });
  }

  /** Hands a picture to the browser's downloads. */
  async download(id, name) {
    const link = el("a", { download: name, href: this.#url(id) });
    if (hasKey()) {
      link.href = URL.createObjectURL(await this.file(id, name));
      setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    }
    link.click();
  }

  /** Hands a picture to another program: by the system's own sheet, else through the clipboard. @returns {Promise<"shared" | "copied">} */
  async share(id, name) {
    const asked = this.file(id, name);
    if (canShare()) {
      await navigator.share({ files: [await asked] }).catch((error) => {
        if (error.name !== "AbortError") throw error; // the sheet was closed
      });
      return "shared";
    }
    await navigator.clipboard.write([new ClipboardItem({ "image/png": asked })]);
    return "copied";
  }
}

/** Whether the system has a sheet that takes files. */
export const canShare = () => navigator.canShare?.({ files: [new File([], "a.png", { type: "image/png" })] }) ?? false;

export const leaving = new Leaving();
