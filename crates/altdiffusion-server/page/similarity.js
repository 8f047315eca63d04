// Compares texts with images in a panel.

import { similarity } from "./api.js";
import { InputError, announce, byId, element, showError } from "./dom.js";
import { base64, readImage, receiveFiles, receiveImages } from "./image-input.js";
import { label, say } from "./text.js";

let images = [];
let running = null;

async function add(files) {
  showError(byId("similarity-error"), null);
  for (const file of files) {
    try {
      images.push(await readImage(file));
    } catch (error) {
      showError(byId("similarity-error"), error);
    }
  }
  list();
}

function list() {
  byId("similarity-images").replaceChildren(...images.map((image) => {
    const remove = element("button", { type: "button", className: "quiet", textContent: "×" });
    label(remove, "remove-name", { name: image.name });
    remove.addEventListener("click", () => {
      images = images.filter((one) => one !== image);
      list();
      byId("similarity-file").focus();
    });
    return element("li", {}, element("img", { src: image.data, alt: image.name }), remove);
  }));
}

async function compare(event) {
  event.preventDefault();
  running?.abort();
  const { signal } = (running = new AbortController());
  const texts = byId("texts").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const compared = [...images];
  const error = byId("similarity-error");
  showError(error, null);
  try {
    if (texts.length === 0) {
      throw new InputError("texts", "texts-missing");
    }
    if (compared.length === 0) {
      throw new InputError("images", "images-missing");
    }
    announce("comparing");
    byId("comparison").setAttribute("aria-busy", "true");
    const body = { model: byId("embedder").value, texts, images: compared.map(({ data }) => base64(data)) };
    show(texts, compared, await similarity(body, signal));
    announce("compared", { texts: texts.length, images: compared.length });
  } catch (problem) {
    if (!signal.aborted) {
      showError(error, problem);
    }
  }
  byId("comparison").removeAttribute("aria-busy");
}

/** One table per image, the likeliest text first. */
function show(texts, compared, { similarity, probabilities }) {
  byId("comparison").replaceChildren(...compared.map((image, column) => {
    const rows = texts.map((text, row) => ({ text, cosine: similarity[row][column], probability: probabilities[column][row] }));
    rows.sort((a, b) => b.probability - a.probability || b.cosine - a.cosine);
    return element("figure", { className: "card" },
      element("img", { src: image.data, alt: image.name }),
      element("ul", {}, ...rows.map((row) => bar(row, texts.length > 1))));
  }));
}

function bar({ text, cosine, probability }, competing) {
  const number = element("span", { className: "hint" });
  say(number, "cosine", { value: cosine.toFixed(3) });
  const item = element("li", {}, element("span", { className: "name", textContent: text }), number);
  // One text alone is always certain, which says nothing.
  if (competing) {
    const filled = element("span", { className: "filled" });
    filled.style.width = `${probability * 100}%`;
    item.prepend(element("strong", { textContent: `${(probability * 100).toFixed(1)} %` }));
    item.append(element("span", { className: "bar" }, filled));
  }
  return item;
}

/** Prepares the panel for the models that embed. */
export function prepareSimilarity(models) {
  byId("embedder").replaceChildren(...models.map(({ id }) => element("option", { value: id, textContent: id })));
  byId("embedder-field").hidden = models.length < 2;
  byId("similarity-form").addEventListener("submit", compare);
  receiveFiles(byId("similarity-file"), add);
  receiveImages(byId("panel-similarity"), add);
}
