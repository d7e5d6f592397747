/**
 * Elements made from words: no markup is ever parsed, so a prompt or a file name can never become script.
 */

/**
 * @param {string} tag "div", or "div.tile.wide" with its classes
 * @param {Record<string, any>} [given] attributes; `on*` adds a listener, `text` sets the text, false and null are left out
 * @param {...(Node | string | null | false)} children
 * @returns {any}
 */
export function el(tag, given = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "text") made.textContent = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked") made[key] = value;
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null && child !== false && child !== undefined));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** Drawn on a 20 x 20 grid with a 1.5 px pen. */
const DRAWINGS = {
  brush: "M4 16c3 .5 4.5-1 4.5-3M8 12l7-8.500c1-1 2.5.5 1.5 1.500L9.5 13.5",
  chevronDown: "M4 7.500l6 6 6-6",
  chevronLeft: "M12 4l-6 6 6 6",
  chevronRight: "M8 4l6 6-6 6",
  chevronUp: "M4 12.500l6-6 6 6",
  close: "M5 5l10 10M15 5L5 15",
  check: "M4 10.500l4 4 8-9",
  dice: "M4 4h12v12H4zM7.5 7.500v.01M12.5 7.500v.01M10 10v.01M7.5 12.500v.01M12.5 12.500v.01",
  download: "M10 3v10M6 9.500l4 4 4-4M4 16.500h12",
  edit: "M4 16l1-4 8.5-8.5 3 3L8 15zM11.5 5.500l3 3",
  eraser: "M4 13l7.5-8.5 5 4.500L10 16.500H7zM7.5 9l5 4.500M5 16.500h12",
  fit: "M4 8V4h4M12 4h4v4M16 12v4h-4M8 16H4v-4",
  folder: "M3 5.500h5l1.5 2H17v8.500H3z",
  frame: "M6 2v16M14 2v16M2 6h16M2 14h16",
  grip: "M7.5 5v.01M12.5 5v.01M7.5 10v.01M12.5 10v.01M7.5 15v.01M12.5 15v.01",
  hand: "M6.5 10V5.500a1 1 0 0 1 2 0V9 4a1 1 0 0 1 2 0v5-4.500a1 1 0 0 1 2 0V9.5 6.500a1 1 0 0 1 2 0V12c0 3-2 5-4.5 5-2 0-3-1-4-2.500L4 11.500c-.5-1 .8-2 1.5-1z",
  help: "M7.5 7.500a2.5 2.5 0 1 1 3.5 2.500c-.7.4-1 .8-1 1.700M10 14.500v.01",
  image: "M3 4h14v12H3zM3 13l4-4 4 4 2-2 4 4M13 7.500v.01",
  keyboard: "M2.5 5.500h15v9h-15zM5.5 8.500v.01M8.5 8.500v.01M11.5 8.500v.01M14.5 8.500v.01M6.5 11.500h7",
  minus: "M4 10h12",
  more: "M4.5 10v.01M10 10v.01M15.5 10v.01",
  play: "M6 4l10 6-10 6z",
  pause: "M7 4v12M13 4v12",
  plus: "M10 4v12M4 10h12",
  redo: "M13 4l4 4-4 4M17 8H8a4.5 4.5 0 0 0 0 9h3",
  retry: "M16 5v4h-4M15.5 9A6 6 0 1 0 16 12",
  search: "M9 3.500a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM13 13l4 4",
  sparkle: "M10 3l1.5 5.500L17 10l-5.5 1.500L10 17l-1.5-5.500L3 10l5.5-1.500z",
  share: "M10 3v9M6.5 6L10 2.500 13.5 6M6 9H4.500v8h11V9H14",
  swap: "M4 7h11M12 4l3 3-3 3M16 13H5M8 10l-3 3 3 3",
  tune: "M3 6h7M14 6h3M3 14h3M10 14h7M10 6a2 2 0 1 0 4 0 2 2 0 0 0-4 0zM6 14a2 2 0 1 0 4 0 2 2 0 0 0-4 0z",
  trash: "M4 6h12M8 6V4h4v2M5.5 6l.8 10.500h7.400L14.5 6",
  undo: "M7 4L3 8l4 4M3 8h9a4.5 4.5 0 0 1 0 9H9",
  upload: "M10 14V4M6 7.500l4-4 4 4M4 16.500h12",
  variations: "M3 3h6v6H3zM11 3h6v6h-6zM3 11h6v6H3zM11 11h6v6h-6z",
  blend: "M7.5 5a5 5 0 1 0 0 10 5 5 0 0 0 0-10zM12.5 5a5 5 0 1 0 0 10 5 5 0 0 0 0-10z",
  words: "M3 6h14M3 10h9M3 14h12",
};

/** @param {keyof typeof DRAWINGS} name */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const path = document.createElementNS(SVG, "path");
  for (const [key, value] of Object.entries({ viewBox: "0 0 20 20", width: "20", height: "20", "aria-hidden": "true", class: "icon" })) {
    svg.setAttribute(key, value);
  }
  path.setAttribute("d", DRAWINGS[name]);
  svg.append(path);
  return svg;
}

const SPOKEN = { Ctrl: "Control", Esc: "Escape", "←": "ArrowLeft", "→": "ArrowRight", "+": "Plus" };
const shortcut = (key) => SPOKEN[key] ?? key.split("+").map((part) => SPOKEN[part] ?? part).join("+");

/**
 * A button with an icon; without `label` beside it the name is told to a screen reader and shown as a tip.
 * @param {{name: string, icon?: keyof typeof DRAWINGS, label?: boolean, look?: string, key?: string, onclick: (event: MouseEvent) => void}} given
 */
export function button({ name, icon: drawing, label = true, look = "", key, onclick }) {
  const made = el("button", { type: "button", class: `${look}${label ? "" : " icon-only"}`.trim(), onclick });
  if (drawing) made.append(icon(drawing));
  if (label) made.append(el("span", { text: name }));
  made.setAttribute("aria-label", name);
  if (!label || key) made.title = key ? `${name} (${key})` : name;
  if (key) made.setAttribute("aria-keyshortcuts", shortcut(key));
  return made;
}

/** A switch, its label and what it means. @param {{id: string, name: string, label: string, hint: string, onchange: (on: boolean) => void}} given */
export function toggle({ id, name, label, hint, onchange }) {
  const box = el("input", { type: "checkbox", id, name, role: "switch", "aria-describedby": `${id}-hint`, onchange: () => onchange(box.checked) });
  return { box, element: el("div.switch", {}, box, el("label", { for: id, text: label }), el("p.hint", { id: `${id}-hint`, text: hint })) };
}

/** Tells a screen reader something that is seen elsewhere. */
export function announce(text) {
  const place = document.getElementById("announcer");
  place.textContent = "";
  requestAnimationFrame(() => (place.textContent = text));
}

/** Says something at the foot of the page for a while; failures stay until they are dismissed. */
export function toast(text, { failure = false } = {}) {
  const place = document.getElementById("toasts");
  const made = el("div.toast", { "data-kind": failure ? "failure" : "note" }, el("span", { text }));
  made.append(button({ name: "Dismiss", icon: "close", label: false, look: "quiet", onclick: () => made.remove() }));
  while (place.children.length > 3) place.firstChild.remove();
  place.append(made);
  if (!failure) setTimeout(() => made.remove(), 5000);
}

/** A question with two answers, as a dialog. @returns {Promise<boolean>} */
export function ask(question, { yes, danger = false }) {
  return new Promise((resolve) => {
    const dialog = el("dialog.small", { "aria-label": question }, el("p", { text: question }));
    const answer = (value) => () => dialog.close(value);
    const row = el("div.row.end", {}, button({ name: "Keep", look: "quiet", onclick: answer("") }));
    row.append(button({ name: yes, look: danger ? "danger" : "primary", onclick: answer("yes") }));
    dialog.append(row);
    dialog.addEventListener("close", () => (dialog.remove(), resolve(dialog.returnValue === "yes")));
    document.body.append(dialog);
    dialog.showModal();
  });
}

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
