//! Tests what a model says about the concepts it draws.

mod common;

use common::{CONCEPTS, prepared};
use emoji_model::{Coverage, KNOWN_CONCEPTS_FILE, KnownConcepts};
use flate2::Compression;
use flate2::write::GzEncoder;
use model_files::source::ModelSource;
use std::fs;
use std::io::Write;
use std::path::Path;
use tempfile::TempDir;

fn coverage(exclude: &[&str]) -> Coverage {
    Coverage {
        languages: vec!["en".to_owned(), "zh".to_owned()],
        vendors: vec!["google".to_owned()],
        exclude: exclude.iter().map(|name| (*name).to_owned()).collect(),
        skin_tones: false,
    }
}

#[test]
fn a_written_file_says_what_was_drawn() {
    let (_data, dataset) = prepared();
    let (known, alarms) = KnownConcepts::of(&dataset, &coverage(&["face-affection"])).unwrap();
    let model = TempDir::new().unwrap();
    let bytes = known.save(model.path()).unwrap();
    assert_eq!(fs::read(model.path().join(KNOWN_CONCEPTS_FILE)).unwrap().len(), bytes);
    let read = KnownConcepts::read(&ModelSource::directory(model.path())).unwrap().unwrap();
    assert_eq!(read, known);

    assert_eq!((read.count(), read.languages().collect::<Vec<_>>()), (CONCEPTS - 1, vec!["en", "zh"]));
    let names: Vec<_> = read.named("zh").unwrap().collect();
    assert_eq!(names, [("🐈", "猫"), ("🍎", "红苹果"), ("🚗", "汽车"), ("⭐", "星星")]);
    assert!(read.named("fr").is_none());
    let alarms: Vec<_> = alarms.iter().map(|of| (of.language.as_str(), of.phrases, of.alarms)).collect();
    // The star and the car are in folds that set the thresholds.
    assert_eq!(alarms, [("en", 2, 1), ("zh", 2, 1)]);
    for prompt in ["a cat", "A Cute Cat!", "一只可爱的猫", "red apple, fruit", "7", ""] {
        assert!(!read.is_unknown(prompt), "{prompt}");
    }
    for prompt in ["quantum equations", "第三季度采购协议", "кошка"] {
        assert!(read.is_unknown(prompt), "{prompt}");
    }
}

#[test]
fn nothing_to_draw_is_an_error() {
    let (_data, dataset) = prepared();
    let nothing = Coverage { vendors: vec!["twitter?".to_owned()], ..coverage(&[]) };
    let error = KnownConcepts::of(&dataset, &nothing).unwrap_err().to_string();
    assert_eq!(error, "the recipe covers no concept of the data set");
}

/// The error of reading this content.
fn error_of(folder: &Path, content: &[u8]) -> String {
    fs::write(folder.join(KNOWN_CONCEPTS_FILE), content).unwrap();
    KnownConcepts::read(&ModelSource::directory(folder)).unwrap_err().to_string()
}

#[test]
fn damaged_files_are_refused() {
    let folder = TempDir::new().unwrap();
    assert!(KnownConcepts::read(&ModelSource::directory(folder.path())).unwrap().is_none());
    let compressed = |text: &str| {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    };
    assert!(error_of(folder.path(), b"{}").contains("concepts.json.gz: expected what a model draws: "));
    for (text, problem) in [
        ("{}", "missing field `emoji`"),
        (r#"{"emoji": [], "names": {}, "words": "", "thresholds": {}}"#, "no concept has a name"),
        (
            r#"{"emoji": ["a"], "names": {"en": ["a", "b"]}, "words": "AA==", "thresholds": {}}"#,
            "1 emoji have 2 names in en",
        ),
        (
            r#"{"emoji": ["a"], "names": {"en": ["a"]}, "words": "", "thresholds": {}}"#,
            "words: there are none",
        ),
        (r#"{"emoji": ["a"], "names": {"en": ["a"]}, "words": "?", "thresholds": {}}"#, "words: "),
        (
            r#"{"emoji": ["a"], "names": {"en": ["a"]}, "words": "AA==", "thresholds": {"x": 1}}"#,
            "unknown variant `x`",
        ),
        (&" ".repeat(17 << 20), "more than 16777216 bytes"),
    ] {
        let error = error_of(folder.path(), &compressed(text));
        assert!(error.contains(problem), "{problem}: {error}");
    }
}
