/**
 * Server-sent events over fetch: unlike EventSource it can say Last-Event-ID after a reload, send a key, and be told apart
 * when it fails. Streams rest while the tab is hidden, since a browser opens only six connections to one server.
 */

import { send } from "./api.js";

const FIRST_WAIT = 400;
const LONGEST_WAIT = 8000;
const QUIET = 40_000; // the server pings each 15 s: after this the connection is dead, as after sleep

/**
 * @param {string} path
 * @param {object} given
 * @param {number} [given.after] the last event that is already known
 * @param {(kind: string, data: any, id: number) => void} given.onEvent
 * @param {(state: "live" | "waiting" | "over", error?: Error) => void} given.onState
 * @param {(id: number) => boolean} [given.isOver] asked when the server ends the stream: whether that was the end of it all
 * @returns {{close: () => void, wake: () => void}}
 */
export function openStream(path, { after = 0, onEvent, onState, isOver = () => false }) {
  const controller = new AbortController();
  let last = after;
  let wait = FIRST_WAIT;
  let wake = () => {};
  let attempt = null;

  const run = async () => {
    while (!controller.signal.aborted) {
      attempt = new AbortController();
      const stop = () => attempt.abort();
      controller.signal.addEventListener("abort", stop);
      let failure;
      try {
        const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": String(last) } : {}) };
        const response = await send(path, { headers, signal: attempt.signal });
        wait = FIRST_WAIT;
        onState("live");
        await readEvents(response.body, attempt, (kind, data, id) => {
          if (id) last = id;
          onEvent(kind, data, id);
        });
        if (isOver(last)) return onState("over");
      } catch (error) {
        failure = error;
        if (error.status >= 400 && error.status < 500 && error.status !== 429) return onState("over", error);
      } finally {
        controller.signal.removeEventListener("abort", stop);
      }
      if (controller.signal.aborted) return;
      onState("waiting", failure);
      await new Promise((resolve) => {
        wake = resolve;
        setTimeout(resolve, wait * (0.75 + Math.random() / 4));
      });
      wait = Math.min(LONGEST_WAIT, wait * 2);
    }
  };
  run();
  return { close: () => (controller.abort(), wake()), wake: () => wake() };
}

/** Reads one connection to its end; a connection that is silent for too long is given up. */
async function readEvents(body, attempt, tell) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let watchdog = setTimeout(() => attempt.abort(), QUIET);
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(watchdog);
      watchdog = setTimeout(() => attempt.abort(), QUIET);
      const blocks = (text + value).replaceAll("\r\n", "\n").split("\n\n");
      text = blocks.pop();
      for (const block of blocks) readBlock(block, tell);
    }
  } finally {
    clearTimeout(watchdog);
  }
}

function readBlock(block, tell) {
  const fields = { event: "message", data: [], id: 0 };
  for (const line of block.split("\n")) {
    const [, name, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
    if (name === "data") fields.data.push(value);
    else if (name === "event") fields.event = value;
    else if (name === "id") fields.id = Number(value) || 0;
  }
  if (fields.data.length) tell(fields.event, JSON.parse(fields.data.join("\n")), fields.id);
}
