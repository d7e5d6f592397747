/** What a PNG made here says of itself: read on this computer, before anything is sent. */

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const KEYWORD = "unclip";
const MOST = 1 << 20; // bytes of text
const TYPES = { iTXt: 0x69545874, IDAT: 0x49444154 };

/** The bytes up to the next zero, as text, and what is behind it. */
function untilZero(bytes) {
  const end = bytes.indexOf(0);
  return [new TextDecoder("latin1").decode(bytes.subarray(0, end)), bytes.subarray(end + 1)];
}

/** The text of an uncompressed iTXt chunk, if it is ours. */
function textOf(body) {
  const [keyword, behind] = untilZero(body);
  if (keyword !== KEYWORD || behind[0] !== 0) return null;
  const [, translated] = untilZero(behind.subarray(2)); // behind two bytes of compression and the language
  const [, text] = untilZero(translated);
  return new TextDecoder().decode(text);
}

/** @param {Blob} file @returns {Promise<any | null>} the settings that made it; null for a picture of another origin */
export async function settingsIn(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (SIGNATURE.some((each, index) => bytes[index] !== each)) return null;
  const view = new DataView(bytes.buffer);
  for (let at = 8; at + 12 <= bytes.length; at += 12 + view.getUint32(at)) {
    const [length, type] = [view.getUint32(at), view.getUint32(at + 4)];
    if (type === TYPES.IDAT) return null; // ours stands before the pixels
    if (type !== TYPES.iTXt || length > MOST) continue;
    const text = textOf(bytes.subarray(at + 8, at + 8 + length));
    if (text === null) continue;
    try {
      return JSON.parse(text);
    } catch {
      return null;
    }
  }
  return null;
}
