// Finds, makes and announces elements of the document.

import { say, silence, text } from "./text.js";

export const byId = (id) => document.getElementById(id);

/** Makes an element with properties and children. */
export function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

/** An error about what was entered, with the name of the request's field that it is about. */
export class InputError extends Error {
  constructor(param, key, values = {}) {
    super(text(key, values));
    Object.assign(this, { param, key, values });
  }
}

/** Shows an error in a paragraph, or hides the paragraph. */
export function showError(node, error) {
  node.hidden = !error;
  silence(node);
  if (error?.key) {
    say(node, error.key, error.values);
  } else if (error) {
    node.textContent = error.message;
  }
}

/** Says something to screen readers. */
export function announce(key, values = {}) {
  byId("status").textContent = text(key, values);
}
