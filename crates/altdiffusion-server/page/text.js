// Holds the texts of the page, in English and in Chinese, and chooses the language.

const texts = {
  en: {
    "tabs": "What to do",
    "draw": "Draw",
    "search": "Search",
    "similarity": "Compare",
    "other-language": "中文",
    "prompt": "What to draw",
    "prompt-hint": "What would you like to see?",
    "draw-button": "Draw",
    "live": "Draw as I type",
    "settings": "Settings",
    "model": "Model",
    "start-image": "Start from an image",
    "choose-image": "Choose an image",
    "or-drop": "or drop or paste one anywhere",
    "use-as-start": "Start from it",
    "undo": "Undo",
    "mask-label": "Mask: paint on the image what is to be redrawn",
    "mask-hint": "Paint over what is to be redrawn. By keyboard: arrows move, space paints.",
    "brush": "Brush",
    "paint": "Paint",
    "erase": "Erase",
    "clear-mask": "Clear",
    "remove-image": "Remove",
    "brush-size": "Brush size",
    "strength": "How much may change",
    "negative": "Negative prompt",
    "width": "Width",
    "height": "Height",
    "scale": "Enlarge",
    "automatic": "auto",
    "steps": "Steps",
    "guidance": "Guidance scale",
    "seed": "Seed",
    "random": "random",
    "count": "Images",
    "scheduler": "Scheduler",
    "model-scheduler": "the model’s own",
    "weights": "Read weights, as in (word:1.3)",
    "add-lora": "Add a LoRA",
    "add-control": "Add a ControlNet",
    "name-strength": "Strength of {name}",
    "remove-name": "Remove {name}",
    "image-for": "Image for {name}",
    "control-image-missing": "{name} needs an image to follow",
    "progress": "Progress",
    "cancel": "Cancel",
    "cancelled": "Cancelled",
    "starting": "Waiting for the model",
    "step": "Step {step} of {steps}",
    "image-step": "Image {image} of {images}, step {step} of {steps}",
    "empty": "Describe it in your own language. Or try one of these:",
    "examples": "a cat|a rocket|a strawberry",
    "again": "Again",
    "another-seed": "Another seed",
    "download": "Download",
    "parameters": "All parameters",
    "history": "History",
    "clear-history": "Clear history",
    "remove-selected": "Remove this one",
    "entry": "{prompt}, seed {seed}",
    "about": "{prompt} · seed {seed} · {width} × {height}",
    "about-timed": "{prompt} · seed {seed} · {width} × {height} · {seconds} s",
    "flagged": "The safety checker made this image black. Another seed may give one that passes.",
    "drawn": "Drawn: {prompt}, seed {seed}",
    "drawn-several": "Drawn: {count} images of {prompt}",
    "settings-read": "Settings read from {name}.",
    "settings-read-except": "Settings read from {name}, except: {unused}.",
    "start-set": "Starting from {name}.",
    "prompt-missing": "Write what to draw first",
    "number-expected": "Expected a number, {min} to {max}",
    "whole-expected": "Expected a whole number, {min} to {max}",
    "multiple-expected": "Expected a multiple of {step}, {min} to {max}",
    "not-an-image": "{name} is not an image that this browser can read",
    "no-server": "The server cannot be reached",
    "server-status": "The server answered {status}",
    "ended-early": "The server closed the connection before the image was finished",
    "nothing-offered": "This server offers nothing that this page can show",
    "search-button": "Search",
    "search-text": "What to search for",
    "search-hint": "Search images by what they show",
    "search-by-image": "Search by image",
    "search-missing": "Write what to search for, or choose an image",
    "index": "Index",
    "searching": "Searching…",
    "found": "{count} results for “{query}”",
    "found-none": "Nothing found for “{query}”",
    "more-like": "More like this",
    "more-like-name": "More like {name}",
    "score": "score {score}",
    "similarity-hint": "How well does each text describe each image? The texts compete, so write at least two. You can also drop or paste images.",
    "texts": "Texts, one a line",
    "texts-hint": "a photo of a cat\na photo of a dog",
    "add-images": "Add images",
    "compare": "Compare",
    "comparing": "Comparing…",
    "compared": "Compared {texts} texts with {images} images",
    "texts-missing": "Write at least one text",
    "images-missing": "Add at least one image",
    "cosine": "cosine {value}",
    "key-title": "This server asks for a key",
    "key": "API key",
    "key-refused": "The server does not accept this key",
    "key-hint": "It is kept until you close this tab.",
    "continue": "Continue",
  },
  zh: {
    "tabs": "功能",
    "draw": "画图",
    "search": "搜图",
    "similarity": "图文比较",
    "other-language": "English",
    "prompt": "提示词",
    "prompt-hint": "想画点什么？",
    "draw-button": "开画",
    "live": "边写边画",
    "settings": "设置",
    "model": "模型",
    "start-image": "图生图",
    "choose-image": "选择图片",
    "or-drop": "也可以拖放或粘贴到页面任意处",
    "use-as-start": "以此图为起点",
    "undo": "撤销",
    "mask-label": "蒙版：在图上涂出要重画的地方",
    "mask-hint": "涂抹要重画的地方。键盘操作：方向键移动，空格键涂抹。",
    "brush": "画笔",
    "paint": "涂抹",
    "erase": "擦除",
    "clear-mask": "清空",
    "remove-image": "移除",
    "brush-size": "画笔大小",
    "strength": "重绘幅度",
    "negative": "反向提示词",
    "width": "宽度",
    "height": "高度",
    "scale": "放大",
    "automatic": "自动",
    "steps": "步数",
    "guidance": "引导系数",
    "seed": "种子",
    "random": "随机",
    "count": "张数",
    "scheduler": "调度器（采样器）",
    "model-scheduler": "模型自带",
    "weights": "读取权重，如（词：1.3）",
    "add-lora": "添加 LoRA",
    "add-control": "添加 ControlNet",
    "name-strength": "{name} 的强度",
    "remove-name": "移除 {name}",
    "image-for": "{name} 的控制图",
    "control-image-missing": "{name} 还缺一张控制图",
    "progress": "进度",
    "cancel": "取消",
    "cancelled": "已取消",
    "starting": "等待模型",
    "step": "第 {step} 步，共 {steps} 步",
    "image-step": "第 {image} 张，共 {images} 张；第 {step} 步，共 {steps} 步",
    "empty": "用你的语言写下想画的东西，或者试试：",
    "examples": "一只猫|火箭|草莓",
    "again": "再画一次",
    "another-seed": "换个种子",
    "download": "下载",
    "parameters": "全部参数",
    "history": "历史",
    "clear-history": "清空历史",
    "remove-selected": "删除这张",
    "entry": "{prompt}，种子 {seed}",
    "about": "{prompt} · 种子 {seed} · {width} × {height}",
    "about-timed": "{prompt} · 种子 {seed} · {width} × {height} · {seconds} 秒",
    "flagged": "安全检查器把这张图涂黑了，换个种子也许能通过。",
    "drawn": "画好了：{prompt}，种子 {seed}",
    "drawn-several": "画好了：{prompt}，共 {count} 张",
    "settings-read": "已读取 {name} 的设置。",
    "settings-read-except": "已读取 {name} 的设置，以下除外：{unused}。",
    "start-set": "以 {name} 为起点。",
    "prompt-missing": "请先写下想画的东西",
    "number-expected": "应为 {min} 到 {max} 的数",
    "whole-expected": "应为 {min} 到 {max} 的整数",
    "multiple-expected": "应为 {min} 到 {max} 之间 {step} 的倍数",
    "not-an-image": "浏览器无法读取图片 {name}",
    "no-server": "无法连接服务器",
    "server-status": "服务器返回 {status}",
    "ended-early": "图还没画完，服务器就断开了连接",
    "nothing-offered": "此服务器没有提供这个页面能用的功能",
    "search-button": "搜索",
    "search-text": "搜索内容",
    "search-hint": "描述要找的图片",
    "search-by-image": "以图搜图",
    "search-missing": "请写下要找的内容，或选择一张图片",
    "index": "索引",
    "searching": "正在搜索…",
    "found": "“{query}”：{count} 个结果",
    "found-none": "没有找到“{query}”",
    "more-like": "找相似",
    "more-like-name": "找与 {name} 相似的图",
    "score": "得分 {score}",
    "similarity-hint": "每段文字与每张图片有多相符？各段文字相互竞争，请至少写两段。图片也可以拖放或粘贴。",
    "texts": "文字，每行一段",
    "texts-hint": "一张猫的照片\n一张狗的照片",
    "add-images": "添加图片",
    "compare": "比较",
    "comparing": "正在比较…",
    "compared": "已比较 {texts} 段文字与 {images} 张图片",
    "texts-missing": "请至少写一段文字",
    "images-missing": "请至少添加一张图片",
    "cosine": "余弦 {value}",
    "key-title": "此服务器需要密钥",
    "key": "API 密钥",
    "key-refused": "服务器不接受此密钥",
    "key-hint": "密钥只保留到此标签页关闭为止。",
    "continue": "继续",
  },
};

let current = "en";

/** Chooses the language: the one chosen before, or the browser's. */
export function chooseLanguage() {
  let chosen = null;
  try {
    chosen = localStorage.getItem("language");
  } catch { /* Storage may be forbidden; then the browser's language it is. */ }
  setLanguage(chosen ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en"));
}

export function switchLanguage() {
  setLanguage(current === "zh" ? "en" : "zh");
  try {
    localStorage.setItem("language", current);
  } catch { /* It is then asked for again. */ }
}

function setLanguage(language) {
  current = language === "zh" ? "zh" : "en";
  document.documentElement.lang = current === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-text], [data-label], [data-placeholder]")) {
    translate(node);
  }
  document.dispatchEvent(new Event("language"));
}

/** The text of a key, with its `{values}`. */
export function text(key, values = {}) {
  return texts[current][key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Makes a node say a text, in whichever language is chosen later, too. */
export function say(node, key, values = {}) {
  node.dataset.text = key;
  node.dataset.values = JSON.stringify(values);
  translate(node);
}

/** The same for its label, which screen readers read. */
export function label(node, key, values = {}) {
  node.dataset.label = key;
  node.dataset.values = JSON.stringify(values);
  translate(node);
}

export function silence(node) {
  delete node.dataset.text;
  node.textContent = "";
}

function translate(node) {
  const values = JSON.parse(node.dataset.values ?? "{}");
  if (node.dataset.text) {
    node.textContent = text(node.dataset.text, values);
  }
  if (node.dataset.label) {
    node.setAttribute("aria-label", text(node.dataset.label, values));
  }
  if (node.dataset.placeholder) {
    node.placeholder = text(node.dataset.placeholder, values);
  }
}
