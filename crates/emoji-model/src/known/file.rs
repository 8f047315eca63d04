//! Reads and writes what a model draws, beside its weights.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use model_files::source::ModelSource;
use serde::{Deserialize, Serialize};

use super::KnownConcepts;
use super::filter::WordFilter;
use super::words::Script;
use crate::error::{Error, Result};
use crate::export::write_file;

/// The file in a model's folder: JSON, compressed with gzip.
pub const KNOWN_CONCEPTS_FILE: &str = "concepts.json.gz";
/// Many times what the file of the built-in model expands to.
const MOST_BYTES: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    emoji: Vec<String>,
    names: BTreeMap<String, Vec<String>>,
    /// A Bloom filter in base64.
    words: String,
    thresholds: BTreeMap<Script, f32>,
}

impl KnownConcepts {
    /// Reads what a model says that it draws; `None` if it does not say.
    ///
    /// # Errors
    /// If the file is damaged.
    pub fn read(source: &ModelSource) -> Result<Option<Self>> {
        let Some(data) = source.read_optional(KNOWN_CONCEPTS_FILE)? else {
            return Ok(None);
        };
        Self::parse(&data)
            .map(Some)
            .map_err(|problem| Error::data(data.name(), format!("expected what a model draws: {problem}")))
    }

    /// Parses the content of the file, or says what is wrong with it.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut text = Vec::new();
        let mut reader = GzDecoder::new(bytes).take(MOST_BYTES + 1);
        reader.read_to_end(&mut text).map_err(|error| error.to_string())?;
        if text.len() as u64 > MOST_BYTES {
            return Err(format!("more than {MOST_BYTES} bytes"));
        }
        let file: File = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        let File { emoji, names, words, thresholds } = file;
        if emoji.is_empty() || names.is_empty() {
            return Err("no concept has a name".to_owned());
        }
        if let Some((language, names)) = names.iter().find(|(_, names)| names.len() != emoji.len()) {
            return Err(format!("{} emoji have {} names in {language}", emoji.len(), names.len()));
        }
        let words = BASE64_STANDARD.decode(words).map_err(|error| format!("words: {error}"))?;
        let words = WordFilter::from_bytes(words).ok_or("words: there are none")?;
        Ok(Self { emoji, names, words, thresholds })
    }

    /// Writes the file into a model's folder, and returns its size in bytes.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, folder: &Path) -> Result<usize> {
        let file = File {
            emoji: self.emoji.clone(),
            names: self.names.clone(),
            words: BASE64_STANDARD.encode(self.words.bytes()),
            thresholds: self.thresholds.clone(),
        };
        let failed = |error: String| {
            Error::data(folder.join(KNOWN_CONCEPTS_FILE), format!("cannot be written: {error}"))
        };
        let text = serde_json::to_vec(&file).map_err(|error| failed(error.to_string()))?;
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        let bytes = gzip.write_all(&text).and_then(|()| gzip.finish());
        let bytes = bytes.map_err(|error| failed(error.to_string()))?;
        write_file(folder, KNOWN_CONCEPTS_FILE, &bytes)?;
        Ok(bytes.len())
    }
}
