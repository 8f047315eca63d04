//! Collects samples in WebDataset's form: an image and its captions in files of the same name with different endings.

use super::skipped::Skipped;
use super::text_file;
use super::text_table::{complete, no_column};
use crate::error::{Error, Result};
use altclip_encoder::embedder::ImageSource;
use altclip_encoder::images::{IMAGE_ENDINGS, advice};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::Read;
use std::path::Path;

/// The ending of a file with an object whose fields are captions.
const JSON: &str = "json";
/// The longest text beside an image, in bytes.
const MOST_TEXT_BYTES: u64 = 1 << 20;
/// The most names that an error lists.
const MOST_NAMES: usize = 30;

/// A sample, while its files are found.
#[derive(Default)]
pub(super) struct Sample {
    /// The image, and the rank of its ending.
    image: Option<(usize, ImageSource)>,
    /// The captions, in the order of the columns.
    captions: Vec<Option<String>>,
    problem: Option<String>,
}

/// The samples found.
pub(super) struct Samples<'a> {
    /// Endings of images; if a sample has two images, the one with the earlier ending is used.
    endings: Vec<String>,
    /// Each is the ending of a text, or else a field of the sample's object.
    columns: &'a [&'a str],
    /// For each column, whether the ending or field was seen.
    is_there: Vec<bool>,
    has_images: bool,
    /// Some of the endings and fields seen.
    names: BTreeSet<String>,
    pub(super) captions: Vec<Vec<String>>,
    pub(super) images: Vec<ImageSource>,
    pub(super) skipped: Skipped,
}

impl<'a> Samples<'a> {
    /// No samples yet. `image` is the ending of images, or several separated by `;`; by default all known endings.
    pub(super) fn new(image: Option<&str>, columns: &'a [&'a str]) -> Self {
        let normal = |ending: &str| ending.trim().trim_start_matches('.').to_lowercase();
        Self {
            endings: match image {
                Some(endings) => endings.split(';').map(normal).collect(),
                None => IMAGE_ENDINGS.iter().map(|ending| (*ending).to_owned()).collect(),
            },
            columns,
            is_there: vec![false; columns.len()],
            has_images: false,
            names: BTreeSet::new(),
            captions: Vec::new(),
            images: Vec::new(),
            skipped: Skipped::default(),
        }
    }

    /// Records a file's ending. For an image, returns its rank among the requested endings.
    pub(super) fn see_ending(&mut self, ending: &str) -> Option<usize> {
        self.see(ending);
        let rank = self.endings.iter().position(|known| known == ending);
        self.has_images |= rank.is_some();
        rank
    }

    /// Counts a file as skipped if its ending is that of an unsupported image format.
    pub(super) fn skip_if_image(&mut self, name: impl Display, ending: &str) {
        if let Some(advice) = advice(ending) {
            self.skipped.add(|| format!("{name}: not read here: {advice}"));
        }
    }

    /// Records an ending or a field, requested or not.
    fn see(&mut self, name: &str) {
        for (is_there, column) in self.is_there.iter_mut().zip(self.columns) {
            *is_there |= *column == name;
        }
        if self.names.len() < MOST_NAMES && !self.names.contains(name) {
            self.names.insert(name.to_owned());
        }
    }

    /// The requested endings of texts.
    pub(super) fn text_endings(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let columns = self.columns;
        columns.iter().copied().chain((!columns.is_empty()).then_some(JSON))
    }

    /// Adds the text of the file with this ending to a sample.
    pub(super) fn add_text(&mut self, sample: &mut Sample, ending: &str, text: impl Read) {
        let text = match read_text(text) {
            Ok(text) => text,
            Err(problem) => return sample.fail(|| format!("{ending}: {problem}")),
        };
        sample.captions.resize(self.columns.len(), None);
        if self.columns.contains(&ending) {
            for (caption, _) in
                sample.captions.iter_mut().zip(self.columns).filter(|(_, name)| **name == ending)
            {
                *caption = Some(text.trim().to_owned());
            }
            return;
        }
        match text_file::object(&text) {
            Ok(object) => {
                object.keys().for_each(|field| self.see(field));
                for (is_there, column) in self.is_there.iter_mut().zip(self.columns) {
                    *is_there |= text_file::field(&object, column).is_some();
                }
                let field =
                    |name: &str| text_file::field(&object, name).and_then(Value::as_str).map(str::to_owned);
                for (caption, name) in sample.captions.iter_mut().zip(self.columns) {
                    // A file's text takes precedence over a field's.
                    *caption = caption.take().or_else(|| field(name));
                }
            }
            Err(problem) => sample.fail(|| format!("{ending}: {problem}")),
        }
    }

    /// Keeps a complete sample, and counts any other as skipped, under `name`.
    pub(super) fn push(&mut self, name: impl Display, sample: Sample) {
        let Sample { image, mut captions, problem } = sample;
        captions.resize(self.columns.len(), None);
        let whole = match image {
            Some((_, image)) => complete(self.columns, captions).map(|captions| (image, captions)),
            None => Err("it has no image".to_owned()),
        };
        match whole {
            Ok((image, captions)) => {
                self.images.push(image);
                self.captions.push(captions);
            }
            Err(missing) => self.skipped.add(|| format!("{name}: {}", problem.unwrap_or(missing))),
        }
    }

    /// Ends the search in `path`.
    ///
    /// # Errors
    /// If there were no images, or a column was never seen.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        let names: Vec<String> = self.names.iter().cloned().collect();
        if !self.has_images {
            let endings: Vec<String> = self.endings.iter().map(|ending| format!(".{ending}")).collect();
            let found = match self.skipped.count {
                _ if !names.is_empty() => names.join(", "),
                0 => "none".to_owned(),
                _ => format!("none: {}", self.skipped),
            };
            let problem = format!("expected images that end in {}, found {found}", endings.join(", "));
            return Err(Error::format(path, problem));
        }
        match self.columns.iter().zip(&self.is_there).find(|(_, is_there)| !**is_there) {
            Some((column, _)) => Err(no_column(path, column, &names)),
            None => Ok(()),
        }
    }
}

impl Sample {
    /// Takes an image, unless there is one with an earlier ending.
    pub(super) fn add_image(&mut self, rank: usize, image: ImageSource) {
        if self.image.as_ref().is_none_or(|(known, _)| rank <= *known) {
            self.image = Some((rank, image));
        }
    }

    /// Records a problem with a part of the sample, which matters if that part is needed.
    pub(super) fn fail(&mut self, problem: impl FnOnce() -> String) {
        self.problem.get_or_insert_with(problem);
    }
}

fn read_text(source: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    source.take(MOST_TEXT_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST_TEXT_BYTES {
        return Err(format!("expected a text of at most {MOST_TEXT_BYTES} bytes, found more"));
    }
    Ok(text_file::decode(&bytes)?.to_owned())
}
