//! Reads names and keywords of emoji in many languages from Unicode's CLDR annotations.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::packages::Package;
use crate::error::{Error, Result};

/// The languages of AltDiffusion-m18, by CLDR code.
pub const LANGUAGES: [&str; 18] = [
    "en", "zh", "ja", "th", "ko", "hi", "uk", "ar", "tr", "vi", "pl", "nl", "pt", "it", "es", "de", "fr",
    "ru",
];

/// The language of the original names, which the teacher knows.
pub const ENGLISH: &str = "en";
/// CLDR's mark for "same as in the parent language".
const INHERITED: &str = "↑↑↑";
/// The emoji presentation selector, which `emoji.json` has and CLDR omits.
const VARIATION_SELECTOR: char = '\u{FE0F}';

/// An emoji's name and keywords in a language.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConceptLabel {
    /// The name (CLDR's `tts`, for screen readers).
    pub name: String,
    /// Search keywords (CLDR's `default`), without the name.
    pub keywords: Vec<String>,
}

/// All emoji's labels in a language.
#[derive(Debug)]
pub(super) struct Annotations(HashMap<String, ConceptLabel>);

impl Annotations {
    /// Reads `language` from the packages `cldr-annotations-full` and, for emoji missing there,
    /// `cldr-annotations-derived-full`.
    pub(super) fn read(basic: &Package, derived: &Package, languages: &[String]) -> Result<Vec<Self>> {
        let derived_path = |language: &String| format!("annotationsDerived/{language}/annotations.json");
        let basic_path = |language: &String| format!("annotations/{language}/annotations.json");
        let basic_files = basic.read(&languages.iter().map(basic_path).collect::<Vec<_>>())?;
        let derived_files = derived.read(&languages.iter().map(derived_path).collect::<Vec<_>>())?;
        languages
            .iter()
            .map(|language| {
                let mut labels = HashMap::new();
                let path = derived_path(language);
                if let Some(contents) = derived_files.get(&path) {
                    labels.extend(parse_derived(&derived.path().join(path), contents)?);
                }
                let path = basic_path(language);
                let contents = basic_files.get(&path).ok_or_else(|| {
                    Error::data(basic.path(), format!("expected the file {path}, found none"))
                })?;
                labels.extend(parse_basic(&basic.path().join(path), contents)?);
                Ok(Annotations(labels))
            })
            .collect()
    }

    /// The label of an emoji, with or without its presentation selectors.
    pub(super) fn get(&self, emoji: &str) -> Option<&ConceptLabel> {
        self.0.get(&emoji.replace(VARIATION_SELECTOR, ""))
    }
}

#[derive(Deserialize)]
struct BasicFile {
    annotations: AnnotationTable,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DerivedFile {
    annotations_derived: AnnotationTable,
}

#[derive(Deserialize)]
struct AnnotationTable {
    annotations: HashMap<String, Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    #[serde(default)]
    tts: Vec<String>,
    #[serde(default)]
    default: Vec<String>,
}

fn parse_basic(path: &Path, contents: &[u8]) -> Result<HashMap<String, ConceptLabel>> {
    let file: BasicFile = serde_json::from_slice(contents).map_err(|e| not_annotations(path, &e))?;
    Ok(labels(file.annotations))
}

fn parse_derived(path: &Path, contents: &[u8]) -> Result<HashMap<String, ConceptLabel>> {
    let file: DerivedFile = serde_json::from_slice(contents).map_err(|e| not_annotations(path, &e))?;
    Ok(labels(file.annotations_derived))
}

fn not_annotations(path: &Path, error: &serde_json::Error) -> Error {
    Error::data(path, format!("expected CLDR annotations: {error}"))
}

fn labels(table: AnnotationTable) -> HashMap<String, ConceptLabel> {
    let entries = table.annotations.into_iter().filter_map(|(emoji, entry)| {
        let is_text = |text: &String| !text.trim().is_empty() && text != INHERITED;
        let name = entry.tts.into_iter().find(is_text)?;
        let keywords =
            entry.default.into_iter().filter(|keyword| is_text(keyword) && *keyword != name).collect();
        Some((emoji.replace(VARIATION_SELECTOR, ""), ConceptLabel { name, keywords }))
    });
    entries.collect()
}
