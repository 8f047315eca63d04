//! Reads captioned images from tables, archives and folders.

use super::files::{ending, files_in, named_in};
use super::parquet_images::ParquetImages;
use super::samples::Samples;
use super::skipped::Skipped;
use super::text_file::ListFormat;
use super::text_table::TextTable;
use super::{IMAGE_COLUMN, archive, folder, parquet_column, shards};
use crate::error::{Error, Result};
use crate::hash::hash;
use altclip_encoder::embedder::ImageSource;
use model_files::open_file;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// The metadata files of the Hugging Face hub's image folders.
const METADATA: [&str; 4] = ["metadata.jsonl", "metadata.csv", "metadata.tsv", "metadata.parquet"];
/// The column of images in those.
const FILE_NAME: &str = "file_name";

/// Images with their captions. Images are read on demand.
#[derive(Debug, Default)]
pub struct ImagePairs {
    /// For each image, its captions in the order of the columns.
    pub captions: Vec<Vec<String>>,
    /// What was skipped.
    pub skipped: Skipped,
    /// A hash of the images' paths, sizes and modification times: it changes when the images do.
    pub key: u64,
    places: Vec<ImagePlace>,
}

/// Where the images are.
#[derive(Debug, Clone)]
enum ImagePlace {
    Files(Arc<Vec<ImageSource>>),
    Rows(ParquetImages),
}

impl ImagePairs {
    /// Reads the pairs at `path`, which is
    ///
    /// * a table, `.jsonl`, `.csv`, `.tsv` (also `.gz` or `.zst` of these) or `.parquet`. `image` is the column of
    ///   images, by default `image`: file names relative to the table's folder or, in a Parquet file, the images
    ///   themselves, as in data sets of the Hugging Face hub. `captions` are columns of strings;
    /// * a WebDataset archive, `.tar`. A sample consists of the members that share a name up to its first dot.
    ///   `image` is the ending of images, or several, such as `jpg;png`; by default all known endings. A caption is
    ///   the member with the ending of this name, or else the field of this name in the member that ends in `.json`;
    /// * several of those, with a range of numbers in the name: `name-{000..012}.tar`;
    /// * a folder: with a `metadata.jsonl`, `.csv` or `.parquet` that has the images in the column `file_name`; or
    ///   else of `.tar` files; or of `.parquet` files; or of images, with captions in files of the same name with the
    ///   endings in `captions`, such as `txt`, or in `.json` files.
    ///
    /// Without `captions` only images are read. What has no image or lacks a caption is skipped and counted.
    ///
    /// # Errors
    /// If a file cannot be read, there is no such column, or no pair is left.
    pub fn read(path: &Path, image: Option<&str>, captions: &[String]) -> Result<Self> {
        let columns: Vec<&str> = captions.iter().map(String::as_str).collect();
        let mut pairs = Self::default();
        if path.is_dir() {
            pairs.add_folder(path, image, &columns)?;
        } else {
            let files = shards::expand(path)?;
            match ending(path).as_str() {
                "tar" => pairs.add_archives(path, &files, image, &columns)?,
                _ if ListFormat::of(path) != ListFormat::Lines => {
                    pairs.add_tables(&files, image.unwrap_or(IMAGE_COLUMN), &columns)?;
                }
                _ => {
                    let expected =
                        "expected a folder, or a file that ends in .jsonl, .csv, .tsv, .parquet or .tar";
                    return Err(Error::format(path, expected));
                }
            }
        }
        if pairs.captions.is_empty() {
            return Err(Error::format(path, format!("expected images with captions: {}", pairs.skipped)));
        }
        pairs.key = hash(pairs.places.iter().flat_map(|place| place.key().to_le_bytes()));
        Ok(pairs)
    }

    /// The images, in the order of their captions. Images in a Parquet file are read one by one; for others, only
    /// locations are returned.
    pub fn images(&self) -> impl Iterator<Item = ImageSource> + Send + use<> {
        self.places.clone().into_iter().flat_map(ImagePlace::images)
    }

    fn add_folder(&mut self, path: &Path, image: Option<&str>, columns: &[&str]) -> Result<()> {
        let files = files_in(path)?;
        if let Some(metadata) = METADATA.map(|name| path.join(name)).into_iter().find(|file| file.is_file()) {
            return self.add_tables(&[metadata], image.unwrap_or(FILE_NAME), columns);
        }
        let of = |wanted: &str| -> Vec<PathBuf> {
            files.iter().filter(|file| ending(file) == wanted).cloned().collect()
        };
        let (archives, tables) = (of("tar"), of("parquet"));
        if !archives.is_empty() {
            self.add_archives(path, &archives, image, columns)
        } else if !tables.is_empty() {
            self.add_tables(&tables, image.unwrap_or(IMAGE_COLUMN), columns)
        } else {
            let mut samples = Samples::new(image, columns);
            folder::find_samples(&files, &mut samples);
            self.add_samples(path, samples)
        }
    }

    fn add_archives(
        &mut self,
        path: &Path,
        archives: &[PathBuf],
        image: Option<&str>,
        columns: &[&str],
    ) -> Result<()> {
        let mut samples = Samples::new(image, columns);
        for archive in archives {
            archive::find_samples(archive, &mut samples)?;
        }
        self.add_samples(path, samples)
    }

    fn add_samples(&mut self, path: &Path, samples: Samples<'_>) -> Result<()> {
        samples.check(path)?;
        self.captions = samples.captions;
        self.skipped = samples.skipped;
        self.places.push(ImagePlace::Files(Arc::new(samples.images)));
        Ok(())
    }

    fn add_tables(&mut self, tables: &[PathBuf], image: &str, columns: &[&str]) -> Result<()> {
        for path in tables {
            let (source, captions, skipped) = if holds_images(path, image)? {
                let (rows, table) = ParquetImages::read(path, image, columns)?;
                (ImagePlace::Rows(rows), table.rows, table.skipped)
            } else {
                let table = TextTable::read(path, &[&[image], columns].concat())?;
                let pair = |values: Vec<String>| {
                    let mut values = values.into_iter();
                    let file = named_in(path, values.next().unwrap_or_default());
                    (file.into(), values.collect())
                };
                let (files, captions) = table.rows.into_iter().map(pair).unzip();
                (ImagePlace::Files(Arc::new(files)), captions, table.skipped)
            };
            self.places.push(source);
            self.captions.extend(captions);
            match tables {
                [_] => self.skipped = skipped,
                _ => self.skipped.add_all(skipped, path.display()),
            }
        }
        Ok(())
    }
}

impl ImagePlace {
    fn images(self) -> Box<dyn Iterator<Item = ImageSource> + Send> {
        match self {
            Self::Files(files) => {
                Box::new((0..files.len()).filter_map(move |place| files.get(place).cloned()))
            }
            Self::Rows(rows) => Box::new(rows.images()),
        }
    }

    fn key(&self) -> u64 {
        match self {
            Self::Files(files) => hash(files.iter().flat_map(key_of)),
            Self::Rows(rows) => {
                let numbers = rows.numbers.iter().flat_map(|number| number.to_le_bytes());
                hash(state_of(&rows.path).into_iter().chain(numbers))
            }
        }
    }
}

/// Whether a table contains its images.
fn holds_images(path: &Path, column: &str) -> Result<bool> {
    if ending(path) != "parquet" {
        return Ok(false);
    }
    let file = open_file(path).map_err(Error::io(path))?;
    let has_names = parquet_column::is_of_strings(file, column);
    Ok(!has_names.map_err(Error::column(path))?)
}

fn key_of(image: &ImageSource) -> Vec<u8> {
    match image {
        ImageSource::Part { name, file, start, length } => {
            let part = [start.to_le_bytes(), length.to_le_bytes()].concat();
            [state_of(file), name.as_os_str().as_encoded_bytes().to_vec(), part].concat()
        }
        other => state_of(other.name()),
    }
}

/// A file's name, size and modification time.
fn state_of(path: &Path) -> Vec<u8> {
    let metadata = fs::metadata(path).ok();
    let size = metadata.as_ref().map_or(0, fs::Metadata::len);
    let written = metadata.and_then(|metadata| metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok());
    let written = written.map_or(0, |time| time.as_nanos());
    [path.as_os_str().as_encoded_bytes(), &size.to_le_bytes(), &written.to_le_bytes()].concat()
}
