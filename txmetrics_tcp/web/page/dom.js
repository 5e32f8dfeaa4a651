/** Small helpers for the document. Text is only ever set as text. */

export const find = (id) => document.getElementById(id);

/**
 * Make an element.
 * @param {string} tag
 * @param {object} [properties] properties of the element; other names are attributes
 * @param {...(Node|string)} children
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** Set the text of an element, if it is another one. */
export function setText(element, text) {
  if (element.lastText !== text) element.textContent = element.lastText = text;
}

/** Offer a file for download. */
export function save(blob, ending) {
  // Sweden writes 2024-12-31 23:59:59.
  const now = new Date().toLocaleString("sv").replace(/[-:]/g, "").replace(" ", "-");
  const link = make("a", { href: URL.createObjectURL(blob), download: `metrics-${now}.${ending}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Format a time of day, `HH:MM:SS`. */
export const clock = (seconds) => new Date(seconds * 1000).toTimeString().slice(0, 8);
