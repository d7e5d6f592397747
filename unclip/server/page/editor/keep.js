/** The edited picture, kept in this browser, so that a reload or a crash costs nothing. */

const STORE = "editor";
const NAME = "last";

/** @typedef {{picture: Blob, mask: Blob, origin: {x: number, y: number}, frame: import("./document.js").Frame, prompt: string,
 *   job: string | null}} Kept */

function open() {
  return new Promise((resolve, reject) => {
    const asked = indexedDB.open("unclip", 1);
    asked.onupgradeneeded = () => asked.result.createObjectStore(STORE);
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(asked.error);
  });
}

async function within(mode, what) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const asked = what(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(asked.result);
      transaction.onerror = transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

/** @param {Kept} kept @returns {Promise<boolean>} false where the browser gives no room for it */
export const keep = (kept) => within("readwrite", (store) => store.put(kept, NAME)).then(() => true, () => false);

/** @returns {Promise<Kept | null>} */
export const kept = () => within("readonly", (store) => store.get(NAME)).then((found) => found ?? null, () => null);

export const forgetKept = () => within("readwrite", (store) => store.delete(NAME)).catch(() => null);
