// Holds the image that drawing starts from, with its mask.

import { byId } from "./dom.js";
import { base64, readImage, receiveFiles } from "./image-input.js";
import { maskImage, onMaskChange, resetMask, restoreMask, saveMask } from "./mask.js";

// The command's own defaults: a masked part is redrawn whole.
const STRENGTH = { image: "0.8", mask: "1" };

const strength = byId("strength");
let image = null;
let strengthChosen = false;
let whenChanged = () => {};

/** Sets what is called when there is an image to start from, or none any more. */
export function onStartChange(changed) {
  whenChanged = changed;
}

export function setStart(read) {
  const before = image;
  image = read;
  byId("start-empty").hidden = Boolean(image);
  byId("start-full").hidden = !image;
  if (image) {
    byId("start-image").src = image.data;
    byId("start-image").alt = image.name;
    byId("start-full").classList.toggle("crisp", Math.max(image.width, image.height) <= 128);
    resetMask(image.width, image.height);
    byId("settings").open = true;
  }
  if (Boolean(before) !== Boolean(image)) {
    whenChanged(Boolean(image));
  }
}

/** The fields of a request. */
export function startRequest() {
  if (!image) {
    return {};
  }
  const mask = maskImage();
  return { image: base64(image.data), strength: Number(strength.value), ...(mask && { mask: base64(mask) }) };
}

export const saveStart = () => image && { image, mask: saveMask(), strength: strength.value };

export async function restoreStart(saved) {
  setStart(saved?.image ?? null);
  if (saved?.mask) {
    await restoreMask(saved.mask);
  }
  if (saved) {
    showStrength(saved.strength);
  }
}

function showStrength(value) {
  strength.value = value;
  byId("strength-value").textContent = strength.value;
}

/** Sets how much may change, which is a number from 0 to 1. */
export function setStrength(value) {
  const fits = Number(value) >= 0 && Number(value) <= 1;
  if (fits) {
    strengthChosen = true;
    showStrength(value);
  }
  return fits;
}

onMaskChange((painted) => {
  if (!strengthChosen) {
    showStrength(painted ? STRENGTH.mask : STRENGTH.image);
  }
});

/** Prepares the section; errors of files go to `report`. */
export function prepareStart(report) {
  showStrength(STRENGTH.image);
  strength.addEventListener("input", () => {
    strengthChosen = true;
    showStrength(strength.value);
  });
  byId("start-remove").addEventListener("click", () => {
    setStart(null);
    byId("start-file").focus();
  });
  receiveFiles(byId("start-file"), async ([file]) => {
    try {
      setStart(await readImage(file));
      report(null);
    } catch (error) {
      report(error);
    }
  });
}
