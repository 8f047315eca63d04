// Fills the settings that an image records into the form.

import { loras } from "./adapters.js";
import { readWeights, schedulers, setField, setText } from "./settings.js";
import { saveStart, setStrength } from "./start-image.js";

// Where other programs' names of a sampler differ in more than spelling.
const SAMPLERS = { plms: "pndm", eulerancestral: "euler-a" };
// What names the program and the machine, or is said elsewhere too. The rest changes the image, and has to be told.
const INCIDENTAL = ["Model", "Model hash", "Dtype", "RNG", "Device", "Version", "Image", "Image hash", "Mask", "Mask hash", "Lora hashes",
  "Seeds", "Batch size", "Batch pos"];

const plain = (name) => name.toLowerCase().replace(/[\s_-]/g, "");

/** Finds a scheduler by the name that another program gives it. */
function scheduler(name) {
  const wanted = plain(name.replace(/ karras$/i, ""));
  return schedulers().find((one) => plain(one) === wanted || one === SAMPLERS[wanted]);
}

function size(value) {
  const [width, height] = value.split("x");
  return [setField("width", width), setField("height", height ?? "")].every(Boolean);
}

/** Takes LoRAs out of a prompt, where other programs write them, and chooses those that are offered. */
function promptWithLoras(value) {
  const chosen = [];
  const prompt = value.replace(/<lora:([^:>]+):?([^:>]*)[^>]*>/g, (whole, name, strength) => {
    if (!loras.offered.includes(name)) {
      return whole;
    }
    chosen.push({ name, strength: Number(strength || 1), image: null });
    return "";
  });
  setText("prompt", prompt.trim());
  loras.fill(chosen);
  return true;
}

const fillers = {
  "Prompt": promptWithLoras,
  "Negative prompt": (value) => (setText("negative", value), true),
  "Steps": (value) => setField("steps", value),
  "CFG scale": (value) => setField("guidance", value),
  "Seed": (value) => setField("seed", value),
  "Size": size,
  "Scale": (value) => setField("scale", value),
  "Sampler": (value) => setField("scheduler", scheduler(value) ?? ""),
  // Follows the sampler in a record.
  "Scheduler": (value) => value === "of the model" && (setText("scheduler", ""), true),
  "Prompt weights": (value) => (readWeights(value === "True"), true),
  "Denoising strength": (value) => Boolean(saveStart()) && setStrength(value),
};

/** Fills in what an image records, and returns the names of what could not be. */
export function fillRecorded(parameters) {
  setText("negative", "");
  setText("count", 1);
  setText("scale", 1);
  readWeights(false);
  const unused = [];
  for (const [name, value] of Object.entries(parameters)) {
    const filled = Object.hasOwn(fillers, name) && fillers[name](String(value));
    if (!filled && !INCIDENTAL.includes(name)) {
      unused.push(name);
    }
  }
  return unused;
}
