//! Translates messages by their templates.

use std::cmp::Reverse;
use std::collections::HashMap;

use regex::Regex;
use serde::Deserialize;

const CHINESE: &str = include_str!("../../locales/zh-CN.toml");
/// The placeholder in a template.
const HOLE: &str = "{}";
/// The placeholder for a number.
const NUMBER: &str = "{#}";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    headings: HashMap<String, String>,
    /// Keyed by the first sentence of an English help text: that sentence in Chinese, and the rest if there is one.
    help: HashMap<String, Vec<String>>,
    messages: HashMap<String, String>,
}

/// Texts in another language.
pub struct Catalogue {
    headings: HashMap<String, String>,
    help: HashMap<String, Vec<String>>,
    messages: Vec<Message>,
}

struct Message {
    template: Regex,
    /// A prefix before the cause, such as `error: `. It is removed first.
    is_prefix: bool,
    /// The length of the fixed text: more specific templates are tried first.
    fixed: usize,
    translation: String,
}

impl Catalogue {
    /// Simplified Chinese.
    pub fn chinese() -> Self {
        // The file is embedded and a test parses it, so it is valid at run time.
        let File { headings, help, messages } = toml::from_str(CHINESE).unwrap_or(File {
            headings: HashMap::new(),
            help: HashMap::new(),
            messages: HashMap::new(),
        });
        let mut messages: Vec<Message> = messages
            .into_iter()
            .filter_map(|(template, translation)| Message::new(&template, translation))
            .collect();
        let order = |message: &Message| (!message.is_prefix, Reverse(message.fixed));
        messages.sort_by(|a, b| order(a).cmp(&order(b)).then_with(|| a.translation.cmp(&b.translation)));
        Self { headings, help, messages }
    }

    /// Translates a heading of a help text.
    pub fn heading<'a>(&'a self, english: &'a str) -> &'a str {
        self.headings.get(english).map_or(english, String::as_str)
    }

    /// The translation of a help text's first sentence and of the rest, if known.
    pub fn help(&self, first_sentence: &str) -> Option<(&str, &str)> {
        let parts = self.help.get(first_sentence.trim_end_matches('.'))?;
        Some((parts.first()?, parts.get(1).map_or("", String::as_str)))
    }

    /// Translates a one-line message. If the whole is unknown, its parts are translated separately: errors name
    /// option, file and cause, separated by colons.
    pub fn message(&self, english: &str) -> String {
        for message in &self.messages {
            if let Some(found) = message.template.captures(english) {
                let parts: Vec<String> =
                    found.iter().skip(1).flatten().map(|part| self.message(part.as_str())).collect();
                return filled(&message.translation, &parts);
            }
        }
        match english.split_once(": ") {
            Some((start, rest)) => format!("{}: {}", self.message(start), self.message(rest)),
            None => english.to_owned(),
        }
    }
}

impl Message {
    fn new(template: &str, translation: String) -> Option<Self> {
        let fixed = template.replace(HOLE, "").replace(NUMBER, "").chars().count();
        let is_prefix = template.strip_suffix(": {}").is_some_and(|start| !start.contains('{'));
        let pattern = regex::escape(template).replace(&regex::escape(HOLE), "(.+?)");
        let pattern = pattern.replace(&regex::escape(NUMBER), r"(\d+)");
        Some(Self { template: Regex::new(&format!("^{pattern}$")).ok()?, is_prefix, fixed, translation })
    }
}

/// Fills the parts into a translation: in order, or by number from 1.
fn filled(translation: &str, parts: &[String]) -> String {
    let mut text = translation.to_owned();
    if text.contains(HOLE) {
        let mut pieces = translation.split(HOLE);
        text = pieces.next().unwrap_or_default().to_owned();
        for (index, piece) in pieces.enumerate() {
            text.push_str(parts.get(index).map_or("", String::as_str));
            text.push_str(piece);
        }
        return text;
    }
    for (index, part) in parts.iter().enumerate() {
        text = text.replace(&format!("{{{}}}", index + 1), part);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_can_be_read_and_every_message_fills_its_holes() {
        let file: File = toml::from_str(CHINESE).unwrap();
        assert!(file.help.values().all(|parts| (1..=2).contains(&parts.len())));
        for (template, translation) in file.messages {
            let holes = template.matches(HOLE).count() + template.matches(NUMBER).count();
            let in_order = translation.matches(HOLE).count() == holes;
            let by_number = (1..=holes).all(|n| translation.contains(&format!("{{{n}}}")));
            assert!(in_order || by_number, "{template}: {translation}");
        }
    }

    #[test]
    fn errors_are_translated_part_by_part() {
        let chinese = Catalogue::chinese();
        for (english, expected) in [
            (
                "out-2.png: 64 × 64 pixels, seed 7, image 2 of 4",
                "out-2.png：64 × 64 像素，种子 7，第 2 张，共 4 张",
            ),
            (
                "all.safetensors: 3 texts, 4 images; 1 image skipped",
                "all.safetensors：3 条文本，4 张图片；跳过 1 张图片",
            ),
            (
                "error: --image: cat.png: No such file or directory (os error 2)",
                "错误：--image: cat.png: 没有这个文件或目录",
            ),
            (
                "warning: left out: a.png: damaged: it cannot be decoded",
                "警告：已跳过：a.png: 已损坏，无法解码",
            ),
            (
                "tensor a.weight in m.safetensors has shape [2], expected [3] from the config",
                "m.safetensors 中张量 a.weight 的形状为 [2]，按配置须为 [3]",
            ),
            ("error: --output a: is there", "错误：--output a: is there"),
            (
                "error: --output table t of photos at db:5433: connection closed; what was written before is kept, \
                 and the same command goes on from there",
                "错误：--output db:5433 上 photos 的表 t: 连接已断开；此前写入的都已保留，再次运行同一条命令即可继续",
            ),
            (
                "table t of photos at db: 3 texts; 2 images skipped",
                "db 上 photos 的表 t：3 条文本；跳过 2 张图片",
            ),
            (
                "error: --output a.bmp: expected a name that ends in .png",
                "错误：--output a.bmp：文件名须以 .png 结尾",
            ),
            ("Drawing: 3 of 20, 5s left", "绘制：3 / 20，还需 5s"),
            ("at least one line of text", "at least one line of text"),
            ("out.png: seed 7", "out.png: seed 7"),
        ] {
            assert_eq!(chinese.message(english), expected);
        }
    }
}
