// Opens the page in a real Chromium, and reports checks one per line.

import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { chromium } from "playwright-core";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/** The Chromium of $CHROMIUM, or the first one on the PATH. */
function executable() {
  if (process.env.CHROMIUM) {
    return process.env.CHROMIUM;
  }
  const folders = (process.env.PATH ?? "").split(delimiter);
  const found = folders.flatMap((folder) => NAMES.map((name) => join(folder, name))).find(existsSync);
  if (!found) {
    throw new Error("expected Chromium on the PATH or at $CHROMIUM: install it with the system's packages, such as `apt install chromium`");
  }
  return found;
}

/** Launches Chromium. As root, as in containers, it only runs without its sandbox. */
export const launch = () =>
  chromium.launch({ executablePath: executable(), args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });

/** Opens the page in a context of its own. What the browser complains about is collected in `page.complaints`. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({ locale: "en-GB", viewport: { width: 1200, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  page.complaints = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && page.complaints.push(message.text()));
  page.on("pageerror", (error) => page.complaints.push(error.message));
  await page.goto(url);
  await page.waitForSelector("[role=tabpanel]:not([hidden])");
  return page;
}

/** Waits until nothing is being drawn and an image is shown. */
export const drawn = (page) => page.waitForSelector(".result:has(#running:not(.on)) #tiles img:not(.preview, .earlier)[src^='blob:']");

/** Runs checks one after another: each is a name and a function that throws, or returns what is worth telling. */
export async function run(checks) {
  let failed = 0;
  for (const [name, check] of checks) {
    try {
      const told = await check();
      console.log(`${told?.skipped ? "not checked" : "ok"}: ${name}${told ? ` (${told.skipped ?? told})` : ""}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED: ${name}: ${error.message.split("\n").slice(0, 4).join(" | ")}`);
    }
  }
  console.log(failed === 0 ? `all ${checks.length} checks passed` : `${failed} of ${checks.length} checks failed`);
  return failed === 0;
}
