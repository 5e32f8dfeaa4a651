/** The time bar: live, held, or at an earlier time. */

import { clock, find, make, setText } from "./dom.js";
import { showDuration } from "./numbers.js";

const SETTLED = 120;

export class TimeBar {
  /** @param {{onTime: (at: ?number) => void, onBack: (seconds: number) => void}} hooks */
  constructor(hooks) {
    this.hooks = hooks;
    this.slider = find("time");
    this.flags = find("flags");
    this.text = find("time-text");
    this.from = find("time-from");
    this.slider.addEventListener("input", () => {
      clearTimeout(this.#waiting);
      const at = Number(this.slider.value);
      this.#dragged = at;
      setText(this.text, clock(at));
      this.#waiting = setTimeout(() => {
        this.#dragged = null;
        this.hooks.onTime(at >= Number(this.slider.max) ? null : at);
      }, SETTLED);
    });
    for (const button of document.querySelectorAll("[data-back]")) {
      button.addEventListener("click", () => this.hooks.onBack(Number(button.dataset.back)));
    }
  }

  #waiting = 0;
  #dragged = null;
  #flagKey = "";

  /**
   * @param {import("./frames.js").State} live
   * @param {?number} at the shown time; null while live
   */
  draw(live, at) {
    const { history } = live;
    const to = Math.floor(history?.to ?? live.time);
    const from = Math.ceil(history?.from ?? to);
    const possible = to - from >= 2;
    this.slider.disabled = !possible;
    for (const button of document.querySelectorAll("[data-back]")) button.disabled = !possible;
    this.slider.min = from;
    this.slider.max = Math.max(to, from + 1);
    setText(this.from, possible ? `from ${clock(from)}` : "no past yet");
    if (this.#dragged === null) {
      this.slider.value = at ?? this.slider.max;
      setText(this.text, at === null ? "now" : `${clock(at)}, ${showDuration(Math.max(0, live.time - at))} ago`);
      this.slider.setAttribute("aria-valuetext", at === null ? "now" : clock(at));
    }
    this.#drawFlags(live.notes, from, to);
  }

  #drawFlags(notes, from, to) {
    const shown = notes.filter(({ t, kind }) => t >= from && t <= to && kind !== "connect").slice(-100);
    const key = `${from} ${to} ${shown.length}`;
    if (key === this.#flagKey) return;
    this.#flagKey = key;
    while (this.flags.children.length > shown.length) this.flags.lastChild.remove();
    while (this.flags.children.length < shown.length) this.flags.append(make("i"));
    shown.forEach(({ t, kind, text }, at) => {
      const flag = this.flags.children[at];
      flag.className = kind;
      flag.title = `${clock(t)} ${text}`;
      flag.style.left = `${(100 * (t - from)) / Math.max(1, to - from)}%`;
    });
  }
}
