// Makes docs/images/page-{light,dark,phone,zh}.png from a running server:
//
//     (cd crates/altdiffusion-server/tests/page && npm install)
//     node scripts/page-screenshots.mjs http://127.0.0.1:7860/
//
// Chromium is found as for the tests.

import { mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { drawn, launch, open } from "../crates/altdiffusion-server/tests/page/browser.mjs";

const url = process.argv[2];
if (!url) {
  console.error("expected the address of a running server, such as http://127.0.0.1:7860/");
  process.exit(2);
}
const sharp = createRequire(new URL("../crates/altdiffusion-server/tests/page/", import.meta.url))("sharp");
const wide = { viewport: { width: 1120, height: 940 } };
const phone = { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
const english = ["a hedgehog", "bubbles", "a graduation cap", "a cat", "a rocket"];
const chinese = ["刺猬", "帆船", "毕业帽", "一只猫", "火箭"];
const pictures = {
  light: [english, wide],
  dark: [english, { ...wide, colorScheme: "dark" }],
  zh: [chinese, { ...wide, locale: "zh-CN" }],
  phone: [chinese.slice(2), { ...phone, locale: "zh-CN" }],
};

const folder = new URL("../docs/images/", import.meta.url).pathname;
await mkdir(folder, { recursive: true });

const browser = await launch();
for (const [name, [prompts, options]] of Object.entries(pictures)) {
  const page = await open(browser, url, options);
  await page.locator("#live").uncheck();
  for (const prompt of prompts) {
    await page.locator("#seed").evaluate((input) => (input.value = "7"));
    await page.fill("#prompt", prompt);
    await page.click("#draw");
    await page.getByRole("img", { name: prompt, exact: true }).waitFor();
    await drawn(page);
  }
  await page.locator("#live").check();
  await page.evaluate(() => scrollTo(0, 0));
  const screenshot = await page.screenshot();
  const path = `${folder}page-${name}.png`;
  const { size } = await sharp(screenshot).png({ palette: true, colours: 128, effort: 10 }).toFile(path);
  console.log(`${path}: ${Math.ceil(size / 1024)} KB`);
}
await browser.close();
