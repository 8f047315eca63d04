//! Reads data sets of images with captions or classes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use altclip_encoder::images::{IMAGE_ENDINGS, advice};
use serde_json::Value;

use super::labels::Classes;
use crate::error::{Error, Result};
use embedding_index::readers::Skipped;
use embedding_index::readers::files::{ending, files_in};
use embedding_index::readers::text_file::{self, Line};
use model_files::read_input;

/// The largest file of captions beside an image, in bytes.
const MOST_CAPTION_BYTES: u64 = 1 << 20;

/// Images with captions in one language.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CaptionedImages {
    /// The files.
    pub images: Vec<PathBuf>,
    /// The captions of all images.
    pub captions: Vec<String>,
    /// For each caption, the index of its image.
    pub owners: Vec<usize>,
    /// Images of a folder in unsupported formats.
    pub unread: Skipped,
}

impl CaptionedImages {
    /// Reads the captions in `language` of a data set at `path`, at most `most` per image. It is
    ///
    /// * a file, or a folder with a file `LANGUAGE.jsonl`, with lines such as
    ///   `{"image": "images/1.jpg", "captions": ["一只猫", "猫在睡觉"]}` or `{"image": "1.jpg", "caption": "a cat"}`;
    ///   images are relative to the file's folder;
    /// * or else a folder `LANGUAGE`, or the folder itself, of images, each with a `.txt` file of the same name
    ///   beside it that has a caption per line.
    ///
    /// # Errors
    /// If there is no such data set, a line is damaged or has no caption, or there are no captions at all.
    pub fn read(path: &Path, language: &str, most: usize) -> Result<Self> {
        let mut set = Self::default();
        let table = path.join(format!("{language}.jsonl"));
        if path.is_file() {
            set.read_table(path, most)?;
        } else if table.is_file() {
            set.read_table(&table, most)?;
        } else {
            let folder = path.join(language);
            set.read_folder(if folder.is_dir() { &folder } else { path }, most)?;
        }
        if set.captions.is_empty() {
            let problem = format!(
                "expected captions in a file {language}.jsonl, or in .txt files beside images, found none"
            );
            return Err(Error::format(path, problem));
        }
        Ok(set)
    }

    fn read_table(&mut self, path: &Path, most: usize) -> Result<()> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut numbers: HashMap<PathBuf, (usize, usize)> = HashMap::new();
        for line in text_file::lines(text_file::open(path).map_err(Error::io(path))?) {
            let Line { number, text } = line.map_err(Error::io(path))?;
            if text.as_ref().is_ok_and(|text| text.trim().is_empty()) {
                continue;
            }
            let (image, captions) = text
                .and_then(|text| image_and_captions(&text))
                .map_err(|problem| Error::format(path, format!("line {number}: {problem}")))?;
            let (number, known) = numbers.entry(image).or_insert_with_key(|image| {
                self.images.push(folder.join(image));
                (self.images.len() - 1, 0)
            });
            let captions = captions.into_iter().filter(|caption| !caption.trim().is_empty());
            for caption in captions.take(most.saturating_sub(*known)) {
                *known += 1;
                self.captions.push(caption);
                self.owners.push(*number);
            }
        }
        Ok(())
    }

    fn read_folder(&mut self, folder: &Path, most: usize) -> Result<()> {
        for image in images_in(folder, &mut self.unread)? {
            let beside = image.with_extension("txt");
            if !beside.is_file() {
                continue;
            }
            let bytes = read_input(&beside, MOST_CAPTION_BYTES).map_err(Error::io(&beside))?;
            let text = text_file::decode(&bytes).map_err(|problem| Error::format(&beside, problem))?;
            let captions = text.split(['\n', '\r']).map(str::trim).filter(|caption| !caption.is_empty());
            let before = self.captions.len();
            self.captions.extend(captions.take(most).map(str::to_owned));
            self.owners.resize(self.captions.len(), self.images.len());
            if self.captions.len() == before {
                return Err(Error::format(beside, "expected a caption on each line, found none"));
            }
            self.images.push(image);
        }
        Ok(())
    }

    /// Drops the images for which `is_there` is false, and their captions.
    #[must_use]
    pub fn only(&self, is_there: &[bool]) -> Self {
        let mut kept = Self { unread: self.unread.clone(), ..Self::default() };
        let mut numbers = vec![None; self.images.len()];
        for (number, image) in self.images.iter().enumerate() {
            if is_there.get(number).copied().unwrap_or(false)
                && let Some(place) = numbers.get_mut(number)
            {
                *place = Some(kept.images.len());
                kept.images.push(image.clone());
            }
        }
        for (caption, owner) in self.captions.iter().zip(&self.owners) {
            if let Some(owner) = numbers.get(*owner).copied().flatten() {
                kept.captions.push(caption.clone());
                kept.owners.push(owner);
            }
        }
        kept
    }
}

/// Parses a line of a `.jsonl` file. An image may have several lines.
fn image_and_captions(line: &str) -> Result<(PathBuf, Vec<String>), String> {
    const EXPECTED: &str = "expected an object with `image` and `captions`";
    let object = text_file::object(line)?;
    let string = |field: &str, value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        other => Err(format!("{EXPECTED}: {field} has {}, expected a string", text_file::describe(other))),
    };
    let image = object.get("image").ok_or_else(|| format!("{EXPECTED}, found no image"))?;
    let image = string("image", image)?;
    let values = [object.get("caption"), object.get("captions")].into_iter().flatten();
    let values = values.flat_map(|value| value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice));
    let captions = values.filter(|value| !value.is_null()).map(|value| string("captions", value));
    let captions: Vec<String> = captions.collect::<Result<_, _>>()?;
    if captions.iter().all(|caption| caption.trim().is_empty()) {
        return Err("expected captions, found none".to_owned());
    }
    Ok((image.into(), captions))
}

/// Images with a class each.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelledImages {
    /// The files.
    pub images: Vec<PathBuf>,
    /// For each image, the index of its class.
    pub targets: Vec<usize>,
    /// Images of the folders in unsupported formats.
    pub unread: Skipped,
}

impl LabelledImages {
    /// Reads a folder that has a subfolder of images per class.
    ///
    /// # Errors
    /// If there is no such folder, or there are no images.
    pub fn read(path: &Path, classes: &Classes) -> Result<Self> {
        let mut set = Self::default();
        for (number, class) in classes.folders.iter().enumerate() {
            let folder = path.join(class);
            if !folder.is_dir() {
                return Err(Error::format(
                    path,
                    format!("expected a folder {class} with the images of that class, found none"),
                ));
            }
            set.images.extend(images_in(&folder, &mut set.unread)?);
            set.targets.resize(set.images.len(), number);
        }
        if set.images.is_empty() {
            let unread = if set.unread.count > 0 { format!("; {}", set.unread) } else { String::new() };
            let problem = format!("expected images in the folders of the classes, found none{unread}");
            return Err(Error::format(path, problem));
        }
        Ok(set)
    }
}

/// The images in a folder, sorted by name. Those in unsupported formats are counted in `unread`.
fn images_in(folder: &Path, unread: &mut Skipped) -> Result<Vec<PathBuf>> {
    let is_read = |path: &PathBuf| {
        let ending = ending(path);
        if let Some(advice) = advice(&ending) {
            unread.add(|| format!("{}: not read here: {advice}", path.display()));
        }
        IMAGE_ENDINGS.contains(&ending.as_str())
    };
    Ok(files_in(folder)?.into_iter().filter(is_read).collect())
}
