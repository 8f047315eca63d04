// Shows images: one tile per image, and what is known about the selected one.

import { byId, element } from "./dom.js";
import { imageAddress, selectEntry } from "./history.js";
import { say } from "./text.js";

// A small image is enlarged by a whole number, so that its pixels stay square.
const SMALL = 128;
const LARGEST_SHOWN = { alone: 320, among: 256 };

const stage = byId("tiles");
let tiles = [];
let selected = null;

export const selectedEntry = () => selected;

/** Makes room for images. Those of before stay until new ones appear in their place. */
export function beginTiles(count, width, height) {
  if (tiles.length !== count) {
    tiles = Array.from({ length: count }, () => newTile(count > 1));
    for (const tile of tiles) {
      size(tile, width, height);
    }
    stage.replaceChildren(...tiles.map(({ node }) => node));
  }
  for (const tile of tiles) {
    tile.image.classList.add("earlier");
  }
  byId("empty").hidden = true;
}

function newTile(several) {
  const image = element("img", { alt: "", hidden: true });
  const node = element(several ? "button" : "div", { className: "tile" }, image);
  const tile = { node, image, entry: null, width: 0, height: 0 };
  if (several) {
    node.type = "button";
    node.disabled = true;
    node.addEventListener("click", () => select(tile.entry));
  }
  return tile;
}

/** Sizes a tile to its image, as large as there is room. */
function size(tile, width, height) {
  Object.assign(tile, { width, height });
  const columns = tiles.length === 1 ? 1 : tiles.length <= 4 ? 2 : stage.clientWidth < 480 ? 2 : 4;
  stage.style.setProperty("--columns", columns);
  const room = (stage.clientWidth - 12 * (columns - 1)) / columns;
  const small = Math.max(width, height) <= SMALL;
  const largest = columns === 1 ? LARGEST_SHOWN.alone : LARGEST_SHOWN.among;
  const scale = small ? Math.max(1, Math.floor(Math.min(room, largest) / width)) : Math.min(1, room / width);
  tile.image.style.width = `${width * scale}px`;
  tile.node.style.minHeight = tile.image.hidden ? `${height * scale}px` : "";
  tile.node.style.width = `${width * scale}px`;
  tile.image.style.aspectRatio = `${width} / ${height}`;
}

/** Shows what an image looks like so far. */
export function showPreview(index, encoded) {
  const tile = tiles[index];
  tile.image.className = "preview";
  tile.image.src = `data:image/png;base64,${encoded}`;
  tile.image.hidden = false;
}

/** Shows a finished image. */
export function showFinished(index, entry) {
  const tile = tiles[index];
  tile.entry = entry;
  tile.image.className = Math.max(entry.width, entry.height) <= SMALL ? "crisp" : "";
  tile.image.src = imageAddress(entry);
  tile.image.alt = entry.settings.values.prompt;
  tile.image.hidden = false;
  tile.node.disabled = false;
  size(tile, entry.width, entry.height);
}

/** Ends drawing: what is unfinished goes, or goes back to what was there before. */
export function endTiles() {
  for (const [index, tile] of tiles.entries()) {
    if (tile.entry) {
      showFinished(index, tile.entry);
    } else {
      tile.node.remove();
    }
  }
  tiles = tiles.filter(({ entry }) => entry);
  byId("empty").hidden = tiles.length > 0;
}

/** Shows one entry of the history, or nothing. */
export function showEntry(entry) {
  tiles = [];
  stage.replaceChildren();
  byId("empty").hidden = Boolean(entry);
  if (entry) {
    tiles = [newTile(false)];
    stage.replaceChildren(tiles[0].node);
    showFinished(0, entry);
  }
  select(entry);
}

/** Selects an entry: tells about it, and makes the actions be about it. */
export function select(entry) {
  selected = entry;
  selectEntry(entry);
  byId("about").hidden = !entry;
  for (const tile of tiles) {
    if (tile.node.type === "button") {
      tile.node.setAttribute("aria-pressed", String(tile.entry === entry));
    }
  }
  if (!entry) {
    return;
  }
  const { seed, width, height, seconds } = entry;
  const prompt = entry.settings.values.prompt;
  const values = { prompt, seed, width, height, seconds: seconds?.toFixed(seconds < 10 ? 1 : 0) };
  say(byId("about-text"), seconds === undefined ? "about" : "about-timed", values);
  byId("flagged").hidden = !entry.flagged;
  byId("parameters").textContent = entry.parameters;
  const link = byId("download");
  link.href = imageAddress(entry);
  const name = prompt.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60);
  link.download = `${name || "image"}-${seed}.png`;
}

window.addEventListener("resize", () => {
  for (const tile of tiles) {
    size(tile, tile.width, tile.height);
  }
});
