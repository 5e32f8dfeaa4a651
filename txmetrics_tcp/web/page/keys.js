/** The keys: those of the terminal viewer, as far as a page has what they do. */

import { make } from "./dom.js";

/** Sections of: names of keys, what is shown for them, what they do, and the action. */
export const SECTIONS = [
  ["Navigation", [
    [["ArrowUp", "k"], "↑ k", "previous series", (app) => app.table.move(-1)],
    [["ArrowDown", "j"], "↓ j", "next series", (app) => app.table.move(1)],
    [["PageUp"], "PgUp", "page up", (app) => app.table.move(-app.table.pageSize)],
    [["PageDown"], "PgDn", "page down", (app) => app.table.move(app.table.pageSize)],
    [["Home"], "Home", "first series", (app) => app.table.choose(0)],
    [["End", "G"], "End G", "last series", (app) => app.table.choose(app.rows.lines.length - 1)],
    [["Enter"], "Enter", "chart the series, or close its chart; fold or unfold a group", (app) => app.openChosen()],
  ]],
  ["Filter, sort, group", [
    [["/"], "/", "filter as you type; Enter keeps it", (app) => app.focusFilter()],
    [["Escape"], "Esc", "go back one step: window, zoom, filter, groups, charts", (app) => app.stepBack()],
    [["s"], "s", "sort by the next column", (app) => app.sortNext(1)],
    [["S"], "S", "sort by the previous column", (app) => app.sortNext(-1)],
    [["r"], "r", "reverse the order", (app) => app.sortBy(app.rows.sort)],
    [["g"], "g", "group by name, then by each label, then not at all", (app) => app.groupNext(1)],
    [["b"], "b", "previous grouping", (app) => app.groupNext(-1)],
    [["f"], "f", "fold all groups; press again to unfold them", (app) => app.foldAll()],
  ]],
  ["Time", [
    [["w"], "w", "next longer window for percentiles, or all time", (app) => app.windowNext(1)],
    [["W"], "W", "next shorter window for percentiles", (app) => app.windowNext(-1)],
    [[" ", "p"], "Space p", "pause or resume the display", (app) => app.togglePause()],
    [["["], "[", "ten seconds back", (app) => app.back(10)],
    [["]"], "]", "ten seconds forward", (app) => app.back(-10)],
    [["1"], "1", "one minute back", (app) => app.back(60)],
    [["5"], "5", "five minutes back", (app) => app.back(300)],
    [["0"], "0", "ten minutes back", (app) => app.back(600)],
  ]],
  ["Export", [
    [["v"], "v", "save the listed series as CSV", (app) => app.saveCsv()],
    [["x"], "x", "save the newest chart as PNG", (app) => app.charts.all.at(-1)?.savePicture()],
  ]],
  ["Other", [
    [["o"], "o", "list all sources with their states and messages", (app) => app.showSources()],
    [["t"], "t", "light or dark", (app) => app.toggleTheme()],
    [["?", "F1"], "? F1", "show this help", (app) => app.showHelp()],
  ]],
];

const MOUSE = [
  ["click a column title", "sort by it; click again to reverse the order"],
  ["click a series", "chart it; click again to close its chart"],
  ["click a group", "fold or unfold it"],
  ["click a source", "show only its series; click again for all"],
  ["drag in a chart", "zoom in all charts; double click for the whole time"],
];

/** Handle keys for the app. */
export function listen(app) {
  const actions = new Map(SECTIONS.flatMap(([, keys]) => keys.flatMap(([names, , , action]) =>
    names.map((name) => [name, action]))));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    const { target } = event;
    if (document.querySelector("dialog[open]")) return;
    if (target.closest("input[type=search]")) {
      if (event.key === "Enter" || event.key === "ArrowDown") app.leaveFilter();
      else if (event.key === "Escape") app.stepBack();
      else return;
      event.preventDefault();
      return;
    }
    // Buttons, menus and the time bar keep their own keys.
    if (target.closest("button, a") && (event.key === "Enter" || event.key === " ")) return;
    if (target.closest("select, input") && event.key.length > 1 && event.key !== "Escape") return;
    if (target.closest("select") && event.key === " ") return;
    const action = actions.get(event.key);
    if (!action) return;
    event.preventDefault();
    action(app);
  });
}

/** Fill the help. */
export function fillHelp(place) {
  const section = (title, rows) => [
    make("h3", {}, title),
    make("dl", {}, ...rows.map(([key, does]) => make("div", {}, make("dt", {}, key), make("dd", {}, does)))),
  ];
  place.replaceChildren(
    ...SECTIONS.flatMap(([title, keys]) => section(title, keys.map(([, shown, does]) => [shown, does]))),
    ...section("Mouse", MOUSE));
}
