// Keeps the images drawn here before, in this browser.

import { byId, element } from "./dom.js";
import { label } from "./text.js";

const KEPT = 40;
const STORE = "images";

const list = byId("history-list");
let entries = [];
let database = null;
let show = () => {};
let selected = null;

const finished = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/** Opens the history; `showEntry` is called with an entry that is chosen from it. */
export async function openHistory(showEntry) {
  show = showEntry;
  byId("history-clear").addEventListener("click", clear);
  byId("history-remove").addEventListener("click", () => selected && remove(selected));
  try {
    const opening = indexedDB.open("altdiffusion", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { keyPath: "id" });
    database = await finished(opening);
    const kept = await finished(database.transaction(STORE).objectStore(STORE).getAll());
    entries = [...entries, ...kept.sort((a, b) => b.id - a.id)];
  } catch {
    // Private windows may have no storage. The history then lasts as long as the page.
  }
  render();
}

/** Adds an image, and returns its entry. One that was drawn while its prompt was being typed makes way for what came of it. */
export function remember(image) {
  const entry = { ...image, id: Math.max(Date.now(), (entries[0]?.id ?? 0) + 1) };
  const [latest] = entries;
  const grown = latest?.live && entry.live && prompt(entry).startsWith(prompt(latest));
  entries.unshift(entry);
  const surplus = entries.splice(KEPT);
  if (grown) {
    surplus.push(...entries.splice(1, 1));
  }
  change((store) => store.put(entry));
  surplus.forEach(forget);
  render();
  return entry;
}

const prompt = (entry) => entry.settings.values.prompt;

/** Marks the entry that is shown. */
export function selectEntry(entry) {
  selected = entry;
  for (const button of list.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.id) === entry?.id));
  }
  byId("history-remove").hidden = !entries.includes(entry);
}

function change(act) {
  try {
    act(database.transaction(STORE, "readwrite").objectStore(STORE));
  } catch {
    // Without storage, what is in memory remains.
  }
}

const addresses = new Map();

/** The address of an entry's image. */
export function imageAddress(entry) {
  if (!addresses.has(entry.id)) {
    addresses.set(entry.id, URL.createObjectURL(entry.blob));
  }
  return addresses.get(entry.id);
}

/** Lets the browser free an image whose entry is gone; one that is still shown stays. */
function freeImage({ id }) {
  if (addresses.has(id)) {
    URL.revokeObjectURL(addresses.get(id));
    addresses.delete(id);
  }
}

function forget(entry) {
  change((store) => store.delete(entry.id));
  freeImage(entry);
}

function remove(entry) {
  const index = entries.indexOf(entry);
  entries.splice(index, 1);
  forget(entry);
  render();
  const next = entries[Math.min(index, entries.length - 1)] ?? null;
  show(next);
  (list.querySelector("[aria-pressed=true]") ?? byId("prompt")).focus();
}

function clear() {
  entries.forEach(freeImage);
  entries = [];
  change((store) => store.clear());
  render();
  show(null);
  byId("prompt").focus();
}

function render() {
  byId("history").hidden = entries.length === 0;
  list.replaceChildren(...entries.map((entry) => {
    const crisp = Math.max(entry.width, entry.height) <= 128;
    const image = element("img", { src: imageAddress(entry), alt: "", className: crisp ? "crisp" : "", loading: "lazy" });
    const button = element("button", { type: "button" }, image);
    button.dataset.id = entry.id;
    label(button, "entry", { prompt: prompt(entry), seed: entry.seed });
    button.addEventListener("click", () => show(entry));
    return element("li", {}, button);
  }));
  selectEntry(selected);
}
