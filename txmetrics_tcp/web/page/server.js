/** The requests to the server: the stream, and figures for what is on the screen. */

import { FrameReader, decodeFrame } from "./frames.js";

const TOKEN = "txmetrics-token";
const STALLED = 5000;
/** A connection that is silent for longer has broken without a sign, for example in a machine's sleep. */
const BROKEN = 15000;
/** A tab that is hidden for longer gives its connection back. */
const HIDDEN = 3000;
const MAX_RETRY = 5000;

/** Take a token out of the address, so that it is in no history and no copied link. */
function takeToken() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const token = parameters.get("token");
  if (token === null) return;
  sessionStorage.setItem(TOKEN, token);
  parameters.delete("token");
  history.replaceState(null, "", `#${parameters}`);
}

export class Server {
  /**
   * @param {(frame: ReturnType<typeof decodeFrame>) => void} onFrame
   * @param {(state: string, text: string) => void} onState `live`, `connecting`, `stalled`, `lost`,
   *   `denied` or `hidden`, and the reason
   */
  constructor(onFrame, onState) {
    this.#onFrame = onFrame;
    this.#onState = onState;
    takeToken();
    document.addEventListener("visibilitychange", () => this.#seen());
    // A browser may keep a page that was left, with its connection.
    addEventListener("pagehide", () => this.#leave());
    addEventListener("pageshow", () => this.start());
    setInterval(() => this.#watch(), 1000);
  }

  #onFrame;
  #onState;
  #stop = null;
  #heard = 0;
  #hiding = 0;
  #retry = 0;
  #wait = 500;

  /** Follow the stream, also after it was lost. */
  start() {
    if (this.#stop || document.hidden) return;
    clearTimeout(this.#retry);
    this.#stop = new AbortController();
    this.#follow(this.#stop.signal);
  }

  /** Return an answer's JSON. */
  async json(path) {
    return (await this.#get(path)).json();
  }

  /** Return a frame. */
  async frame(path) {
    return decodeFrame(new Uint8Array(await (await this.#get(path)).arrayBuffer()));
  }

  async #get(path, signal) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const response = await fetch(path, { headers, signal, credentials: "omit" });
    if (response.ok) return response;
    const { error } = await response.json().catch(() => ({}));
    throw Object.assign(new Error(error ?? `status ${response.status}`), { status: response.status });
  }

  async #follow(signal) {
    this.#onState("connecting", "");
    this.#heard = performance.now();
    let reason = "the server closed the connection";
    let status = 0;
    try {
      const response = await this.#get("stream", signal);
      const body = response.body.getReader();
      const frames = new FrameReader();
      for (;;) {
        const { done, value } = await body.read();
        if (done) break;
        this.#heard = performance.now();
        this.#wait = 500;
        for (const frame of frames.push(value)) this.#onFrame(decodeFrame(frame));
        this.#onState("live", "");
      }
    } catch (error) {
      if (signal.aborted) return;
      status = error.status;
      reason = status ? error.message : "the server cannot be reached";
    }
    this.#stop?.abort();
    this.#stop = null;
    if (status === 401) {
      this.#onState("denied", "this page needs its token: open the link that has #token= in it");
      return;
    }
    this.#onState("lost", reason);
    this.#retry = setTimeout(() => this.start(), this.#wait);
    this.#wait = Math.min(MAX_RETRY, this.#wait * 2);
  }

  #watch() {
    const silent = performance.now() - this.#heard;
    if (!this.#stop || silent < STALLED) return;
    if (silent > BROKEN) {
      this.#stop.abort();
      this.#stop = null;
      this.start();
      return;
    }
    const seconds = Math.round(silent / 1000);
    this.#onState("stalled", `no data for ${seconds} s; a browser shows at most six pages of a server at once`);
  }

  #seen() {
    clearTimeout(this.#hiding);
    if (!document.hidden) {
      this.start();
      return;
    }
    this.#hiding = setTimeout(() => this.#leave(), HIDDEN);
  }

  #leave() {
    this.#stop?.abort();
    this.#stop = null;
    clearTimeout(this.#retry);
    this.#onState("hidden", "");
  }
}
