//! Recognizes the formats of image files.

use std::path::Path;

use image::ImageFormat;

/// Lower-case endings of the files that count as images in a folder. A file that is named explicitly may have any.
pub const IMAGE_ENDINGS: &[&str] = &[
    #[cfg(feature = "avif")]
    "avif",
    #[cfg(feature = "heic")]
    "heic",
    #[cfg(feature = "heic")]
    "heif",
    #[cfg(feature = "heic")]
    "hif",
    "png",
    "apng",
    "jpg",
    "jpeg",
    "jpe",
    "jfif",
    "jfi",
    "jif",
    "pjpeg",
    "pjp",
    "mpo",
    "webp",
    "gif",
    "bmp",
    "dib",
    "tif",
    "tiff",
    "ico",
    "pnm",
    "pbm",
    "pgm",
    "ppm",
    "qoi",
    "tga",
];

/// Lower-case endings of images in unsupported formats.
pub const UNREADABLE_ENDINGS: &[&str] = &[
    #[cfg(not(feature = "avif"))]
    "avif",
    "avifs",
    #[cfg(not(feature = "heic"))]
    "heic",
    #[cfg(not(feature = "heic"))]
    "heif",
    #[cfg(not(feature = "heic"))]
    "hif",
    "heics",
    "heifs",
    "jxl",
    "jp2",
    "j2k",
    "jpx",
    "svg",
    "psd",
    "xcf",
    "exr",
    "hdr",
    "dds",
    "dng",
    "cr2",
    "cr3",
    "nef",
    "arw",
    "raf",
    "orf",
    "rw2",
    "eps",
    "emf",
    "wmf",
    "pcx",
];

/// What to do with files in an unsupported image format.
pub fn advice(ending: &str) -> Option<&'static str> {
    let advice = match ending {
        "avif" => AVIF,
        "heic" | "heif" | "hif" => HEIC,
        _ => CONVERT,
    };
    UNREADABLE_ENDINGS.contains(&ending).then_some(advice)
}

const CONVERT: &str = "convert such images to PNG or JPEG";
const AVIF: &str = "convert such images to PNG or JPEG, or build the program with the feature avif";
const HEIC: &str = "convert such images to PNG or JPEG, or build the program with the feature heic";

/// A supported format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileFormat {
    #[cfg(feature = "avif")]
    Avif,
    #[cfg(feature = "heic")]
    Heic,
    /// A BMP without the file header.
    Dib,
    Tiff,
    /// A format of the `image` crate.
    Other(ImageFormat),
}

/// The format of a file by its content, except TGA, which has no signature and is known by its name.
///
/// # Errors
/// If it is not supported; the message names the format if it is known.
pub(super) fn recognize(name: &str, bytes: &[u8]) -> Result<FileFormat, String> {
    const BIG_TIFF: [&[u8]; 2] = [b"II\x2b\0", b"MM\0\x2b"];
    match image::guess_format(bytes) {
        Ok(ImageFormat::Tiff) => return Ok(FileFormat::Tiff),
        Ok(
            format @ (ImageFormat::Png
            | ImageFormat::Jpeg
            | ImageFormat::WebP
            | ImageFormat::Gif
            | ImageFormat::Bmp
            | ImageFormat::Ico
            | ImageFormat::Pnm
            | ImageFormat::Qoi),
        ) => return Ok(FileFormat::Other(format)),
        _ => {}
    }
    if BIG_TIFF.iter().any(|magic| bytes.starts_with(magic)) {
        return Ok(FileFormat::Tiff);
    }
    if is_dib(bytes) {
        return Ok(FileFormat::Dib);
    }
    #[cfg(feature = "avif")]
    if is_avif(bytes) {
        return Ok(FileFormat::Avif);
    }
    #[cfg(feature = "heic")]
    if is_heic(bytes) {
        return Ok(FileFormat::Heic);
    }
    if let Some(other) = unreadable(bytes) {
        let advice = if is_avif(bytes) {
            AVIF
        } else if is_heic(bytes) {
            HEIC
        } else {
            CONVERT
        };
        return Err(format!("{other}, which is not read here: {advice}"));
    }
    if let Some((_, problem)) = NO_IMAGES.iter().find(|(begin, _)| bytes.starts_with(begin)) {
        return Err(format!("not an image: {problem}"));
    }
    let ending = Path::new(name).extension().unwrap_or_default();
    if ending.eq_ignore_ascii_case("tga") || bytes.ends_with(b"TRUEVISION-XFILE.\0") {
        return Ok(FileFormat::Other(ImageFormat::Tga));
    }
    Err("not an image: expected PNG, JPEG, WebP, GIF, BMP, TIFF, ICO, PNM, QOI or TGA".to_owned())
}

/// Whether bytes start like an image file, supported or not.
pub(super) fn is_image(bytes: &[u8]) -> bool {
    image::guess_format(bytes).is_ok() || recognize("", bytes).is_ok() || unreadable(bytes).is_some()
}

/// Whether bytes start with a bitmap header: its length, two sides, and one plane.
fn is_dib(bytes: &[u8]) -> bool {
    const LENGTHS: [u32; 5] = [40, 52, 56, 108, 124];
    let length = bytes.first_chunk().map(|length| u32::from_le_bytes(*length));
    length.is_some_and(|length| LENGTHS.contains(&length)) && bytes.get(12..14) == Some(&[1, 0])
}

/// Other files that are often mistaken for images.
const NO_IMAGES: [(&[u8], &str); 4] = [
    (b"version https://git-lfs", "a pointer of Git LFS, in whose place `git lfs pull` puts the image"),
    (b"<!DOCTYPE", "a web page"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
];

fn is_avif(bytes: &[u8]) -> bool {
    matches!(bytes.get(4..12), Some(b"ftypavif" | b"ftypavis"))
}

fn is_heic(bytes: &[u8]) -> bool {
    const BRANDS: [&[u8]; 6] = [b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2"];
    bytes.get(4..8) == Some(b"ftyp") && bytes.get(8..12).is_some_and(|brand| BRANDS.contains(&brand))
}

/// The name of an unsupported image format.
fn unreadable(bytes: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 12] = [
        (b"\xff\x0a", "a JPEG XL image"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
        (b"8BPS", "a Photoshop document"),
        (b"gimp xcf", "a GIMP document"),
        (b"<svg", "an SVG drawing"),
        (b"%PDF", "a PDF document"),
        (b"%!PS", "a PostScript document"),
        (b"DDS ", "a DDS texture"),
        (b"\x76\x2f\x31\x01", "an OpenEXR image"),
        (b"#?RADIANCE", "a Radiance HDR image"),
    ];
    if bytes.get(4..8) == Some(b"ftyp") {
        return match bytes.get(8..12)? {
            b"avif" | b"avis" => Some("an AVIF image"),
            b"hevc" | b"hevx" | b"hevm" | b"hevs" | b"msf1" => Some("a sequence of HEIC images"),
            _ if is_heic(bytes) => Some("a HEIC image"),
            _ => Some("a video"),
        };
    }
    MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| *name)
}

/// The common name of a format.
pub(super) fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Png => "PNG",
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Ico => "ICO",
        ImageFormat::Pnm => "PNM",
        ImageFormat::Qoi => "QOI",
        ImageFormat::Tga => "TGA",
        _ => "strange",
    }
}
