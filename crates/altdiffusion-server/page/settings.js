// Reads the form, as a request to the model and as settings that the history keeps.

import { adapterRequest, controls, loras } from "./adapters.js";
import { InputError, byId, element, showError } from "./dom.js";
import { onStartChange, restoreStart, saveStart, startRequest } from "./start-image.js";
import { say } from "./text.js";

const inputs = {
  prompt: byId("prompt"), model: byId("model"), negative: byId("negative"), width: byId("width"), height: byId("height"),
  scale: byId("scale"),
  steps: byId("steps"), guidance: byId("guidance"), seed: byId("seed"), count: byId("count"), scheduler: byId("scheduler"),
};
const weights = byId("weights");
// Empty, as the others are, until the model's default is known.
inputs.scale.value = "";

let offered = [];
let model = null;

/** Offers the models that draw. */
export function offerModels(models) {
  offered = models;
  inputs.model.replaceChildren(...models.map(({ id }) => element("option", { value: id, textContent: id })));
  byId("model-field").hidden = models.length < 2;
  useModel(models[0]);
}

/** Those that a person sees change at once are drawn as they are typed. */
export function drawsQuickly() {
  const { width, height } = model.defaults;
  return width !== null && height !== null && Math.max(width, height) <= 128;
}

const defaultsOf = ({ defaults }) => ({
  width: defaults.width ?? "", height: defaults.height ?? "", scale: defaults.scale ?? 1, steps: defaults.steps ?? "",
  guidance: defaults.guidance_scale ?? "",
});

/** Takes a model's defaults over, except where something else was chosen. */
function useModel(next) {
  const before = model && defaultsOf(model);
  for (const [name, value] of Object.entries(defaultsOf(next))) {
    const input = inputs[name];
    const automatic = saveStart() && (name === "width" || name === "height");
    if (!automatic && (input.value === "" || input.value === String(before?.[name]))) {
      input.value = value;
    }
  }
  model = next;
  const chosen = inputs.scheduler.value;
  const own = element("option", { value: "" });
  say(own, "model-scheduler");
  inputs.scheduler.replaceChildren(own, ...schedulers().map((name) => element("option", { value: name, textContent: name })));
  inputs.scheduler.value = schedulers().includes(chosen) ? chosen : "";
  loras.offer(model.loras ?? []);
  controls.offer(model.controlnets ?? []);
}

// An image to start from has a size of its own, so the model's makes room for it.
onStartChange((present) => {
  const defaults = defaultsOf(model);
  for (const name of ["width", "height"]) {
    if (present && inputs[name].value === String(defaults[name])) {
      inputs[name].value = "";
    } else if (!present && inputs[name].value === "") {
      inputs[name].value = defaults[name];
    }
  }
});

/** A number, or null where the field is empty. */
function number(name, param) {
  const { validity, min, max, step, valueAsNumber } = inputs[name];
  if (!validity.valid) {
    const key = { any: "number-expected", 1: "whole-expected" }[step] ?? "multiple-expected";
    throw new InputError(param, key, { min, max, step });
  }
  return Number.isNaN(valueAsNumber) ? null : valueAsNumber;
}

/** The request for what the form says, of which the seed may be missing. */
export function readRequest() {
  const prompt = inputs.prompt.value.trim();
  if (!prompt) {
    throw new InputError("prompt", "prompt-missing");
  }
  const width = number("width", "size") ?? number("height", "size");
  const height = number("height", "size") ?? width;
  const body = {
    model: model.id,
    prompt,
    negative_prompt: inputs.negative.value.trim(),
    n: number("count", "n"),
    size: width ? `${width}x${height}` : "auto",
    scale: Number(inputs.scale.value),
    steps: number("steps", "steps"),
    guidance_scale: number("guidance", "guidance_scale"),
    seed: number("seed", "seed"),
    scheduler: inputs.scheduler.value,
    prompt_weights: weights.checked,
    ...startRequest(),
    ...adapterRequest(),
  };
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null && value !== "" && value !== false));
}

/** What `restoreSettings` brings back. */
export function saveSettings() {
  const values = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value]));
  return { values, weights: weights.checked, loras: loras.save(), controls: controls.save(), start: saveStart() };
}

export async function restoreSettings(saved) {
  const next = offered.find(({ id }) => id === saved.values.model) ?? model;
  inputs.model.value = next.id;
  useModel(next);
  await restoreStart(saved.start);
  for (const [name, value] of Object.entries(saved.values)) {
    if (name !== "model") {
      inputs[name].value = value;
    }
  }
  // A scheduler that is not offered any more leaves the model's own.
  inputs.scheduler.value ||= "";
  // Settings kept by an earlier version have no scale.
  inputs.scale.value = saved.values.scale ?? "1";
  weights.checked = saved.weights;
  loras.fill(saved.loras);
  controls.fill(saved.controls);
}

/** Sets a field to a value, if it can have it. */
export function setField(name, value) {
  const input = inputs[name];
  const before = input.value;
  input.value = value;
  const fits = input.value !== "" && input.validity.valid;
  if (!fits) {
    input.value = before;
  }
  return fits;
}

export function setText(name, value) {
  inputs[name].value = value;
}

export function readWeights(read) {
  weights.checked = read;
}

export const schedulers = () => model.schedulers ?? [];

/** The size that an image will probably have, to make room for it. */
export function expectedSize({ size, scale: times = 1 }) {
  if (size !== "auto") {
    return size.split("x").map((side) => times * Number(side));
  }
  const side = model.defaults.width ?? 512;
  const image = saveStart()?.image ?? { width: side, height: side };
  const scale = Math.min(1, side / Math.max(image.width, image.height));
  return [image.width * scale * times, image.height * scale * times];
}

/** Shows an error next to the field that it is about, or below the prompt. Null takes all errors away. */
export function showFieldError(error) {
  for (const shown of document.querySelectorAll("#settings .field-error")) {
    shown.remove();
  }
  for (const input of document.querySelectorAll("#draw-form [aria-invalid]")) {
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-describedby");
  }
  const name = error?.param?.split(/[.[]/)[0];
  const field = name && document.querySelector(`#settings .field[data-param~="${CSS.escape(name)}"]:not([hidden])`);
  showError(byId("draw-error"), field ? null : error);
  if (field) {
    const shown = element("p", { id: `error-${name}`, className: "error field-error", role: "alert" });
    // Below both fields of a pair, where it has room for one line.
    (field.closest(".pair") ?? field).append(shown);
    showError(shown, error);
    byId("settings").open = true;
    for (const input of field.querySelectorAll("input:not([type=file]), textarea, select")) {
      input.setAttribute("aria-invalid", "true");
      input.setAttribute("aria-describedby", shown.id);
    }
  }
}

inputs.model.addEventListener("change", () => {
  useModel(offered.find(({ id }) => id === inputs.model.value));
  document.dispatchEvent(new Event("model"));
});
