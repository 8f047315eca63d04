// Receives images by a file field, by dropping, or by pasting.

import { InputError } from "./dom.js";

// Larger ones are scaled down here: no model looks at more, and a phone's photo would take long to send.
const LONGEST_SIDE = 1536;

/** Reads a file as `{ name, data, width, height }`, where data is a data URI. */
export async function readImage(file) {
  const name = file.name || "image";
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new InputError("image", "not-an-image", { name });
  }
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const width = Math.max(1, Math.round(bitmap.width * scale));
  const height = Math.max(1, Math.round(bitmap.height * scale));
  if (scale === 1 && file.type === "image/png") {
    return { name, data: await dataUri(file), width, height };
  }
  // Drawing turns a photo as its EXIF says, so that the server sees what the person sees.
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, width, height);
  const data = file.type === "image/jpeg" ? canvas.toDataURL("image/jpeg", 0.95) : canvas.toDataURL("image/png");
  return { name, data, width, height };
}

export function dataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new InputError("image", "not-an-image", { name: file.name }));
    reader.readAsDataURL(file);
  });
}

/** The base64 part of a data URI. */
export const base64 = (uri) => uri.slice(uri.indexOf(",") + 1);

/** A PNG file in base64 as a blob. */
export function pngBlob(encoded) {
  const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}

const receivers = new Map();

/** Calls `receive` with the files that are dropped into an element, or pasted while it is the open panel. */
export function receiveImages(zone, receive) {
  zone.dataset.drop = "";
  receivers.set(zone, receive);
}

/** Calls `receive` with the files chosen in a file field. */
export function receiveFiles(input, receive) {
  input.addEventListener("change", () => {
    const files = [...input.files];
    // The same file can then be chosen once more.
    input.value = "";
    if (files.length > 0) {
      receive(files);
    }
  });
}

const openPanel = () => document.querySelector("[role=tabpanel]:not([hidden])");
const zoneOf = (event) => event.target.closest?.("[data-drop]") ?? openPanel();

/** Listens to the document, because a file that is dropped beside a zone would replace the page. */
export function startReceiving() {
  let marked = null;
  const mark = (zone) => {
    marked?.classList.remove("dropping");
    marked = zone;
    marked?.classList.add("dropping");
  };
  document.addEventListener("dragover", (event) => {
    if (event.dataTransfer.types.includes("Files")) {
      event.preventDefault();
      mark(zoneOf(event));
    }
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) {
      mark(null);
    }
  });
  document.addEventListener("drop", (event) => {
    mark(null);
    if (event.dataTransfer.files.length > 0) {
      event.preventDefault();
      receivers.get(zoneOf(event))?.([...event.dataTransfer.files]);
    }
  });
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
    // A text processor copies a picture of the text beside the text.
    if (files.length > 0 && !event.clipboardData.types.includes("text/plain")) {
      event.preventDefault();
      receivers.get(openPanel())?.(files);
    }
  });
}
