// Starts the page: its language, its tabs, and what the server offers.

import { indexes, models, onKeyNeeded } from "./api.js";
import { InputError, byId, showError } from "./dom.js";
import { prepareDraw } from "./draw.js";
import { startReceiving } from "./image-input.js";
import { prepareSearch } from "./search.js";
import { prepareSimilarity } from "./similarity.js";
import { chooseLanguage, switchLanguage, text } from "./text.js";

const tabs = [...document.querySelectorAll("[role=tab]")];
const offered = () => tabs.filter((tab) => !tab.hidden);

function openTab(tab) {
  for (const one of tabs) {
    const open = one === tab;
    one.setAttribute("aria-selected", String(open));
    one.tabIndex = open ? 0 : -1;
    byId(one.getAttribute("aria-controls")).hidden = !open;
  }
  history.replaceState(null, "", `#${tab.id.slice("tab-".length)}`);
}

function prepareTabs() {
  byId("tabs").addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) {
      openTab(tab);
    }
  });
  byId("tabs").addEventListener("keydown", (event) => {
    const all = offered();
    const at = all.indexOf(document.activeElement);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1 + all.length, Home: 0, End: all.length - 1 }[event.key];
    if (to !== undefined) {
      event.preventDefault();
      const tab = all[to % all.length];
      openTab(tab);
      tab.focus();
    }
  });
}

let asking = null;

/** Asks for the API key, once for all requests that wait for it. */
function askForKey(refused) {
  byId("key-refused").hidden = !refused;
  asking ??= new Promise((resolve) => {
    const dialog = byId("key-dialog");
    const key = byId("key");
    key.value = "";
    dialog.returnValue = "";
    byId("key-cancel").onclick = () => dialog.close();
    dialog.onclose = () => {
      asking = null;
      resolve(key.value && dialog.returnValue === "given" ? key.value : null);
    };
    dialog.showModal();
  });
  return asking;
}

function prepareLanguage() {
  const button = byId("language");
  const show = () => {
    button.textContent = text("other-language");
    button.lang = document.documentElement.lang === "en" ? "zh-CN" : "en";
  };
  document.addEventListener("language", show);
  button.addEventListener("click", switchLanguage);
  chooseLanguage();
}

async function start() {
  prepareLanguage();
  onKeyNeeded(askForKey);
  startReceiving();
  prepareTabs();
  try {
    const all = await models();
    const able = (capability) => all.filter(({ capabilities }) => capabilities.includes(capability));
    const found = await indexes();
    const offers = [
      ["draw", able("images"), prepareDraw],
      ["search", found, prepareSearch],
      ["similarity", able("embeddings"), prepareSimilarity],
    ];
    for (const [name, what, prepare] of offers) {
      byId(`tab-${name}`).hidden = what.length === 0;
      if (what.length > 0) {
        prepare(what);
      }
    }
    const [first] = offered();
    if (!first) {
      throw new InputError(null, "nothing-offered");
    }
    byId("tabs").hidden = offered().length < 2;
    openTab(offered().find((tab) => tab.id === `tab-${location.hash.slice(1)}`) ?? first);
    if (matchMedia("(hover: hover)").matches) {
      byId("prompt").focus();
    }
  } catch (error) {
    showError(byId("notice"), error);
  }
}

start();
