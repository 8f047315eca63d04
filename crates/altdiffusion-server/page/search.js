// Searches an index in a panel, by text or by image.

import { indexedImage, search } from "./api.js";
import { InputError, announce, byId, element, showError } from "./dom.js";
import { base64, readImage, receiveFiles, receiveImages } from "./image-input.js";
import { label, say, silence } from "./text.js";

const LIMIT = 50;

let running = null;
let shown = [];

async function run(query, body) {
  running?.abort();
  const { signal } = (running = new AbortController());
  showError(byId("search-error"), null);
  say(byId("search-query"), "searching");
  try {
    const hits = await search({ index: byId("index").value, limit: LIMIT, ...body }, signal);
    const key = hits.length > 0 ? "found" : "found-none";
    say(byId("search-query"), key, { query, count: hits.length });
    announce(key, { query, count: hits.length });
    show(hits, signal);
  } catch (error) {
    if (!signal.aborted) {
      silence(byId("search-query"));
      showError(byId("search-error"), error);
    }
  }
}

function show(hits, signal) {
  shown.forEach(URL.revokeObjectURL);
  shown = [];
  byId("hits").replaceChildren(...hits.map((hit) => {
    const score = element("span", { className: "hint" });
    say(score, "score", { score: hit.score.toFixed(3) });
    // What has no image is a text, and stands where an image would.
    const name = element("span", { className: hit.image ? "name" : "name picture", textContent: hit.name });
    return element("li", {}, ...(hit.image ? [picture(hit, signal)] : []), name, score);
  }));
}

/** An image of the index, fetched here rather than by its element, which could not send a key. */
function picture(hit, signal) {
  const image = element("img", { alt: hit.name });
  const more = element("button", { type: "button", className: "quiet" });
  say(more, "more-like");
  label(more, "more-like-name", { name: hit.name });
  more.hidden = true;
  indexedImage(hit.image, signal).then((blob) => {
    image.src = URL.createObjectURL(blob);
    shown.push(image.src);
    more.hidden = false;
    more.addEventListener("click", () => searchImage([new File([blob], hit.name, { type: blob.type })]));
  }).catch(() => image.classList.add("missing"));
  return element("div", { className: "picture" }, image, more);
}

async function searchImage([file]) {
  try {
    const image = await readImage(file);
    await run(image.name, { image: base64(image.data) });
  } catch (error) {
    showError(byId("search-error"), error);
  }
}

/** Prepares the panel for the indexes that are offered. */
export function prepareSearch(indexes) {
  byId("index").replaceChildren(...indexes.map(({ name, count }) => element("option", { value: name, textContent: `${name} (${count})` })));
  byId("index-field").hidden = indexes.length < 2;
  byId("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("search-text").value.trim();
    if (text) {
      run(text, { text });
    } else {
      showError(byId("search-error"), new InputError("text", "search-missing"));
      byId("search-text").focus();
    }
  });
  receiveFiles(byId("search-file"), searchImage);
  receiveImages(byId("panel-search"), searchImage);
}
