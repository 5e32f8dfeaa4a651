/** The sources: a chip for each, and a list with all that is known. */

import { clock, find, make, setText } from "./dom.js";
import { showDuration, showRate, showValue } from "./numbers.js";
import { counted } from "./text.js";

/** If there are more, one chip counts them by state. */
const MAX_CHIPS = 5;
const GOOD = new Set(["connected", "recording"]);
const WAITING = new Set(["connecting", "reading"]);
const RESTART_SHOWN = 60;

/** How a source fares: `good`, `wait` or `bad`. */
const fares = ({ state }) => (GOOD.has(state) ? "good" : WAITING.has(state) ? "wait" : "bad");

const count = (number) => showValue(number, null, { whole: true, width: 11 });

export class Sources {
  /**
   * @param {{onChoose: (no: ?number) => void, onList: () => void}} hooks
   */
  constructor(hooks) {
    this.hooks = hooks;
    this.place = find("sources");
    this.list = find("source-list");
    this.chosen = null;
  }

  #chips = new Map();

  draw(state) {
    const sources = [...state.sources.values()];
    if (sources.length > MAX_CHIPS) {
      this.#drawSummary(sources);
      return;
    }
    this.#remove((no) => state.sources.has(no));
    for (const source of sources) this.#drawChip(source, sources.length > 1, state);
  }

  #remove(keeps) {
    for (const [no, chip] of this.#chips) {
      if (keeps(no)) continue;
      chip.remove();
      this.#chips.delete(no);
    }
  }

  #chip(no, onclick) {
    let chip = this.#chips.get(no);
    if (!chip) {
      chip = make("button", { type: "button", class: "chip", onclick },
        make("span", { class: "dot", "aria-hidden": "true" }), make("span", { class: "text" }),
        make("span", { class: "state" }), make("span", { class: "missed" }), make("span", { class: "restarts" }));
      this.#chips.set(no, chip);
      this.place.append(chip);
    }
    return chip;
  }

  #drawChip(source, several, state) {
    const chip = this.#chip(source.no, () => (several ? this.hooks.onChoose(source.no) : this.hooks.onList()));
    const [, name, status, missed, restarts] = chip.children;
    const look = fares(source);
    chip.className = `chip ${look}`;
    if (several) chip.setAttribute("aria-pressed", this.chosen === source.no);
    setText(name, source.brief ?? source.name);
    const since = source.since ? ` ${showDuration(Math.max(0, state.time - source.since))}` : "";
    const detail = source.detail ? `: ${source.detail}` : "";
    setText(status, look === "good" ? source.state : `${source.state}${look === "bad" ? since + detail : detail}`);
    setText(missed, source.missed ? `missed ${count(source.missed)}` : "");
    setText(restarts, source.restarts ? `↻ ${count(source.restarts)}` : "");
    const restarted = state.notes.findLast((note) => note.kind === "restart" && note.source === source.no);
    restarts.classList.toggle("fresh", !!restarted && state.time - restarted.t < RESTART_SHOWN);
    chip.title = `${source.name}: ${source.state}${since}${detail}` +
      (source.lag ? `, ${counted(source.lag, "message")} behind` : "");
  }

  #drawSummary(sources) {
    this.#remove((no) => no === -1);
    const chip = this.#chip(-1, () => this.hooks.onList());
    const [, name, status, missed] = chip.children;
    const states = new Map();
    for (const source of sources) states.set(source.state, (states.get(source.state) ?? 0) + 1);
    const worst = ["bad", "wait", "good"].find((look) => sources.some((source) => fares(source) === look));
    chip.className = `chip ${worst}`;
    setText(name, `${sources.length.toLocaleString("en")} sources`);
    setText(status, [...states].map(([one, number]) => `${number} ${one}`).join(", "));
    const total = sources.reduce((sum, source) => sum + (source.missed ?? 0), 0);
    setText(missed, total ? `missed ${count(total)}` : "");
    chip.title = "list all sources";
  }

  /** Fill the list: sources with problems first, and what happened last. */
  fillList(state) {
    const order = ["bad", "wait", "good"];
    const sources = [...state.sources.values()]
      .sort((a, b) => order.indexOf(fares(a)) - order.indexOf(fares(b)) || a.no - b.no);
    const cell = (text, name = "") => make("td", { class: name }, text);
    const rows = sources.map((source) => make("tr", {},
      make("th", { scope: "row" }, make("button", {
        type: "button", class: "link", onclick: () => this.hooks.onChoose(source.no),
      }, source.name)),
      cell(`${source.state}${source.detail ? `: ${source.detail}` : ""}`, fares(source)),
      cell(source.since ? showDuration(Math.max(0, state.time - source.since)) : "", "number"),
      cell(source.rate == null ? "" : showRate(source.rate, null, { width: 9 }), "number"),
      cell(source.missed ? count(source.missed) : "0", source.missed ? "number bad" : "number"),
      cell(count(source.restarts ?? 0), "number"),
      cell(source.lag ? counted(source.lag, "message") : "", "number")));
    const titles = ["source", "state", "for", "events", "missed", "restarts", "behind"];
    this.list.replaceChildren(
      make("table", {},
        make("thead", {}, make("tr", {}, ...titles.map((title) => make("th", { scope: "col" }, title)))),
        make("tbody", {}, ...rows)),
      make("h3", {}, "What happened"),
      state.notes.length
        ? make("ol", { class: "notes" }, ...state.notes.toReversed().slice(0, 50).map((note) =>
          make("li", { class: note.kind }, make("time", {}, clock(note.t)),
            ` ${state.sources.get(note.source)?.name ?? ""}: ${note.text}`)))
        : make("p", { class: "help" }, "No loss, restart or disconnection since this page follows."));
  }
}
