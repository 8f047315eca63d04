// Checks the page of `altdiffusion serve` in a real Chromium, against a running server:
//
//     npm install                                    (in this folder)
//     node page.mjs http://127.0.0.1:7860/
//
// Chromium is the one at $CHROMIUM or on the PATH; every distribution has a package of it, such as `apt install chromium`.
// Prints a line per check, and exits with 1 if one fails. What the server does not offer, such as search, is not checked,
// and said so.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { drawn, launch, open, run } from "./browser.mjs";

const url = process.argv[2];
if (!url) {
  console.error("expected the address of a running server, such as http://127.0.0.1:7860/");
  process.exit(2);
}
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const offered = (await (await fetch(new URL("v1/index", url))).json()).indexes;
const browser = await launch();
// A PNG of one colour without any text, 64 × 64.
let plain;
// A PNG that the page drew, with its settings.
let recorded;

const GENERATIONS = "**/v1/images/generations";
const isDraw = (request) => request.url().endsWith("/v1/images/generations");
const value = (page, selector) => page.locator(selector).inputValue();
const textOf = async (page, selector) => (await page.locator(selector).textContent()).trim();

/** Draws a prompt with the button, and returns the request. */
async function draw(page, prompt) {
  const live = page.locator("#live");
  await live.uncheck();
  await page.fill("#prompt", prompt);
  return press(page);
}

async function press(page) {
  const [request] = await Promise.all([page.waitForRequest(isDraw), page.click("#draw")]);
  await drawn(page);
  return request.postDataJSON();
}

/** Drops a file in the middle of an element. */
async function drop(page, selector, name, base64) {
  const transfer = await page.evaluateHandle(([name, base64]) => {
    const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type: "image/png" }));
    return transfer;
  }, [name, base64]);
  for (const type of ["dragover", "drop"]) {
    await page.dispatchEvent(selector, type, { dataTransfer: transfer });
  }
}

const answerWith = (status, error) => (route) =>
  route.fulfill({ status, contentType: "application/json", body: JSON.stringify({ error: { type: "test", code: null, param: null, ...error } }) });

async function accessible(page, tab) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => `${tab}: ${id} ${nodes[0].html}`), []);
}

const checks = [
  ["typing 一只猫 draws it, step by step", async () => {
    const page = await open(browser, url);
    await page.evaluate(() => {
      globalThis.previews = new Set();
      new MutationObserver(() => document.querySelectorAll("#tiles img.preview").forEach(({ src }) => globalThis.previews.add(src)))
        .observe(document.querySelector("#tiles"), { subtree: true, attributes: true });
    });
    await page.locator("#prompt").pressSequentially("一只猫", { delay: 50 });
    const typed = Date.now();
    await drawn(page);
    const seconds = (Date.now() - typed) / 1000;
    const image = page.locator("#tiles img");
    assert.equal(await image.getAttribute("alt"), "一只猫");
    assert.equal(await image.evaluate((node) => node.naturalWidth), 256);
    assert.equal(await image.evaluate((node) => node.clientWidth % 256), 0, "expected whole pixels");
    assert.match(await textOf(page, "#about-text"), /一只猫 · seed \d+ · 256 × 256/);
    assert.match(await textOf(page, "#status"), /^Drawn: 一只猫/);
    const previews = await page.evaluate(() => globalThis.previews.size);
    assert.ok(previews > 1, "expected previews");
    assert.deepEqual(page.complaints, []);
    const [, drawing] = (await textOf(page, "#about-text")).match(/([\d.]+) s$/);
    return `${previews} previews, ${seconds.toFixed(2)} s after typing ended, ${drawing} s of it drawing`;
  }],
  ["typing on cancels what is drawn, and keeps the seed and one entry of the history", async () => {
    const page = await open(browser, url);
    const requests = [];
    page.on("request", (request) => isDraw(request) && requests.push(request.postDataJSON()));
    for (const letters of ["a", " c", "at"]) {
      await page.locator("#prompt").pressSequentially(letters);
      await page.waitForTimeout(350);
    }
    await drawn(page);
    assert.deepEqual(requests.map(({ prompt }) => prompt), ["a", "a c", "a cat"]);
    assert.equal(new Set(requests.map(({ seed }) => seed)).size, 1);
    assert.equal(await page.locator("#history-list li").count(), 1);
  }],
  ["the letters of an input method are not drawn before they are words", async () => {
    const page = await open(browser, url);
    const requests = [];
    page.on("request", (request) => isDraw(request) && requests.push(request.postDataJSON().prompt));
    await page.focus("#prompt");
    const session = await page.context().newCDPSession(page);
    await session.send("Input.imeSetComposition", { text: "mao", selectionStart: 3, selectionEnd: 3 });
    await page.waitForTimeout(500);
    assert.deepEqual(requests, []);
    await session.send("Input.insertText", { text: "猫" });
    await drawn(page);
    assert.deepEqual(requests, ["猫"]);
  }],
  ["cancel stops at once, and the next image is drawn", async () => {
    const page = await open(browser, url);
    await page.locator("#live").uncheck();
    await page.fill("#count", "16");
    await page.fill("#steps", "100");
    // Small images would be drawn faster than a browser shows their steps.
    await page.fill("#width", "256");
    await page.fill("#height", "256");
    await page.fill("#prompt", "slow cat");
    const cancelled = page.waitForEvent("requestfailed", isDraw);
    await page.click("#draw");
    await page.waitForSelector("#tiles img.preview");
    await page.focus("#cancel");
    await page.keyboard.press("Enter");
    await cancelled;
    assert.equal(await textOf(page, "#status"), "Cancelled");
    assert.ok(await page.locator("#draw-error").isHidden());
    assert.equal(await page.locator("#tiles img.preview").count(), 0);
    assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
    await page.fill("#count", "1");
    await page.fill("#steps", "20");
    await page.fill("#width", "64");
    await page.fill("#height", "64");
    const started = Date.now();
    await draw(page, "a cat");
    return `${((Date.now() - started) / 1000).toFixed(2)} s for the next one`;
  }],
  ["all settings are sent, and a batch has consecutive seeds", async () => {
    const page = await open(browser, url);
    for (const [id, text] of Object.entries({ negative: "red", steps: "8", guidance: "1.5", seed: "7", count: "2" })) {
      await page.fill(`#${id}`, text);
    }
    await page.selectOption("#scheduler", "euler");
    const { model, stream, partial_images, response_format, ...sent } = await draw(page, "a cat");
    assert.deepEqual(sent, {
      prompt: "a cat", negative_prompt: "red", n: 2, size: "64x64", scale: 4, steps: 8, guidance_scale: 1.5, seed: 7,
      scheduler: "euler",
    });
    await page.locator("#tiles button").nth(1).click();
    assert.match(await textOf(page, "#about-text"), /seed 8/);
  }],
  ["history: again gives the same seed, another seed another, download the file, and a reload keeps it", async () => {
    const page = await open(browser, url);
    const first = await draw(page, "a cat");
    const again = await Promise.all([page.waitForRequest(isDraw), page.click("#again")]);
    assert.equal(again[0].postDataJSON().seed, first.seed);
    await drawn(page);
    const another = await Promise.all([page.waitForRequest(isDraw), page.click("#another")]);
    assert.notEqual(another[0].postDataJSON().seed, first.seed);
    await drawn(page);
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#download")]);
    assert.match(download.suggestedFilename(), /^a-cat-\d+\.png$/);
    recorded = (await readFile(await download.path())).toString("base64");
    await page.reload();
    await page.waitForSelector("#history-list li");
    assert.equal(await page.locator("#history-list li").count(), 3);
    await page.locator("#history-list button").nth(2).click();
    assert.match(await textOf(page, "#about-text"), new RegExp(`seed ${first.seed}`));
    await page.click("#history-remove");
    assert.equal(await page.locator("#history-list li").count(), 2);
    await page.click("#history-clear");
    assert.ok(await page.locator("#history").isHidden());
  }],
  ["a dropped PNG fills in its settings, which can be undone, or is where to start from", async () => {
    const page = await open(browser, url);
    await page.fill("#steps", "9");
    await page.selectOption("#scale", "1");
    await drop(page, "#panel-draw", "cat.png", recorded);
    await page.waitForSelector("#dropped:not([hidden])");
    assert.equal(await value(page, "#scale"), "4");
    assert.equal(await value(page, "#prompt"), "a cat");
    assert.equal(await value(page, "#steps"), "6");
    assert.match(await value(page, "#seed"), /^\d+$/);
    await page.click("#dropped-undo");
    assert.deepEqual([await value(page, "#prompt"), await value(page, "#steps")], ["", "9"]);
    await drop(page, "#panel-draw", "cat.png", recorded);
    await page.click("#dropped-start");
    await page.click("#start-remove");
    // The record cannot be read, and the server says so in the form of that interface.
    const unread = { error: "HTTPException", detail: "expected a smaller file", body: "", errors: "expected a smaller file" };
    await page.route("**/png-info", (route) => route.fulfill({ status: 413, contentType: "application/json", body: JSON.stringify(unread) }));
    await drop(page, "#panel-draw", "photo.png", recorded);
    await page.getByRole("img", { name: "photo.png" }).waitFor();
    assert.ok(await page.locator("#start-image").isVisible());
  }],
  ["image to image and inpainting: a dropped image, a brush, and the keyboard", async () => {
    const page = await open(browser, url);
    plain = await page.evaluate(() => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
      canvas.getContext("2d").fillRect(0, 0, 64, 64);
      return canvas.toDataURL().split(",")[1];
    });
    await drop(page, "#panel-draw", "plain.png", plain);
    await page.waitForSelector("#start-full:not([hidden])");
    const without = await draw(page, "a cat");
    assert.deepEqual([without.image, without.mask, without.strength, without.size], [plain, undefined, 0.8, "auto"]);
    const box = await page.locator("#mask").boundingBox();
    await page.mouse.move(box.x + 50, box.y + 50);
    await page.mouse.down();
    await page.mouse.move(box.x + 150, box.y + 90, { steps: 5 });
    await page.mouse.up();
    const brushed = await press(page);
    assert.equal(brushed.strength, 1);
    assert.ok(brushed.mask.startsWith("iVBOR"));
    await page.click("#mask-clear");
    assert.equal((await press(page)).mask, undefined);
    await page.focus("#mask");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press(" ");
    assert.ok((await press(page)).mask);
    await page.click("#start-remove");
    assert.equal(await value(page, "#width"), "64");
  }],
  ["errors are one line where they belong", async () => {
    const page = await open(browser, url);
    await page.click("#draw");
    assert.equal(await textOf(page, "#draw-error"), "Write what to draw first");
    await page.fill("#steps", "0");
    await page.fill("#prompt", "a cat");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#steps[aria-invalid]");
    assert.match(await textOf(page, "#error-steps"), /whole number, 1/);
    await page.fill("#steps", "20");
    await page.route(GENERATIONS, answerWith(429, { message: "8 requests are waiting: expected fewer" }));
    await page.click("#draw");
    await page.getByText("8 requests are waiting: expected fewer").waitFor();
    await page.unroute(GENERATIONS);
    await page.route(GENERATIONS, answerWith(400, { message: "expected a size that is a multiple of 8", param: "size" }));
    await page.click("#draw");
    await page.waitForSelector("#width[aria-invalid]");
    await page.unroute(GENERATIONS);
    await page.route(GENERATIONS, (route) => route.abort());
    await page.click("#draw");
    await page.getByText("The server cannot be reached").waitFor();
    await drop(page, "#panel-draw", "notes.png", btoa("no image"));
    await page.getByText("notes.png is not an image that this browser can read").waitFor();
    // The connection breaks while the image is drawn.
    await page.evaluate(() => {
      const broken = () => new ReadableStream({ pull: (stream) => stream.error(new TypeError("network error")) });
      globalThis.fetch = async () => new Response(broken());
    });
    await page.click("#draw");
    await page.getByText("The server cannot be reached").waitFor();
  }],
  ["images that leave the history leave the memory", async () => {
    const page = await open(browser, url);
    await draw(page, "a cat");
    const address = await page.locator("#tiles img").getAttribute("src");
    await page.evaluate(() => {
      globalThis.revoked = [];
      URL.revokeObjectURL = (address) => globalThis.revoked.push(address);
    });
    await page.click("#history-clear");
    assert.deepEqual(await page.evaluate(() => globalThis.revoked), [address]);
  }],
  ["an image that the safety checker made black is said to be that", async () => {
    const page = await open(browser, url);
    const image = { type: "image_generation.completed", image: 0, b64_json: plain, seed: 7, width: 64, height: 64, parameters: "", flagged: true };
    const body = `event: ${image.type}\ndata: ${JSON.stringify(image)}\n\n`;
    await page.route(GENERATIONS, (route) => route.fulfill({ contentType: "text/event-stream", body }));
    await draw(page, "a cat");
    assert.ok(await page.locator("#flagged").isVisible());
    await page.unroute(GENERATIONS);
    await draw(page, "a cat");
    assert.ok(await page.locator("#flagged").isHidden());
  }],
  ["a key is asked for, and sent", async () => {
    const context = await browser.newContext({ locale: "en-GB" });
    const page = await context.newPage();
    await page.route("**/v1/models", (route) =>
      route.request().headers().authorization === "Bearer abc" ? route.continue() : answerWith(401, { message: "expected a key" })(route));
    await page.goto(url);
    await page.fill("#key", "wrong");
    await page.keyboard.press("Enter");
    await page.getByText("The server does not accept this key").waitFor();
    await page.fill("#key", "abc");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#panel-draw:not([hidden])");
    const [request] = await Promise.all([page.waitForRequest(isDraw), page.fill("#prompt", "a cat")]);
    assert.equal(request.headers().authorization, "Bearer abc");
  }],
  ["a browser that forbids storage draws, and keeps the key while the page is open", async () => {
    const context = await browser.newContext({ locale: "en-GB" });
    const page = await context.newPage();
    await page.addInitScript(() => {
      const forbidden = { get: () => { throw new DOMException("Access is denied", "SecurityError"); } };
      for (const name of ["sessionStorage", "localStorage", "indexedDB"]) {
        Object.defineProperty(globalThis, name, forbidden);
      }
    });
    await page.route("**/v1/models", (route) =>
      route.request().headers().authorization === "Bearer abc" ? route.continue() : answerWith(401, { message: "expected a key" })(route));
    await page.goto(url);
    await page.fill("#key", "abc");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#panel-draw:not([hidden])");
    const [request] = await Promise.all([page.waitForRequest(isDraw), page.fill("#prompt", "a cat")]);
    assert.equal(request.headers().authorization, "Bearer abc");
    await drawn(page);
  }],
  ["search by text and by a dropped image", async () => {
    if (offered.length === 0) {
      return { skipped: "the server offers no index" };
    }
    const page = await open(browser, url);
    await page.click("#tab-search");
    await page.fill("#search-text", "一只猫");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#hits li");
    assert.match(await textOf(page, "#search-query"), /results for “一只猫”/);
    await page.waitForFunction(() => [...document.querySelectorAll("#hits img")].every((image) => image.naturalWidth > 0));
    await drop(page, "#panel-search", "plain.png", plain);
    await page.locator("#search-query").getByText("results for “plain.png”").waitFor();
    return `${await page.locator("#hits li").count()} results`;
  }],
  ["similarity of texts and images", async () => {
    const page = await open(browser, url);
    if (await page.locator("#tab-similarity").isHidden()) {
      return { skipped: "the server offers no embedder" };
    }
    await page.click("#tab-similarity");
    await page.fill("#texts", "a cat\na rocket");
    await page.click("#similarity-form [type=submit]");
    assert.equal(await textOf(page, "#similarity-error"), "Add at least one image");
    await drop(page, "#panel-similarity", "cat.png", recorded);
    await page.waitForSelector("#similarity-images li");
    await page.click("#similarity-form [type=submit]");
    await page.waitForSelector("#comparison li");
    const shares = await page.locator("#comparison strong").allTextContents();
    assert.equal(Math.round(shares.reduce((sum, share) => sum + parseFloat(share), 0)), 100);
  }],
  ["Chinese and English, by the browser and by the switch", async () => {
    const page = await open(browser, url, { locale: "zh-CN" });
    assert.equal(await page.getAttribute("html", "lang"), "zh-CN");
    assert.equal(await textOf(page, "#draw"), "开画");
    await draw(page, "一只猫");
    assert.match(await textOf(page, "#about-text"), /种子 \d+/);
    await page.click("#language");
    assert.equal(await textOf(page, "#draw"), "Draw");
    assert.match(await textOf(page, "#about-text"), /seed \d+/);
    const chinese = await page.locator("[data-text]:not([data-values])").evaluateAll((nodes) =>
      nodes.map((node) => node.textContent).filter((text) => text === "" || /\p{Script=Han}/u.test(text)));
    assert.deepEqual(chinese, []);
    await page.reload();
    await page.getByRole("button", { name: "Draw", exact: true }).waitFor();
  }],
  ["a phone, 360 pixels wide, without horizontal scrolling", async () => {
    for (const locale of ["en-GB", "zh-CN"]) {
      const page = await open(browser, url, { locale, viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
      await page.fill("#prompt", "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft");
      await drawn(page);
      await page.click("#settings > summary");
      for (const tab of await page.locator("[role=tab]:visible").all()) {
        await tab.click();
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 360, await tab.textContent());
      }
    }
  }],
  ["the keyboard alone reaches and shows everything", async () => {
    const page = await open(browser, url);
    // Where the order begins.
    await page.locator("h1").click();
    await page.keyboard.press("Tab");
    if (await page.locator("#tabs").isVisible()) {
      await page.keyboard.press("End");
      assert.equal(await page.locator("[role=tab]").last().getAttribute("aria-selected"), "true");
      await page.keyboard.press("Home");
      await page.keyboard.press("Tab");
    }
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
    await page.keyboard.type("a cat");
    await page.keyboard.press("Enter");
    await drawn(page);
    const reached = new Set();
    for (let at = 0; at < 60; at += 1) {
      await page.keyboard.press("Tab");
      const [id, visible] = await page.evaluate(() => {
        const { activeElement: node } = document;
        const ringed = [node, node.closest(".button"), node.closest(".card")].some((one) => one && (getComputedStyle(one).outlineStyle !== "none" || getComputedStyle(one).boxShadow !== "none"));
        return [node.id, ringed || node === document.body];
      });
      assert.ok(visible, `expected a visible focus on ${id}`);
      reached.add(id);
    }
    for (const id of ["live", "draw", "negative", "seed", "scheduler", "start-file", "again", "another", "download", "from-result", "history-clear"]) {
      assert.ok(reached.has(id), `expected to reach ${id}`);
    }
  }],
  ["nothing that axe-core finds, in light and dark", async () => {
    for (const colorScheme of ["light", "dark"]) {
      const page = await open(browser, url, { colorScheme, reducedMotion: "reduce" });
      await draw(page, "a cat");
      for (const tab of await page.locator("[role=tab]:visible").all()) {
        await tab.click();
        await accessible(page, await tab.textContent());
      }
    }
  }],
  ["the server's policy allows nothing from elsewhere, and the page needs nothing", async () => {
    const page = await open(browser, url);
    const elsewhere = [];
    page.on("request", (request) => /^https?:/.test(request.url()) && !request.url().startsWith(url) && elsewhere.push(request.url()));
    const response = await page.reload();
    await draw(page, "a cat");
    assert.match(response.headers()["content-security-policy"] ?? "", /default-src 'self'/);
    assert.deepEqual([elsewhere, page.complaints], [[], []]);
  }],
];

const passed = await run(checks);
await browser.close();
process.exit(passed ? 0 : 1);
