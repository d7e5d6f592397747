/** The fold under the prompt: how many, how large, which seed, how long. What is empty is the model's own choice. */

import { button, el, toggle } from "./dom.js";
import { leaving } from "./leaving.js";

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
const AS_TYPED = "The model gets the words as they are, also those that it does not know.";
const STRAY = "How far the variations stray: 0 is the picture itself, 1 is far. Empty: as far as the model goes.";

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

/** The seed's field, with a die beside it. */
function seedField(onInput) {
  const element = number("seed", "Seed", onInput);
  const input = element.querySelector("input");
  const roll = () => {
    input.value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
    onInput("seed", input.value);
  };
  const paired = el("div.paired");
  input.replaceWith(paired);
  paired.append(input, button({ name: "Draw a seed", icon: "dice", label: false, look: "quiet", onclick: roll }));
  return element;
}

/**
 * @param {import("./api.js").ServerConfig} config
 * @param {(name: string, value: string | boolean) => void} onInput
 */
export function createSettings(config, onInput) {
  const counts = Array.from({ length: config.max_n }, (_, index) => [String(index + 1), String(index + 1)]);
  const sizes = [["", "Model’s own"], ...config.sizes.map((size) => [String(size), `${size}`])];
  const count = choice("n", "Pictures", counts, onInput);
  const row = el("div.settings-row", {}, count, choice("size", "Size in px", sizes, onInput));
  if (config.models.length > 1) {
    const select = el("select", { onchange: () => onInput("model", select.value) });
    select.append(...config.models.map((model) => el("option", { value: model, text: model })));
    row.append(field("model", "Model", select));
  }
  const eta = number("eta", "Eta", onInput);
  const common = el("div.fields", {}, seedField(onInput), number("steps", "Steps", onInput), number("guidance", "Guidance", onInput), eta);
  const asTyped = toggle({ id: "field-as_typed", name: "as_typed", label: "As typed", hint: AS_TYPED, onchange: (on) => onInput("as_typed", on) });
  const finer = el("div.fields", {}, ...[
    ["prior_steps", "Prior steps"], ["prior_guidance", "Prior guidance"], ["upsampler_steps", "Upsampler steps"],
  ].map(([name, label]) => number(name, label, onInput)), asTyped.element);
  const body = el("div.settings-body", {}, row, common, finer, leaving.switches("fold"));
  return {
    element: body,
    /** @param {import("./form.js").Form} form @param {string} task that it is for now */
    show(form, task) {
      count.hidden = task === "interpolate";
      eta.querySelector("label").textContent = task === "variations" ? "Difference" : "Eta";
      eta.querySelector(".hint").textContent = task === "variations" ? STRAY : HINTS.eta;
      for (const each of row.querySelectorAll("input, select")) {
        if (each.type === "radio") each.checked = each.value === form[each.name];
        else each.value = form[each.name] || config.models[0];
      }
      asTyped.box.checked = form.as_typed;
      for (const each of body.querySelectorAll("input[type=number]")) if (each.value !== form[each.name]) each.value = form[each.name];
    },
  };
}
