//! Reads the generation parameters in an image file.

use std::fs;
use std::io::BufReader;
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
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(io)?;
    let found = foreign::parse(&name, || {
        let found = match reader.format() {
            Some(ImageFormat::Png) => in_png(path),
            Some(ImageFormat::Jpeg | ImageFormat::WebP) => in_exif_of(reader),
            _ => Err("expected an image, PNG, JPEG or WebP, or a .txt file".into()),
        };
        found.map_err(|problem| Error::content(name.clone(), problem.to_string()))
    });
    let missing = || {
        let problem = format!("does not say how it was drawn (expected a text `{KEYWORD}`)");
        Error::content(name.clone(), problem)
    };
    found?.ok_or_else(missing)
}

fn in_exif_of(reader: ImageReader<BufReader<fs::File>>) -> std::result::Result<Option<String>, Problem> {
    match reader.into_decoder()?.exif_metadata()? {
        Some(exif) => in_exif(exif),
        None => Ok(None),
    }
}
