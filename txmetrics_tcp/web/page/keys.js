/** The keys: those of the terminal viewer, as far as a page has what they do. */

import { find, make } from "./dom.js";

/** Sections of: keys as they are shown, what they do, and the action. */
const SECTIONS = [
  ["Navigation", [
    ["↑ k", "previous series", (app) => app.table.move(-1)],
    ["↓ j", "next series", (app) => app.table.move(1)],
    ["PgUp", "page up", (app) => app.table.move(-app.table.pageSize)],
    ["PgDn", "page down", (app) => app.table.move(app.table.pageSize)],
    ["Home", "first series", (app) => app.table.choose(0)],
    ["End G", "last series", (app) => app.table.choose(Infinity)],
    ["Enter", "chart the series, or close its chart; fold or unfold a group", (app) => app.open(app.table.chosen)],
  ]],
  ["Filter, sort, group", [
    ["/", "filter as you type; Enter keeps it", () => find("filter").focus()],
    ["Esc", "go back one step: window, zoom, filter, groups, charts", (app) => app.stepBack()],
    ["s", "sort by the next column", (app) => app.sortNext(1)],
    ["S", "sort by the previous column", (app) => app.sortNext(-1)],
    ["r", "reverse the order", (app) => app.sortBy(app.rows.sort)],
    ["g", "group by name, then by each label, then not at all", (app) => app.groupNext(1)],
    ["b", "previous grouping", (app) => app.groupNext(-1)],
    ["f", "fold all groups; press again to unfold them", (app) => app.foldAll()],
  ]],
  ["Time", [
    ["w", "next longer window for percentiles, or all time", (app) => app.windowNext(1)],
    ["W", "next shorter window for percentiles", (app) => app.windowNext(-1)],
    ["Space p", "pause or resume the display", (app) => app.togglePause()],
    ["[", "ten seconds back", (app) => app.back(10)],
    ["]", "ten seconds forward", (app) => app.back(-10)],
    ["1", "one minute back", (app) => app.back(60)],
    ["5", "five minutes back", (app) => app.back(300)],
    ["0", "ten minutes back", (app) => app.back(600)],
  ]],
  ["Export", [
    ["v", "save the listed series as CSV", (app) => app.saveCsv()],
    ["x", "save the newest chart as PNG", (app) => app.charts.all.at(-1)?.savePicture()],
  ]],
  ["Other", [
    ["o", "list all sources with their states and messages", (app) => app.showSources()],
    ["t", "light or dark", (app) => app.toggleTheme()],
    ["? F1", "show this help", (app) => app.showHelp()],
  ]],
  ["Mouse", [
    ["click a column title", "sort by it; click again to reverse the order"],
    ["click a series", "chart it; click again to close its chart"],
    ["click a group", "fold or unfold it"],
    ["click a source", "show only its series; click again for all"],
    ["drag in a chart", "zoom in all charts; double click for the whole time"],
  ]],
];

/** The keys that have other names in events. */
const NAMES = { "↑": "ArrowUp", "↓": "ArrowDown", PgUp: "PageUp", PgDn: "PageDown", Esc: "Escape", Space: " " };

/** The keys that elements handle themselves, by the type of the element. */
const OWN = {
  button: /^(Enter| )$/,
  range: /^(Arrow|Page|Home|End)/,
  "select-one": /^(Arrow|Page|Home|End|Enter| )/,
  search: /^(?!Escape)/,
};

/** Handle keys for the app, and fill the help. */
export function listen(app) {
  const actions = new Map();
  for (const [title, keys] of SECTIONS) {
    const rows = keys.map(([shown, does, action]) => {
      for (const key of action ? shown.split(" ") : []) actions.set(NAMES[key] ?? key, action);
      return make("div", {}, make("dt", {}, shown), make("dd", {}, does));
    });
    find("help-text").append(make("h3", {}, title), make("dl", {}, ...rows));
  }
  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (target.type === "search" && (key === "Enter" || key === "ArrowDown")) find("grid").focus();
    if (OWN[target.type]?.test(key) || document.querySelector("dialog[open]")) return;
    const action = actions.get(key);
    if (!action) return;
    event.preventDefault();
    action(app);
  });
}
