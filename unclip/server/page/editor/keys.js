/** The editor's shortcuts. */

import { TOOLS } from "./tools.js";

/** @param {import("./editor.js").Editor} editor @returns {(event: KeyboardEvent) => void} */
export function keysOf(editor) {
  const { desk, making } = editor;
  const plain = {
    "[": () => editor.resize(desk.radius / 1.25), "]": () => editor.resize(desk.radius * 1.25),
    "+": () => editor.zoom(1.25), "=": () => editor.zoom(1.25), "-": () => editor.zoom(0.8), 0: () => editor.fit(),
  };
  for (const [name, { key }] of Object.entries(TOOLS)) plain[key.toLowerCase()] = () => desk.locked || editor.take(name);

  const withControl = {
    enter: () => editor.generate(),
    z: (shift) => desk.locked || (shift ? desk.undo.redo() : desk.undo.undo()),
    y: () => desk.locked || desk.undo.redo(),
  };

  /** What a key asks for, or nothing. @param {KeyboardEvent} event */
  function meant({ key, ctrlKey, metaKey, altKey, target }) {
    const letter = key.toLowerCase();
    const typing = target.matches("input[type=text], textarea, select");
    if (key === "Escape") return desk.locked ? () => making.cancel() : null;
    if (ctrlKey || metaKey) return typing && letter !== "enter" ? null : withControl[letter];
    if (typing || altKey) return null;
    if (["making", "choosing"].includes(editor.state) && /^arrow(left|right)$/.test(letter)) return () => making.cycle(letter === "arrowleft" ? -1 : 1);
    if (key === "Enter") return editor.state === "choosing" && target.tagName !== "BUTTON" ? () => making.accept() : null;
    return desk.layers && plain[letter];
  }

  return (event) => {
    const act = meant(event);
    if (!act) return;
    event.preventDefault();
    act(event.shiftKey);
  };
}
