/** The state of the page in the fragment of its address, so that a link restores it. */

/** What the parameters are if a link does not say it. */
const USUAL = { filter: "", sort: "name", group: null, source: null, window: 60, range: 300, at: null };

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
  const link = { ...USUAL, ...Object.fromEntries(parameters) };
  return {
    ...link,
    sort: link.sort.replace(/^-/, ""),
    descending: link.sort.startsWith("-"),
    range: Number(link.range) || 0,
    at: Number(link.at) || null,
    charts: parameters.getAll("chart").map((chart) => {
      const [mode, ...name] = chart.split(" ");
      return { mode, name: name.join(" ") };
    }),
  };
}

/** Write the fragment; what has its default is left out. */
export function writeLink({ charts, descending, ...link }) {
  if (descending) link.sort = `-${link.sort}`;
  const told = Object.keys(USUAL).filter((name) => link[name] !== USUAL[name]);
  const parameters = new URLSearchParams(told.map((name) => [name, link[name]]));
  for (const { mode, name } of charts) parameters.append("chart", `${mode} ${name}`);
  const text = `${parameters}`;
  if (location.hash.slice(1) !== text) history.replaceState(null, "", text ? `#${text}` : location.pathname);
}
