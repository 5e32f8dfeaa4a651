/** The sources: a chip for each, and a list with all that is known. */

import { clock, find, make, setText } from "./dom.js";
import { showDuration, showRate, showValue } from "./numbers.js";

const MAX_CHIPS = 5;
/** How sources fare, the worst first. */
const LOOKS = ["bad", "wait", "good"];
const FARES = { connected: "good", recording: "good", connecting: "wait", reading: "wait" };

const fares = ({ state }) => FARES[state] ?? "bad";
const count = (number) => showValue(number, null, { whole: true, width: 11 });

/** The state of a source: since when, why, and how far behind its data are. */
function described({ state, since, detail, lag }, time) {
  const duration = since ? ` ${showDuration(Math.max(0, time - since))}` : "";
  const behind = lag ? `, messages behind: ${count(lag)}` : "";
  return `${state}${duration}${detail ? `: ${detail}` : ""}${behind}`;
}

/** Return the sources, those with problems first. */
function ordered({ sources }) {
  const all = [...sources.values()];
  return LOOKS.flatMap((look) => all.filter((source) => fares(source) === look));
}

export class Sources {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.place = find("sources");
  }

  /** Draw the chips, in place: one may be under the mouse. */
  draw(live) {
    const all = ordered(live);
    const shown = all.slice(0, MAX_CHIPS);
    const more = all.length - MAX_CHIPS;
    if (more > 0) shown.push({ brief: `${more} more`, state: "" });
    const { children } = this.place;
    while (children.length > shown.length) this.place.lastChild.remove();
    while (children.length < shown.length) {
      const parts = ["dot", "text", "state", "missed", "restarts"].map((name) => make("span", { class: name }));
      this.place.append(make("button", {}, ...parts));
    }
    shown.forEach((source, at) => {
      const { no, name, brief, state, missed, restarts } = source;
      const chip = children[at];
      const look = fares(all[at]);
      const text = described(source, live.time);
      const chooses = all.length > 1 && name;
      chip.className = `chip ${look}`;
      chip.title = name ? `${name}: ${text}` : "list all sources";
      chip.onclick = () => (chooses ? this.app.set("source", no) : this.app.showSources());
      chip.ariaPressed = chooses ? no === this.app.rows.source : null;
      const parts = ["", brief, look === "good" ? state : text,
        missed ? `missed ${count(missed)}` : "", restarts ? `↻ ${count(restarts)}` : ""];
      parts.forEach((part, index) => setText(chip.children[index], part));
    });
  }

  /** Fill the list, and that of what happened last. */
  fillList(live) {
    const { sources, notes, time } = live;
    const cell = (text, name = "number") => make("td", { class: name }, text);
    const rows = ordered(live).map((source) => make("tr", {},
      make("th", { scope: "row" },
        make("button", { onclick: () => this.app.set("source", source.no) }, source.name)),
      cell(described(source, time), fares(source)),
      cell(showRate(source.rate, null, { width: 9 })),
      cell(count(source.missed), source.missed ? "number bad" : "number"),
      cell(count(source.restarts))));
    const titles = ["source", "state", "events", "missed", "restarts"]
      .map((title) => make("th", { scope: "col" }, title));
    const happened = notes.toReversed().slice(0, 50).map(({ t, kind, source, text }) =>
      make("li", { class: kind }, make("time", {}, clock(t)), ` ${sources.get(source)?.name ?? ""}: ${text}`));
    find("source-list").replaceChildren(
      make("table", {}, make("thead", {}, make("tr", {}, ...titles)), make("tbody", {}, ...rows)),
      make("h3", {}, "What happened"),
      make("ol", {}, ...happened),
      happened.length ? "" : "No loss, restart or disconnection yet.");
  }
}
