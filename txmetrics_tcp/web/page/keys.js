/** The keys: those of the terminal viewer, as far as a page has what they do. */

import { find, make } from "./dom.js";

/** Sections of: keys as they are shown, what they do, the action, and the button that does the same. */
const sections = (app) => [
  ["Navigation", [
    ["↑ k", "previous series", () => app.table.move(-1)],
    ["↓ j", "next series", () => app.table.move(1)],
    ["PgUp", "page up", () => app.table.move(-app.table.pageSize)],
    ["PgDn", "page down", () => app.table.move(app.table.pageSize)],
    ["Home", "first series", () => app.table.choose(0)],
    ["End G", "last series", () => app.table.choose(Infinity)],
    ["Enter", "chart the series, or close its chart; fold or unfold a group", () => app.open(app.table.chosen)],
  ]],
  ["Filter, sort, group", [
    ["/", "filter as you type; Enter keeps it", () => find("filter").focus()],
    ["Esc", "go back one step: window, zoom, filter, groups, charts", () => app.stepBack()],
    ["s", "sort by the next column", () => app.step("sort", 1)],
    ["S", "sort by the previous column", () => app.step("sort", -1)],
    ["r", "reverse the order", () => app.set("sort", app.rows.sort)],
    ["g", "group by name, then by each label, then not at all", () => app.step("group", 1)],
    ["b", "previous grouping", () => app.step("group", -1)],
    ["f", "fold all groups; press again to unfold them", () => app.foldAll()],
  ]],
  ["Time", [
    ["w", "next longer window for percentiles, or all time", () => app.step("window", 1)],
    ["W", "next shorter window for percentiles", () => app.step("window", -1)],
    ["Space p", "pause or resume the display", () => app.togglePause(), "pause"],
    ["[", "ten seconds back", () => app.back(10)],
    ["]", "ten seconds forward", () => app.back(-10)],
    ["1", "one minute back", () => app.back(60)],
    ["5", "five minutes back", () => app.back(300)],
    ["0", "ten minutes back", () => app.back(600)],
  ]],
  ["Export", [
    ["v", "save the listed series as CSV", () => app.saveCsv(), "csv"],
    ["x", "save the newest chart as PNG", () => app.charts.all.at(-1)?.savePicture()],
  ]],
  ["Other", [
    ["o", "list all sources with their states and messages", () => app.showSources()],
    ["t", "light or dark", () => app.toggleTheme(), "theme"],
    ["? F1", "show this help", () => app.showHelp(), "help"],
  ]],
];

/** The keys that have other names in events. */
const NAMES = { "↑": "ArrowUp", "↓": "ArrowDown", PgUp: "PageUp", PgDn: "PageDown", Esc: "Escape", Space: " " };

/** The keys that elements handle themselves, by their names or ids. */
const OWN = {
  button: /^(Enter| )$/,
  select: /^(Arrow|Page|Home|End|Enter| )/,
  time: /^(Arrow|Page|Home|End)/,
  filter: /^(?!Escape)/,
};

/** Handle keys for the app, and fill the help. */
export function listen(app) {
  const actions = new Map();
  for (const [title, keys] of sections(app)) {
    const rows = keys.map(([shown, does, action, button]) => {
      if (button) find(button).onclick = action;
      for (const key of shown.split(" ")) actions.set(NAMES[key] ?? key, action);
      return make("div", {}, make("dt", {}, shown), make("dd", {}, does));
    });
    find("help-text").append(make("h3", {}, title), make("dl", {}, ...rows));
  }
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (target.id === "filter" && (key === "Enter" || key === "ArrowDown")) find("grid").focus();
    if ((OWN[target.id] ?? OWN[target.localName])?.test(key) || document.querySelector("dialog[open]")) return;
    const action = actions.get(key);
    if (!action) return;
    event.preventDefault();
    action();
  });
}
