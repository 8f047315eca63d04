//! Writes npm packages of a few emoji, and the data sets built from them.
#![allow(dead_code, reason = "each test file uses part of it")]

use std::fs;
use std::path::{Path, PathBuf};

use emoji_model::dataset::{Dataset, LANGUAGES, PrepareOptions, SKIN_TONES, prepare};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Code points, emoji, category, subcategory, English name and keywords, Chinese name and keywords.
pub type Row = (&'static str, &'static str, &'static str, &'static str, [&'static str; 4]);

pub const EMOJI: [Row; 7] = [
    (
        "1F929",
        "🤩",
        "Smileys & Emotion",
        "face-affection",
        ["star-struck", "face star", "好崇拜哦", "星星 脸"],
    ),
    ("1F408", "🐈", "Animals & Nature", "animal-mammal", ["cat", "animal cat pet", "猫", "宠物 猫"]),
    ("1F34E", "🍎", "Food & Drink", "food-fruit", ["red apple", "apple fruit red", "红苹果", "水果 苹果"]),
    ("1F697", "🚗", "Travel & Places", "transport-ground", ["automobile", "car vehicle", "汽车", "轿车"]),
    ("2B50", "⭐", "Travel & Places", "sky & weather", ["star", "astronomy", "星星", "五角星"]),
    ("1F550", "🕐", "Travel & Places", "time", ["one o’clock", "clock", "一点", "时钟"]),
    ("1F1EB-1F1F7", "🇫🇷", "Flags", "country-flag", ["flag: France", "flag", "法国", "旗"]),
];
/// Clock faces and flags are not concepts.
pub const CONCEPTS: usize = 5;

/// A half-transparent PNG of one colour.
pub fn png(size: u32, colour: [u8; 3]) -> Vec<u8> {
    let [r, g, b] = colour;
    let image = image::RgbaImage::from_pixel(size, size, image::Rgba([r, g, b, 128]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

pub fn write(path: PathBuf, contents: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, contents).unwrap();
}

/// Writes the four packages as folders.
pub fn write_packages(folder: &Path) {
    let annotations = |name: usize, keywords: usize| {
        let entries = EMOJI.iter().map(|(_, emoji, _, _, texts)| {
            let keywords: Vec<&str> = texts[keywords].split(' ').collect();
            ((*emoji).to_owned(), json!({"tts": [texts[name]], "default": keywords}))
        });
        json!({"annotations": {"annotations": Value::Object(entries.collect())}}).to_string()
    };
    for package in ["cldr-annotations-full", "cldr-annotations-derived-full"] {
        write(folder.join(package).join("package.json"), "{}");
    }
    let basic = folder.join("cldr-annotations-full/annotations");
    write(basic.join("en/annotations.json"), annotations(0, 1));
    write(basic.join("zh/annotations.json"), annotations(2, 3));
    for (style, vendor) in ["google", "twitter"].into_iter().enumerate() {
        let package = folder.join(format!("emoji-datasource-{vendor}"));
        write(package.join("package.json"), "{}");
        let mut records = Vec::new();
        for (order, (unified, _, category, subcategory, _)) in EMOJI.iter().enumerate() {
            let file = format!("{}.png", unified.to_lowercase());
            let image = png(64, [order as u8 * 30, style as u8 * 200, 7]);
            write(package.join(format!("img/{vendor}/64/{file}")), image);
            records.push(json!({
                "unified": unified, "image": file, "category": category, "subcategory": subcategory,
                "sort_order": order,
            }));
        }
        // The order of the table does not matter.
        records.reverse();
        write(package.join("emoji.json"), Value::Array(records).to_string());
    }
}

pub fn options(packages: &Path, output: &Path) -> PrepareOptions {
    let languages = vec!["en".to_owned(), "zh".to_owned()];
    PrepareOptions { languages, skin_tones: false, ..PrepareOptions::new(packages, output) }
}

/// The packages, and the data set made from them.
pub fn prepared() -> (TempDir, Dataset) {
    let folder = TempDir::new().unwrap();
    write_packages(folder.path());
    let output = folder.path().join("data");
    prepare(&options(folder.path(), &output)).unwrap();
    (folder, Dataset::load(&output).unwrap())
}

/// A folder of packages with `count` people in all skin tones, in every language.
pub fn write_people(folder: &Path, count: u32) {
    let toned =
        |person: u32, tone: &str| (format!("{:X}-{tone}", 0x1F980 + person), format!("{person}-{tone}.png"));
    let emoji = |unified: &str| -> String {
        unified.split('-').filter_map(|code| char::from_u32(u32::from_str_radix(code, 16).ok()?)).collect()
    };
    for language in LANGUAGES {
        let entry = |name: String, own: &str| json!({ "tts": [name], "default": ["person", format!("{own} {language}"), format!("odd {own}")] });
        let mut basic = serde_json::Map::new();
        let mut derived = serde_json::Map::new();
        for person in 0..count {
            let unified = format!("{:X}", 0x1F980 + person);
            basic.insert(
                emoji(&unified),
                entry(format!("person {person} {language}"), &format!("word {person}")),
            );
            for tone in SKIN_TONES {
                let (unified, _) = toned(person, tone);
                let name = format!("person {person}: tone {tone} {language}");
                derived.insert(emoji(&unified), entry(name, &format!("word {person} {tone}")));
            }
        }
        let file =
            |package: &str, part: &str| folder.join(format!("{package}/{part}/{language}/annotations.json"));
        let text = json!({ "annotations": { "annotations": basic } }).to_string();
        write(file("cldr-annotations-full", "annotations"), text);
        let text = json!({ "annotationsDerived": { "annotations": derived } }).to_string();
        write(file("cldr-annotations-derived-full", "annotationsDerived"), text);
    }
    for package in ["cldr-annotations-full", "cldr-annotations-derived-full"] {
        write(folder.join(package).join("package.json"), "{}");
    }
    for vendor in ["google", "twitter"] {
        let package = folder.join(format!("emoji-datasource-{vendor}"));
        write(package.join("package.json"), "{}");
        let records = (0..count).map(|person| {
            let images = SKIN_TONES.map(|tone| toned(person, tone).1);
            for image in images.iter().chain([&format!("{person}.png")]) {
                write(package.join(format!("img/{vendor}/64/{image}")), png(64, [person as u8; 3]));
            }
            let variations: serde_json::Map<String, Value> = SKIN_TONES
                .iter()
                .map(|tone| {
                    let (unified, image) = toned(person, tone);
                    ((*tone).to_owned(), json!({ "unified": unified, "image": image }))
                })
                .collect();
            json!({
                "unified": format!("{:X}", 0x1F980 + person), "image": format!("{person}.png"),
                "category": "People & Body", "subcategory": "person", "sort_order": person,
                "skin_variations": variations,
            })
        });
        write(package.join("emoji.json"), Value::Array(records.collect()).to_string());
    }
}
