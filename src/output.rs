//! The files that a subcommand writes: looked at before the work, and written whole or not at all after it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf, is_separator};

use altdiffusion_pipeline::write_whole;
use anyhow::{Context, Result, bail};
use candle_core::Tensor;
use candle_core::safetensors::save;
use image::codecs::jpeg::JpegEncoder;
use image::{ImageFormat, RgbImage};
use serde::Serialize;

/// Of 100. What is lost can hardly be seen.
const JPEG_QUALITY: u8 = 95;

/// Finds out whether a file can be written at `path`, so that no work is done in vain. `option` is the one that gave it.
///
/// # Errors
/// When there is no such directory, it cannot be written to, or something other than a file is at `path`.
pub fn check_writable(option: &str, path: &Path) -> Result<()> {
    let shown = path.display();
    if path.is_dir() || path.as_os_str().to_string_lossy().ends_with(is_separator) {
        bail!("{option} {shown}: expected the name of a file, found that of a directory");
    }
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        Some(_) => Path::new("."),
        None => bail!("{option}: expected the name of a file, found {shown:?}"),
    };
    if !directory.is_dir() {
        bail!("{option} {shown}: cannot be written, {} is not a directory", directory.display());
    }
    // The file is replaced, and to replace a device or a pipe is never meant.
    if path.exists() && !path.is_file() {
        bail!("{option} {shown}: cannot be written, it is no ordinary file");
    }
    match tempfile::Builder::new().tempfile_in(directory) {
        Ok(_) => Ok(()),
        Err(error) => {
            bail!("{option} {shown}: cannot be written to {}: {}", directory.display(), error.kind())
        }
    }
}

/// The names of `count` pictures: `out.png` alone, or `out-1.png`, `out-2.png` …
pub fn numbered(path: &Path, count: usize) -> Vec<PathBuf> {
    if count == 1 {
        return vec![path.to_owned()];
    }
    let name = |number: usize| {
        let mut name = path.file_stem().map_or_else(OsString::new, OsString::from);
        name.push(format!("-{number}"));
        if let Some(extension) = path.extension() {
            name.push(".");
            name.push(extension);
        }
        path.with_file_name(name)
    };
    (1..=count).map(name).collect()
}

/// How a picture is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureFormat {
    Png,
    Jpeg,
    /// Without loss.
    WebP,
}

impl PictureFormat {
    /// The format that the ending of a file's name stands for.
    ///
    /// # Errors
    /// When it stands for none of these.
    pub fn of(option: &str, path: &Path) -> Result<Self> {
        let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        match extension.as_str() {
            "png" => Ok(Self::Png),
            "jpg" | "jpeg" => Ok(Self::Jpeg),
            "webp" => Ok(Self::WebP),
            _ => {
                bail!("{option} {}: expected a name that ends in .png, .jpg, .jpeg or .webp", path.display())
            }
        }
    }

    fn encode(self, picture: &RgbImage) -> image::ImageResult<Vec<u8>> {
        let mut bytes = Cursor::new(Vec::new());
        match self {
            Self::Png => picture.write_to(&mut bytes, ImageFormat::Png)?,
            Self::Jpeg => JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).encode_image(picture)?,
            Self::WebP => picture.write_to(&mut bytes, ImageFormat::WebP)?,
        }
        Ok(bytes.into_inner())
    }
}

/// Writes a picture.
///
/// # Errors
/// When the format does not take a picture of this size, or the file cannot be written.
pub fn write_picture(path: &Path, format: PictureFormat, picture: &RgbImage) -> Result<()> {
    let bytes = format.encode(picture).with_context(|| path.display().to_string())?;
    write_whole(path, |temporary| fs::write(temporary, bytes)).context("--output")
}

/// Writes tensors by their names, as safetensors.
///
/// # Errors
/// When the file cannot be written.
pub fn write_tensors(path: &Path, tensors: &HashMap<&str, Tensor>) -> Result<()> {
    write_whole(path, |temporary| save(tensors, temporary).map_err(io::Error::other)).context("--output")
}

/// Writes what took how long, as JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn write_timings(path: &Path, timings: &impl Serialize) -> Result<()> {
    let mut json = serde_json::to_vec_pretty(timings).context("--timings")?;
    json.push(b'\n');
    write_whole(path, |temporary| fs::write(temporary, json)).context("--timings")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_pictures_are_numbered_before_the_ending() {
        let names = |path: &str, count| numbered(Path::new(path), count);
        assert_eq!(names("a/out.png", 1), [Path::new("a/out.png")]);
        assert_eq!(names("a/out.png", 2), [Path::new("a/out-1.png"), Path::new("a/out-2.png")]);
        assert_eq!(names("猫.v1.webp", 2)[1], Path::new("猫.v1-2.webp"));
    }

    #[test]
    fn formats_are_known_by_the_ending() {
        let format = |path: &str| PictureFormat::of("--output", Path::new(path)).ok();
        assert_eq!(format("a.png"), Some(PictureFormat::Png));
        assert_eq!(format("a.b.JPEG"), Some(PictureFormat::Jpeg));
        assert_eq!(format("a.webp"), Some(PictureFormat::WebP));
        for path in ["a", ".png", "a.gif", "a.png.txt"] {
            assert_eq!(format(path), None, "{path}");
        }
    }

    #[test]
    fn formats_keep_the_picture() -> Result<()> {
        let picture = RgbImage::from_fn(8, 16, |x, y| image::Rgb([x as u8 * 9, y as u8 * 9, 50]));
        for format in [PictureFormat::Png, PictureFormat::WebP] {
            assert_eq!(image::load_from_memory(&format.encode(&picture)?)?.to_rgb8(), picture);
        }
        let lossy = image::load_from_memory(&PictureFormat::Jpeg.encode(&picture)?)?.to_rgb8();
        assert_eq!(lossy.dimensions(), picture.dimensions());
        let difference =
            lossy.iter().zip(picture.iter()).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>();
        assert!(difference < 4 * picture.len() as u32, "{difference}");
        Ok(())
    }

    #[test]
    fn a_place_that_can_be_written_is_left_as_it_was() -> Result<()> {
        let directory = tempfile::tempdir()?;
        check_writable("--output", &directory.path().join("out.png"))?;
        assert_eq!(fs::read_dir(directory.path())?.count(), 0);
        Ok(())
    }
}
