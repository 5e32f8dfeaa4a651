/** The sources: a chip for each, and a list with all that is known. */

import { clock, find, make, setText } from "./dom.js";
import { showDuration, showRate, showValue } from "./numbers.js";
import { counted } from "./text.js";

/** If there are more, one chip counts them by state. */
const MAX_CHIPS = 5;
/** How sources fare, the worst first. */
const LOOKS = ["bad", "wait", "good"];
const FARES = { connected: "good", recording: "good", connecting: "wait", reading: "wait" };

const fares = ({ state }) => FARES[state] ?? "bad";
const count = (number) => showValue(number, null, { whole: true, width: 11 });

/** The state of a source, since when, and why. */
function described({ state, since, detail }, time) {
  const duration = since ? ` ${showDuration(Math.max(0, time - since))}` : "";
  return `${state}${duration}${detail ? `: ${detail}` : ""}`;
}

export class Sources {
  /** @param {import("./app.js").App} app */
  constructor(app) {
    this.app = app;
    this.place = find("sources");
  }

  draw({ sources, time }) {
    const all = [...sources.values()];
    const chips = all.length > MAX_CHIPS ? [this.#summary(all)] : all.map((source) => {
      const text = described(source, time);
      return { ...source, look: fares(source), text: fares(source) === "good" ? source.state : text, title: `${source.name}: ${text}` };
    });
    const { children } = this.place;
    while (children.length > chips.length) this.place.lastChild.remove();
    while (children.length < chips.length) {
      this.place.append(make("button", { type: "button" }, make("span", { class: "dot", "aria-hidden": "true" }),
        ...["text", "state", "missed", "restarts"].map((name) => make("span", { class: name }))));
    }
    chips.forEach(({ no, look, title, brief, text, missed, restarts }, at) => {
      const chip = children[at];
      chip.className = `chip ${look}`;
      chip.title = title;
      chip.onclick = () => (chips.length > 1 ? this.app.chooseSource(no) : this.app.showSources());
      chip.ariaPressed = chips.length > 1 ? no === this.app.rows.source : null;
      const texts = [brief, text, missed ? `missed ${count(missed)}` : "", restarts ? `↻ ${count(restarts)}` : ""];
      texts.forEach((part, place) => setText(chip.children[place + 1], part));
    });
  }

  #summary(all) {
    const states = Object.entries(Object.groupBy(all, ({ state }) => state));
    return {
      look: LOOKS.find((look) => all.some((source) => fares(source) === look)),
      title: "list all sources",
      brief: `${all.length.toLocaleString("en")} sources`,
      text: states.map(([state, some]) => `${some.length} ${state}`).join(", "),
      missed: all.reduce((sum, { missed }) => sum + missed, 0),
    };
  }

  /** Fill the list: sources with problems first, and what happened last. */
  fillList({ sources, notes, time }) {
    const all = [...sources.values()].sort((a, b) => LOOKS.indexOf(fares(a)) - LOOKS.indexOf(fares(b)) || a.no - b.no);
    const cell = (text, name = "number") => make("td", { class: name }, text);
    const rows = all.map((source) => make("tr", {},
      make("th", { scope: "row" },
        make("button", { type: "button", class: "link", onclick: () => this.app.chooseSource(source.no) }, source.name)),
      cell(described(source, time), fares(source)),
      cell(showRate(source.rate, null, { width: 9 })),
      cell(count(source.missed), source.missed ? "number bad" : "number"),
      cell(count(source.restarts)),
      cell(source.lag ? counted(source.lag, "message") : "")));
    const titles = ["source", "state", "events", "missed", "restarts", "behind"];
    const events = notes.toReversed().slice(0, 50).map(({ t, kind, source, text }) =>
      make("li", { class: kind }, make("time", {}, clock(t)), ` ${sources.get(source)?.name ?? ""}: ${text}`));
    find("source-list").replaceChildren(
      make("table", {},
        make("thead", {}, make("tr", {}, ...titles.map((title) => make("th", { scope: "col" }, title)))),
        make("tbody", {}, ...rows)),
      make("h3", {}, "What happened"),
      events.length ? make("ol", { class: "notes" }, ...events)
        : make("p", { class: "help" }, "No loss, restart or disconnection since this page follows."));
  }
}
