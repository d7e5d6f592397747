/** Pictures that come in: by the file picker, dropped on the page, or pasted. Each is made upright and not too large before it goes. */

import { api, ApiError } from "./api.js";
import { el } from "./dom.js";

const LONGEST = 2048; // px: more than any model sees
const KINDS = ["image/png", "image/jpeg", "image/webp"];

/** @param {Blob} file @returns {Promise<{id: string, width: number, height: number}>} ApiError says in words what was wrong */
export async function uploadPicture(file) {
  if (!KINDS.includes(file.type)) throw new ApiError(400, { message: `${file.name || "This"} is not a PNG, JPEG or WebP picture.` });
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
  if (!bitmap) throw new ApiError(400, { message: `${file.name || "This picture"} cannot be read: it may be damaged.` });
  const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale)));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  // Drawn anew: where it was taken and by whom never leaves this computer.
  return api.upload(await canvas.convertToBlob({ type: "image/png" }));
}

const picturesOf = (items) => [...(items ?? [])].filter((file) => file.type.startsWith("image/"));

/**
 * @param {(files: File[]) => void} take
 * @returns {() => void} opens the file picker
 */
export function createPicker(take) {
  const input = el("input", { type: "file", accept: KINDS.join(), multiple: true, hidden: true, "aria-label": "Pictures from this computer" });
  document.body.append(input);
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = "";
  });
  document.addEventListener("paste", (event) => {
    const files = picturesOf(event.clipboardData?.files);
    if (!files.length) return;
    event.preventDefault();
    take(files);
  });
  return () => input.click();
}
