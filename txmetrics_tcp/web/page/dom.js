/** Small helpers for the document. Text is only ever set as text. */

export const find = (id) => document.getElementById(id);

/**
 * Make an element.
 * @param {string} tag
 * @param {object} [properties] properties of the element; `class` and names with a hyphen or `role`
 *   are attributes
 * @param {...(Node|string)} children
 */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.className = value;
    else if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Set the text of an element, if it is another one. */
export function setText(element, text) {
  if (element.lastText === text) return;
  element.lastText = text;
  element.textContent = text;
}

/** Offer a file for download. */
export function save(blob, ending) {
  const two = (number) => String(number).padStart(2, "0");
  const now = new Date();
  const day = `${now.getFullYear()}${two(now.getMonth() + 1)}${two(now.getDate())}`;
  const time = `${two(now.getHours())}${two(now.getMinutes())}${two(now.getSeconds())}`;
  const link = make("a", { href: URL.createObjectURL(blob), download: `metrics-${day}-${time}.${ending}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Format a time of day, `HH:MM:SS`. */
export function clock(seconds, withSeconds = true) {
  const text = new Date(seconds * 1000).toTimeString();
  return text.slice(0, withSeconds ? 8 : 5);
}
