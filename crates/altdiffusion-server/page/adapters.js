// Lists LoRAs and ControlNets: a selector adds a row, which has a strength, and an image where one is needed.

import { InputError, byId, element } from "./dom.js";
import { base64, readImage, receiveFiles, receiveImages } from "./image-input.js";
import { label, say } from "./text.js";

class AdapterList {
  constructor(id, { withImage }) {
    this.field = byId(id);
    this.rows = this.field.querySelector(".rows");
    this.select = this.field.querySelector("select");
    this.withImage = withImage;
    this.chosen = [];
    this.offered = [];
    this.select.addEventListener("change", () => {
      this.add({ name: this.select.value, strength: 1, image: null });
      this.rows.lastElementChild.querySelector("input").focus();
    });
    document.addEventListener("language", () => this.list());
  }

  /** Offers these names, and forgets what was chosen of others. */
  offer(names) {
    this.offered = names;
    this.field.hidden = names.length === 0;
    this.fill(this.chosen);
  }

  fill(chosen) {
    this.chosen = [];
    this.rows.replaceChildren();
    for (const one of chosen) {
      this.add({ ...one });
    }
    this.list();
  }

  save() {
    return this.chosen.map((one) => ({ ...one }));
  }

  /** Makes the selector list what is not chosen yet. */
  list() {
    const names = this.offered.filter((name) => !this.chosen.some((one) => one.name === name));
    const first = element("option", { value: "" });
    say(first, this.withImage ? "add-control" : "add-lora");
    this.select.replaceChildren(first, ...names.map((name) => element("option", { value: name, textContent: name })));
    this.select.hidden = names.length === 0;
  }

  add(one) {
    if (!this.offered.includes(one.name)) {
      return;
    }
    this.chosen.push(one);
    const strength = element("input", { type: "number", min: -4, max: 4, step: 0.05, value: one.strength });
    label(strength, "name-strength", { name: one.name });
    strength.addEventListener("input", () => (one.strength = strength.valueAsNumber));
    const remove = element("button", { type: "button", className: "quiet", textContent: "×" });
    label(remove, "remove-name", { name: one.name });
    const row = element("div", { className: "row adapter" }, element("span", { textContent: one.name }), strength, remove);
    if (this.withImage) {
      row.append(this.imageField(one, row));
    }
    remove.addEventListener("click", () => {
      this.chosen.splice(this.chosen.indexOf(one), 1);
      row.remove();
      this.list();
      this.select.focus();
    });
    this.rows.append(row);
    this.list();
  }

  imageField(one, row) {
    const caption = element("span");
    const preview = element("img", { alt: "", hidden: true });
    const input = element("input", { type: "file", accept: "image/*" });
    label(input, "image-for", { name: one.name });
    const error = element("p", { className: "error", role: "alert" });
    const show = () => {
      say(caption, "choose-image");
      preview.hidden = !one.image;
      preview.src = one.image?.data ?? "";
    };
    const receive = async ([file]) => {
      error.textContent = "";
      try {
        one.image = await readImage(file);
        show();
      } catch (problem) {
        say(error, problem.key, problem.values);
      }
    };
    receiveFiles(input, receive);
    receiveImages(row, receive);
    show();
    return element("div", { className: "row" }, preview, element("label", { className: "button" }, caption, input), error);
  }
}

export const loras = new AdapterList("loras", { withImage: false });
export const controls = new AdapterList("controls", { withImage: true });

/** The fields of a request. */
export function adapterRequest() {
  for (const list of [loras, controls]) {
    if (list.chosen.some((one) => !(Math.abs(one.strength) <= 4))) {
      throw new InputError(list.field.dataset.param, "number-expected", { min: -4, max: 4 });
    }
  }
  const missing = controls.chosen.find((one) => !one.image);
  if (missing) {
    throw new InputError("controls", "control-image-missing", { name: missing.name });
  }
  return {
    ...(loras.chosen.length > 0 && { loras: loras.chosen.map(({ name, strength }) => ({ name, strength })) }),
    ...(controls.chosen.length > 0 && {
      controls: controls.chosen.map(({ name, strength, image }) => ({ model: name, strength, image: base64(image.data) })),
    }),
  };
}
