/** Asks for the API key where the server wants one. */

import { setKey } from "./api.js";
import { el } from "./dom.js";

/** @param {() => void} given called once there is a new key @returns {() => void} asks, unless it is asking already */
export function createKeyAsker(given) {
  const input = el("input", { type: "password", id: "api-key", autocomplete: "off", required: true, spellcheck: "false" });
  const stay = el("input", { type: "checkbox", id: "keep-key" });
  const refused = el("p.field-error", { role: "alert" });
  let tried = false;
  const form = el(
    "form",
    { method: "dialog" },
    el("h2", { id: "key-title", text: "This server wants a key" }),
    el("p.muted", { text: "It is the API key that the server was started with." }),
    el("div.field", {}, el("label", { for: "api-key", text: "API key" }), input, refused),
    el("label.check", {}, stay, el("span", { text: "Remember it on this computer" })),
    el("div.row.end", {}, el("button.primary", { type: "submit", text: "Go on" })),
  );
  const dialog = el("dialog.small", { "aria-labelledby": "key-title" }, form);
  document.body.append(dialog);
  form.addEventListener("submit", () => {
    setKey(input.value.trim(), stay.checked);
    input.value = "";
    tried = true;
    given();
  });
  return () => {
    refused.textContent = tried ? "The server does not know this key." : "";
    if (!dialog.open) dialog.showModal();
  };
}
