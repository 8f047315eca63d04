// Draws in a panel, as the prompt is typed or when asked to.

import { draw as events, imageSettings } from "./api.js";
import { announce, byId, element } from "./dom.js";
import { openHistory, remember } from "./history.js";
import { base64, dataUri, pngBlob, readImage, receiveImages } from "./image-input.js";
import { fillRecorded } from "./recorded.js";
import { drawsQuickly, expectedSize, offerModels, readRequest, restoreSettings, saveSettings, showFieldError } from "./settings.js";
import { beginTiles, endTiles, select, selectedEntry, showEntry, showFinished, showPreview } from "./stage.js";
import { prepareStart, setStart } from "./start-image.js";
import { say, silence, text } from "./text.js";

// What is drawn while more is typed is cancelled, so a short pause costs little.
const PAUSE_OF_TYPING = 150;
// Short enough to be read and copied, and as long as other programs' seeds.
const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

const prompt = byId("prompt");
const live = byId("live");
let running = null;
let timer = null;
// While a prompt is typed, only the words change the image.
let liveSeed = randomSeed();

/** Draws what the form says. */
async function draw({ asTyped = false } = {}) {
  clearTimeout(timer);
  running?.abort();
  byId("dropped").hidden = true;
  const controller = (running = new AbortController());
  try {
    const body = readRequest();
    body.seed ??= asTyped ? liveSeed : (liveSeed = randomSeed());
    showFieldError(null);
    await follow(body, saveSettings(), asTyped, controller.signal);
  } catch (error) {
    if (!controller.signal.aborted) {
      showFieldError(error);
      if (error.param === "prompt") {
        prompt.focus();
      }
    }
  }
  if (running === controller) {
    stop();
  }
}

/** Shows the events of one request. */
async function follow(body, settings, asTyped, signal) {
  const [width, height] = expectedSize(body);
  const count = body.n ?? 1;
  beginTiles(count, width, height);
  showProgress(0, "starting");
  byId("running").classList.add("on");
  let finished = 0;
  let first = null;
  // Previews, as many as can be watched.
  for await (const event of events({ ...body, partial_images: 1 }, signal)) {
    if (signal.aborted) {
      return;
    }
    const kind = event.type.split(".")[1];
    if (kind === "progress") {
      showStep(event);
    } else if (kind === "partial_image") {
      showPreview(event.image, event.b64_json);
    } else if (kind === "completed") {
      const { seed, width, height, parameters, seconds, flagged } = event;
      const entry = remember({ settings, seed, width, height, parameters, seconds, flagged, blob: pngBlob(event.b64_json), live: asTyped });
      showFinished(event.image, entry);
      if (!first) {
        first = entry;
        select(entry);
      }
      finished += 1;
    }
  }
  if (finished < count) {
    throw Object.assign(new Error(text("ended-early")), { key: "ended-early" });
  }
  announce(count > 1 ? "drawn-several" : "drawn", { prompt: body.prompt, seed: first.seed, count });
}

function showStep({ image, images, step, steps }) {
  const share = (image * steps + step) / (images * steps);
  showProgress(share, images > 1 ? "image-step" : "step", { image: image + 1, images, step, steps });
}

function showProgress(value, key, values) {
  byId("progress").value = value;
  say(byId("progress-text"), key, values);
}

function stop() {
  running = null;
  endTiles();
  const held = document.activeElement === byId("cancel");
  byId("running").classList.remove("on");
  silence(byId("progress-text"));
  if (held) {
    prompt.focus();
  }
}

function cancel() {
  clearTimeout(timer);
  if (running) {
    running.abort();
    stop();
    announce("cancelled");
  }
}

/** Draws an entry again: with its own seed, or with another one. */
async function again(entry, sameSeed) {
  await restoreSettings(entry.settings);
  byId("count").value = 1;
  byId("seed").value = sameSeed ? entry.seed : "";
  await draw();
}

function typed(event) {
  // An input method's letters are not words yet.
  if (event.isComposing || !live.checked || byId("live-label").hidden) {
    return;
  }
  clearTimeout(timer);
  if (prompt.value.trim()) {
    timer = setTimeout(() => draw({ asTyped: true }), PAUSE_OF_TYPING);
  }
}

/** What an image records. A file that the server does not read, or finds too large, can still be where to start from. */
async function recordOf(file) {
  try {
    return (await imageSettings(base64(await dataUri(file)))).parameters ?? {};
  } catch (error) {
    if (error.key === "no-server") {
      throw error;
    }
    return {};
  }
}

/** Takes a dropped or pasted image: its settings if it records any, and otherwise the image itself. */
async function receive([file]) {
  showFieldError(null);
  byId("dropped").hidden = true;
  try {
    const image = await readImage(file);
    const parameters = await recordOf(file);
    const recorded = Object.keys(parameters).length > 0;
    const before = saveSettings();
    const unused = recorded ? fillRecorded(parameters) : [];
    if (!recorded) {
      setStart(image);
    }
    const key = !recorded ? "start-set" : unused.length > 0 ? "settings-read-except" : "settings-read";
    say(byId("dropped-text"), key, { name: image.name, unused: unused.join(", ") });
    announce(key, { name: image.name, unused: unused.join(", ") });
    byId("dropped").hidden = false;
    byId("dropped-start").hidden = !recorded;
    byId("dropped-start").onclick = () => {
      setStart(image);
      byId("dropped").hidden = true;
      byId("mask").focus();
    };
    byId("dropped-undo").onclick = async () => {
      await restoreSettings(before);
      byId("dropped").hidden = true;
      prompt.focus();
    };
  } catch (error) {
    showFieldError(error);
  }
}

async function startFromResult() {
  const { blob, settings, seed } = selectedEntry();
  setStart(await readImage(new File([blob], `${settings.values.prompt}-${seed}.png`, { type: blob.type })));
  byId("mask").focus();
}

function offerExamples() {
  byId("examples").replaceChildren(...text("examples").split("|").map((example) => {
    const button = element("button", { type: "button", textContent: example });
    button.addEventListener("click", () => {
      prompt.value = example;
      prompt.focus();
      draw();
    });
    return button;
  }));
}

/** Prepares the panel for the models that draw. */
export function prepareDraw(models) {
  const showLive = () => (byId("live-label").hidden = !drawsQuickly());
  offerModels(models);
  showLive();
  offerExamples();
  document.addEventListener("model", showLive);
  document.addEventListener("language", offerExamples);
  prepareStart((error) => showFieldError(error && Object.assign(error, { param: "image" })));
  receiveImages(byId("panel-draw"), receive);
  openHistory(showEntry);
  byId("settings").open = matchMedia("(min-width: 56rem)").matches;

  byId("draw-form").addEventListener("submit", (event) => {
    event.preventDefault();
    draw();
  });
  prompt.addEventListener("input", typed);
  prompt.addEventListener("compositionend", typed);
  prompt.addEventListener("keydown", (event) => {
    // Safari tells only by this code that Enter ends what an input method wrote.
    const composing = event.isComposing || event.keyCode === 229;
    if (event.key === "Enter" && !event.shiftKey && !composing) {
      event.preventDefault();
      draw();
    }
  });
  byId("panel-draw").addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      cancel();
    }
  });
  byId("cancel").addEventListener("click", cancel);
  byId("again").addEventListener("click", () => again(selectedEntry(), true));
  byId("another").addEventListener("click", () => again(selectedEntry(), false));
  byId("from-result").addEventListener("click", startFromResult);
}
