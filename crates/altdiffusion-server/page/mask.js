// Paints with a brush on an image what is to be redrawn.

import { byId, element } from "./dom.js";

const COLOUR = "#14b8a6";

const canvas = byId("mask");
const context = canvas.getContext("2d");
const brush = byId("brush-size");
const ring = element("span", { className: "brush-ring", hidden: true });
let erasing = false;
let painted = false;
let last = null;
let at = { x: 0, y: 0 };
let whenChanged = () => {};

/** Sets what is called when the mask gets its first stroke, or loses its last. */
export function onMaskChange(changed) {
  whenChanged = changed;
}

/** Empties the mask and gives it the size of an image. */
export function resetMask(width, height) {
  Object.assign(canvas, { width, height });
  at = { x: width / 2, y: height / 2 };
  setPainted(false);
  setErasing(false);
}

/** The mask as a PNG in a data URI, white where to redraw, or null if nothing is painted. */
export function maskImage() {
  if (!painted) {
    return null;
  }
  const { width, height } = canvas;
  const copy = element("canvas", { width, height });
  const target = copy.getContext("2d");
  target.drawImage(canvas, 0, 0);
  target.globalCompositeOperation = "source-in";
  target.fillStyle = "#fff";
  target.fillRect(0, 0, width, height);
  target.globalCompositeOperation = "destination-over";
  target.fillStyle = "#000";
  target.fillRect(0, 0, width, height);
  return copy.toDataURL("image/png");
}

/** What `restoreMask` brings back. */
export const saveMask = () => (painted ? canvas.toDataURL("image/png") : null);

export async function restoreMask(saved) {
  const image = new Image();
  image.src = saved;
  await image.decode();
  context.drawImage(image, 0, 0);
  setPainted(true);
}

function setPainted(now) {
  if (painted !== now) {
    painted = now;
    whenChanged(painted);
  }
}

function setErasing(now) {
  erasing = now;
  byId("paint").setAttribute("aria-pressed", String(!erasing));
  byId("erase").setAttribute("aria-pressed", String(erasing));
}

const brushSize = () => Math.max(1, (brush.value / 100) * Math.min(canvas.width, canvas.height));

function stroke(from, to) {
  context.globalCompositeOperation = erasing ? "destination-out" : "source-over";
  context.strokeStyle = COLOUR;
  context.lineCap = "round";
  context.lineWidth = brushSize();
  context.beginPath();
  context.moveTo(from.x, from.y);
  context.lineTo(to.x, to.y);
  context.stroke();
  if (!erasing) {
    setPainted(true);
  }
}

/** After erasing, the mask may be empty again. */
function look() {
  if (erasing && painted) {
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    setPainted(data.some((value, index) => index % 4 === 3 && value > 127));
  }
}

function showRing(visible) {
  ring.hidden = !visible;
  const scale = canvas.clientWidth / canvas.width;
  const size = brushSize() * scale;
  ring.style.width = ring.style.height = `${size}px`;
  ring.style.left = `${at.x * scale - size / 2}px`;
  ring.style.top = `${at.y * scale - size / 2}px`;
}

function position(event) {
  const scale = canvas.width / canvas.clientWidth;
  return { x: event.offsetX * scale, y: event.offsetY * scale };
}

canvas.after(ring);

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  at = last = position(event);
  stroke(last, last);
  showRing(true);
});
canvas.addEventListener("pointermove", (event) => {
  at = position(event);
  if (last) {
    stroke(last, at);
    last = at;
  }
  showRing(true);
});
for (const name of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(name, () => {
    last = null;
    look();
  });
}
canvas.addEventListener("pointerleave", () => showRing(canvas.matches(":focus-visible")));
canvas.addEventListener("focus", () => showRing(canvas.matches(":focus-visible")));
canvas.addEventListener("blur", () => showRing(false));
canvas.addEventListener("keydown", (event) => {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const move = moves[event.key];
  if (move) {
    const step = brushSize() / 2;
    at = {
      x: Math.min(canvas.width, Math.max(0, at.x + move[0] * step)),
      y: Math.min(canvas.height, Math.max(0, at.y + move[1] * step)),
    };
  } else if (event.key === " ") {
    stroke(at, at);
    look();
  } else {
    return;
  }
  event.preventDefault();
  showRing(true);
});

byId("paint").addEventListener("click", () => setErasing(false));
byId("erase").addEventListener("click", () => setErasing(true));
byId("mask-clear").addEventListener("click", () => {
  context.clearRect(0, 0, canvas.width, canvas.height);
  setPainted(false);
});
