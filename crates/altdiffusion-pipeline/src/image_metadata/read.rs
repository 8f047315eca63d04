//! Reads the generation parameters in an image file.

use std::fs;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::Path;

use image::{ImageDecoder, ImageFormat, ImageReader};
use model_files::{foreign, open_file};

use super::exif::in_exif;
use super::png_text::in_png;
use super::{KEYWORD, LONGEST_TEXT, Problem};
use crate::error::{Error, Result};

/// The largest image file searched, in bytes.
const LARGEST_FILE: u64 = 1 << 30;

/// Reads how the image at `path` was drawn: from a PNG's text chunk `parameters`, the EXIF field UserComment of a
/// JPEG or WebP, or a `.txt` file. [`GenerationParameters::parse`] parses the text.
///
/// [`GenerationParameters::parse`]: super::GenerationParameters::parse
///
/// # Errors
/// If the file is not an image, is damaged, has no such text, or has one that is too long.
pub fn read_parameters_text(path: &Path) -> Result<String> {
    let name = path.display().to_string();
    let io = |error| Error::io(path, error);
    let size = open_file(path).and_then(|file| file.metadata()).map_err(io)?.len();
    if size > LARGEST_FILE {
        let problem = format!("has {size} bytes, expected an image of at most {LARGEST_FILE}");
        return Err(Error::content(name, problem));
    }
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("txt")) {
        let bytes = fs::read(path).map_err(io)?;
        if bytes.len() > LONGEST_TEXT {
            let problem = format!("has {size} bytes, expected at most {LONGEST_TEXT}");
            return Err(Error::content(name, problem));
        }
        return String::from_utf8(bytes).map_err(|_| Error::content(name, "expected text in UTF-8"));
    }
    let file = fs::File::open(path).map_err(io)?;
    in_image(&name, BufReader::new(file))
}

/// The same for an image file in memory, called `name` in errors.
///
/// # Errors
/// Like [`read_parameters_text`].
pub fn parameters_text_of(name: &str, bytes: &[u8]) -> Result<String> {
    in_image(name, Cursor::new(bytes))
}

fn in_image(name: &str, file: impl BufRead + Seek) -> Result<String> {
    let problem = |problem: String| Error::content(name, problem);
    let reader = ImageReader::new(file).with_guessed_format();
    let reader = reader.map_err(|error| problem(error.to_string()))?;
    let found = foreign::parse(name, || {
        let found = match reader.format() {
            Some(ImageFormat::Png) => in_png(reader.into_inner()),
            Some(ImageFormat::Jpeg | ImageFormat::WebP) => in_exif_of(reader),
            _ => Err("expected an image, PNG, JPEG or WebP, or a .txt file".into()),
        };
        found.map_err(|error| problem(error.to_string()))
    });
    found?.ok_or_else(|| problem(format!("does not say how it was drawn (expected a text `{KEYWORD}`)")))
}

fn in_exif_of(reader: ImageReader<impl BufRead + Seek>) -> std::result::Result<Option<String>, Problem> {
    match reader.into_decoder()?.exif_metadata()? {
        Some(exif) => in_exif(exif),
        None => Ok(None),
    }
}
