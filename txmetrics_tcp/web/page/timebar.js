/** The time bar: live, held, or at an earlier time. */

import { clock, find, make, setText } from "./dom.js";
import { showDuration } from "./numbers.js";

/** The number of milliseconds that the slider rests before the table follows it. */
const SETTLED = 120;

export class TimeBar {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.slider = find("time");
    this.text = find("time-text");
    this.slider.addEventListener("input", () => {
      clearTimeout(this.#resting);
      const { max, valueAsNumber: at } = this.slider;
      setText(this.text, clock(at));
      this.#resting = setTimeout(() => {
        this.#resting = 0;
        app.goTo(at < max ? at : null);
      }, SETTLED);
    });
  }

  #resting = 0;
  #flagKey = "";

  draw() {
    const { at, past: [from, to], live: { time, notes } } = this.app;
    const possible = to - from >= 2;
    this.slider.disabled = !possible;
    this.slider.min = from;
    this.slider.max = Math.max(to, from + 1);
    setText(find("time-from"), possible ? `from ${clock(from)}` : "no past yet");
    if (!this.#resting) {
      this.slider.value = at ?? to;
      const text = at === null ? "now" : `${clock(at)}, ${showDuration(Math.max(0, time - at))} ago`;
      setText(this.text, text);
      this.slider.ariaValueText = text;
    }
    const shown = notes.filter(({ t, kind }) => t >= from && t <= to && kind !== "connect");
    const key = `${from} ${to} ${shown.length}`;
    if (key === this.#flagKey) return;
    this.#flagKey = key;
    find("flags").replaceChildren(...shown.map(({ t, kind }) =>
      make("i", { class: kind, style: `left: ${(100 * (t - from)) / (to - from)}%` })));
  }
}
