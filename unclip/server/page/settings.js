/** The fold under the prompt: how many, how large, which seed, how long. What is empty is the model's own choice. */

import { button, el } from "./dom.js";

const LIMITS = {
  seed: { min: 0, step: 1, max: Number.MAX_SAFE_INTEGER },
  steps: { min: 1, step: 1, max: 1000 },
  guidance: { min: 0, step: 0.1, max: 100 },
  prior_steps: { min: 1, step: 1, max: 1000 },
  prior_guidance: { min: 0, step: 0.1, max: 100 },
  upsampler_steps: { min: 1, step: 1, max: 1000 },
  eta: { min: 0, step: 0.05, max: 1 },
};

const HINTS = {
  seed: "The same seed gives the same picture; the second picture has the next one.",
  steps: "More steps take longer and are finer.",
  guidance: "How closely the picture follows the words; 1 is off.",
  prior_steps: "Steps from words to the idea of a picture.",
  prior_guidance: "How closely that idea follows the words.",
  upsampler_steps: "Steps of each enlargement.",
  eta: "Fresh noise at each step, 0 to 1.",
};

/** A label, its input, what it means, and the place of its failure. */
export function field(name, label, input, hint) {
  input.id = `field-${name}`;
  input.name = name;
  input.setAttribute("aria-describedby", `hint-${name} error-${name}`);
  return el(
    "div.field",
    { "data-field": name },
    el("label", { for: input.id, text: label }),
    input,
    el("p.hint", { id: `hint-${name}`, text: hint ?? "" }),
    el("p.field-error", { id: `error-${name}`, role: "alert" }),
  );
}

function number(name, label, onInput) {
  const input = el("input", { type: "number", inputmode: "decimal", placeholder: name === "seed" ? "any" : "model's", ...LIMITS[name] });
  input.addEventListener("input", () => onInput(name, input.value));
  return field(name, label, input, HINTS[name]);
}

function choice(name, legend, values, onInput) {
  const group = el("fieldset.segments", { "data-field": name }, el("legend", { text: legend }));
  const row = el("div.segments-row");
  for (const [value, text] of values) {
    const input = el("input.unseen", { type: "radio", name, value, id: `${name}-${value || "own"}`, onchange: () => onInput(name, value) });
    row.append(input, el("label", { for: input.id, text }));
  }
  group.append(row, el("p.field-error", { id: `error-${name}`, role: "alert" }));
  return group;
}

/**
 * @param {import("./api.js").ServerConfig} config
 * @param {(name: string, value: string) => void} onInput
 */
export function createSettings(config, onInput) {
  const counts = Array.from({ length: config.max_n }, (_, index) => [String(index + 1), String(index + 1)]);
  const sizes = [["", "Model’s own"], ...config.sizes.map((size) => [String(size), `${size}`])];
  const body = el("div.settings-body");
  const row = el("div.settings-row", {}, choice("n", "Pictures", counts, onInput), choice("size", "Size in px", sizes, onInput));
  if (config.models.length > 1) {
    const select = el("select", { onchange: () => onInput("model", select.value) });
    select.append(...config.models.map((model) => el("option", { value: model, text: model })));
    row.append(field("model", "Model", select));
  }
  const seed = number("seed", "Seed", onInput);
  const input = seed.querySelector("input");
  const roll = () => {
    input.value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
    onInput("seed", input.value);
  };
  const paired = el("div.paired");
  input.replaceWith(paired);
  paired.append(input, button({ name: "Draw a seed", icon: "dice", label: false, look: "quiet", onclick: roll }));
  const common = el("div.fields", {}, seed, number("steps", "Steps", onInput), number("guidance", "Guidance", onInput));
  const finer = el("div.fields", {}, ...[
    ["prior_steps", "Prior steps"], ["prior_guidance", "Prior guidance"], ["upsampler_steps", "Upsampler steps"], ["eta", "Eta"],
  ].map(([name, label]) => number(name, label, onInput)));
  body.append(row, common, finer);
  return {
    element: body,
    /** @param {import("./form.js").Form} form */
    show(form) {
      for (const each of body.querySelectorAll("input, select")) {
        if (each.type === "radio") each.checked = each.value === form[each.name];
        else if (document.activeElement !== each) each.value = form[each.name] || (each.tagName === "SELECT" ? config.models[0] : "");
      }
    },
  };
}
