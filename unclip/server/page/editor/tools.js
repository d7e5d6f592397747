/** The editor's tools beside the canvas. */

import { button, el, icon } from "../dom.js";

export const TOOLS = {
  brush: { name: "Brush", key: "B", tip: "Paint over what shall be made anew" },
  eraser: { name: "Eraser", key: "E", tip: "Take the mask away again" },
  frame: { name: "Frame", key: "F", tip: "Move the square that is painted, also past the edge" },
  hand: { name: "Hand", key: "H", tip: "Move the canvas" },
};

/**
 * @param {object} actions
 * @param {(tool: string) => void} actions.tool
 * @param {(radius: number) => void} actions.radius
 * @param {(side: number) => void} actions.side of the frame
 * @param {Record<"undo" | "redo" | "all" | "none" | "open" | "save" | "fit" | "closer" | "wider", () => void>} actions.act
 */
export function createTools({ tool, radius, side, act }) {
  const radios = Object.entries(TOOLS).map(([value, { name, key, tip }]) => {
    const input = el("input.unseen", { type: "radio", name: "tool", value, id: `tool-${value}`, "aria-keyshortcuts": key, onchange: () => tool(value) });
    return [input, el("label.tool", { for: input.id, title: `${name} (${key}): ${tip}` }, icon(value), el("span", { text: name }))];
  });
  const size = el("input", { type: "range", id: "brush-size", min: 1, max: 100, value: 20, oninput: () => radius(Number(size.value)) });
  const sides = el("select", { id: "frame-side", onchange: () => side(Number(sides.value)) });
  const icons = (name, drawing, what, key) => button({ name, icon: drawing, label: false, look: "quiet", key, onclick: act[what] });
  const undo = icons("Undo", "undo", "undo", "Ctrl+Z");
  const redo = icons("Redo", "redo", "redo", "Ctrl+Shift+Z");
  const all = button({ name: "Cover the frame", look: "quiet", onclick: act.all });
  const none = button({ name: "Clear the mask", look: "quiet", onclick: act.none });
  const zoomed = el("output.zoom-value", { "aria-label": "Zoom" });
  const element = el(
    "div.tools",
    { role: "group", "aria-label": "Tools" },
    el("fieldset.tool-set", {}, el("legend.unseen", { text: "Tool" }), ...radios.flat()),
    el("div.tool-part", {}, el("label", { for: "brush-size", text: "Brush size" }), size),
    el("div.tool-part", {}, el("label", { for: "frame-side", text: "Frame" }), sides),
    el("div.tool-part", {}, all, none),
    el("div.tool-part.icons", {}, undo, redo),
    el("div.tool-part.last", {}, button({ name: "Open", icon: "upload", look: "quiet", onclick: act.open }), button({ name: "Download", icon: "download", look: "quiet", onclick: act.save })),
  );
  const zoom = el("div.zoom", { role: "group", "aria-label": "Zoom" }, icons("Zoom out", "minus", "wider", "-"), zoomed, icons("Zoom in", "plus", "closer", "+"), icons("Fit", "fit", "fit", "0"));

  return {
    element,
    zoom,
    /** @param {{tool: string, radius: number, side: number, sides: number[], canUndo: boolean, canRedo: boolean, locked: boolean,
     *   scale: number, there: boolean}} now */
    show({ tool: chosen, radius: brush, side: width, sides: widths, canUndo, canRedo, locked, scale, there }) {
      for (const [input] of radios) Object.assign(input, { checked: input.value === chosen, disabled: locked || !there });
      size.value = String(brush);
      size.disabled = all.disabled = none.disabled = sides.disabled = locked || !there;
      if (sides.dataset.all !== widths.join()) {
        sides.dataset.all = widths.join();
        sides.replaceChildren(...widths.map((each) => el("option", { value: each, text: `${each} px` })));
      }
      sides.value = String(width);
      undo.disabled = locked || !canUndo;
      redo.disabled = locked || !canRedo;
      zoomed.textContent = `${Math.round(scale * 100)} %`;
    },
  };
}
