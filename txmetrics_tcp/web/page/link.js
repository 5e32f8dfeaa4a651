/** The state of the page in the fragment of its address, so that a link restores it. */

/** Separates the parts of a name; an address shows it as it is. */
const escape = (text) => text.replace(/[\\*]/g, "\\$&");

/**
 * Return the text that names a series in a link; it does not depend on the server's numbers.
 * @param {import("./frames.js").Series} series
 * @param {string} source the name of its source
 */
export function seriesName({ kind, name, labels }, source) {
  return [kind[0], source, name, ...labels.flat()].map(escape).join("*");
}

/** Read the fragment. */
export function readLink() {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const number = (name) => {
    const value = parameters.get(name);
    return value === null || !Number.isFinite(Number(value)) ? null : Number(value);
  };
  const sort = parameters.get("sort") ?? "name";
  return {
    filter: parameters.get("filter") ?? "",
    sort: sort.replace(/^-/, ""),
    descending: sort.startsWith("-"),
    group: parameters.get("group"),
    source: parameters.get("source"),
    window: number("window"),
    range: number("range"),
    at: number("at"),
    charts: parameters.getAll("chart").map((text) => {
      const at = text.indexOf(" ");
      return { mode: text.slice(0, at), name: text.slice(at + 1) };
    }),
  };
}

/** Write the fragment; what has its default is left out. */
export function writeLink(link) {
  const parameters = new URLSearchParams();
  const set = (name, value, usual) => {
    if (value !== usual && value !== null && value !== "") parameters.set(name, value);
  };
  set("filter", link.filter, "");
  set("sort", (link.descending ? "-" : "") + link.sort, "name");
  set("group", link.group, null);
  set("source", link.source, null);
  set("window", link.window, 60);
  set("range", link.range, 300);
  set("at", link.at === null ? null : Math.round(link.at), null);
  for (const { name, mode } of link.charts) parameters.append("chart", `${mode} ${name}`);
  const text = parameters.toString();
  if (location.hash.slice(1) !== text) history.replaceState(null, "", text ? `#${text}` : location.pathname);
}
