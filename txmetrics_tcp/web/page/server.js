/** The requests to the server: the stream, and figures for what is on the screen. */

import { FrameReader, decodeFrame } from "./frames.js";

const TOKEN = "txmetrics-token";
const STALLED = 5000;
/** A connection that is silent for longer has broken without a sign, for example in a machine's sleep. */
const BROKEN = 15000;
/** A tab that is hidden for longer gives its connection back. */
const HIDDEN = 3000;
const MIN_RETRY = 500;
const MAX_RETRY = 5000;

/** Take a token out of the address, so that it is in no history and no copied link. */
function takeToken() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  if (!parameters.has("token")) return;
  sessionStorage.setItem(TOKEN, parameters.get("token"));
  parameters.delete("token");
  history.replaceState(null, "", `#${parameters}`);
}

async function get(path, signal) {
  const token = sessionStorage.getItem(TOKEN);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { headers, signal, credentials: "omit" });
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw new Error(error ?? `status ${response.status}`, { cause: response.status });
}

export class Server {
  /**
   * @param {(frame: ReturnType<typeof decodeFrame>) => void} onFrame
   * @param {(state: string, text: string) => void} onState `live`, `connecting`, `stalled`, `lost`,
   *   `denied` or `hidden`, and the reason
   */
  constructor(onFrame, onState) {
    this.onFrame = onFrame;
    this.onState = onState;
    takeToken();
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.#later(() => this.#leave(), HIDDEN);
      else this.start();
    });
    // A browser may keep a page that was left, with its connection.
    addEventListener("pagehide", () => this.#leave());
    addEventListener("pageshow", () => this.start());
    setInterval(() => this.#watch(), 1000);
  }

  /** Ends the connection; null without one. */
  #stop = null;
  #timer = 0;
  #heard = 0;
  #wait = MIN_RETRY;

  /** Follow the stream, also after it was lost. */
  start() {
    if (document.hidden) return;
    clearTimeout(this.#timer);
    if (!this.#stop) this.#follow();
  }

  /** Return an answer's JSON. */
  async json(path) {
    return (await get(path)).json();
  }

  /** Return a frame. */
  async frame(path) {
    return decodeFrame(await (await get(path)).arrayBuffer());
  }

  async #follow() {
    this.onState("connecting", "");
    this.#heard = performance.now();
    this.#stop = new AbortController();
    const { signal } = this.#stop;
    let reason = "the server closed the connection";
    let status;
    try {
      const { body } = await get("stream", signal);
      const frames = new FrameReader();
      await body.pipeTo(new WritableStream({
        write: (bytes) => {
          this.#heard = performance.now();
          this.#wait = MIN_RETRY;
          this.onState("live", "");
          for (const frame of frames.push(bytes)) this.onFrame(frame);
        },
      }));
    } catch (error) {
      if (signal.aborted) return;
      status = error.cause;
      reason = status ? error.message : "the server cannot be reached";
    }
    this.#close();
    if (status === 401) {
      this.onState("denied", "this page needs its token: open the link that has #token= in it");
      return;
    }
    this.onState("lost", reason);
    this.#later(() => this.start(), this.#wait);
    this.#wait = Math.min(MAX_RETRY, this.#wait * 2);
  }

  #watch() {
    const silent = performance.now() - this.#heard;
    if (!this.#stop || silent < STALLED) return;
    this.onState("stalled", `no data for ${Math.round(silent / 1000)} s; a browser shows at most six pages of a server at once`);
    if (silent < BROKEN) return;
    this.#close();
    this.start();
  }

  #leave() {
    this.#close();
    clearTimeout(this.#timer);
    this.onState("hidden", "");
  }

  #close() {
    this.#stop?.abort();
    this.#stop = null;
  }

  /** Do something after a time, instead of what was to be done later until now. */
  #later(action, time) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(action, time);
  }
}
