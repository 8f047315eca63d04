//! Compares decoded image files with Pillow, and rejects files that are not images.

use std::collections::HashMap;
use std::fs;

use altclip_encoder::Error;
use altclip_encoder::images::{self, Background, DecodeOptions, flatten};
use candle_core::{DType, Tensor};
use image::{DynamicImage, RgbImage};
use test_support::{golden, golden_tensors};

/// Golden files and their bytes, by name.
fn files() -> Vec<(String, Vec<u8>)> {
    let folder = golden("image_processor/pictures");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    assert!(files.len() > 60);
    files
}

fn decode(name: &str, bytes: &[u8]) -> altclip_encoder::Result<DynamicImage> {
    images::decode(name, bytes, DecodeOptions::default())
}

/// (height, width, 3), u8
fn pixels(tensor: &Tensor) -> RgbImage {
    assert_eq!(tensor.dtype(), DType::U8);
    let (height, width, _) = tensor.dims3().unwrap();
    let bytes = tensor.flatten_all().unwrap().to_vec1().unwrap();
    RgbImage::from_raw(width as u32, height as u32, bytes).unwrap()
}

/// The largest and the mean difference between bytes, in steps.
fn difference(a: &RgbImage, b: &RgbImage) -> (u8, f64) {
    assert_eq!(a.dimensions(), b.dimensions());
    let differences = || a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b));
    let sum: f64 = differences().map(f64::from).sum();
    (differences().max().unwrap(), sum / a.as_raw().len() as f64)
}

fn goldens() -> HashMap<String, Tensor> {
    golden_tensors("image_processor/golden.safetensors")
}

/// JPEG leaves the inverse cosine transform and the interpolation of colours to the decoder. Compared with
/// libjpeg-turbo, ours is off by 1 or 2 steps, and 3 where colours are subsampled.
#[test]
fn images_are_decoded_as_pillow_does() {
    let goldens = goldens();
    for (name, bytes) in files() {
        let decoded = decode(&name, &bytes).unwrap();
        let Some(golden) = goldens.get(&format!("{name}.decoded")) else { continue };
        let (largest, mean) = difference(&flatten(&decoded, Background::None), &pixels(golden));
        let allowed = if name.ends_with(".jpg") { (3, 0.5) } else { (0, 0.) };
        assert!(largest <= allowed.0 && mean <= allowed.1, "{name}: {largest} steps, mean {mean:.3}");
    }
}

#[test]
fn exif_orientation_can_be_left_alone() {
    let goldens = goldens();
    let mut turned = 0;
    for (name, bytes) in files() {
        let options = DecodeOptions { exif_orientation: false, ..DecodeOptions::default() };
        let decoded = images::decode(&name, &bytes, options).unwrap();
        let Some(golden) = goldens.get(&format!("{name}.raw")) else { continue };
        let (largest, _) = difference(&flatten(&decoded, Background::None), &pixels(golden));
        assert!(largest <= 2, "{name}: {largest} steps");
        turned += 1;
    }
    // Seven of the eight orientations in JPEG, and one each in PNG and WebP. Pillow rotates TIFF itself.
    assert!(turned >= 9);
}

/// One line that names the file, of the right kind.
#[track_caller]
fn assert_refused(result: altclip_encoder::Result<DynamicImage>, name: &str, part: &str) {
    let Err(error) = result else { panic!("{name} was accepted") };
    assert!(matches!(error, Error::Files(model_files::Error::Format { .. })), "{error:?}");
    let line = error.to_string();
    assert!(line.starts_with(&format!("{name}: ")) && line.contains(part), "{line}");
    assert!(!line.contains('\n'), "{line}");
}

/// Only the first frame of an animation counts, even if later ones are missing.
#[test]
fn files_cut_short_are_refused() {
    for (name, bytes) in files() {
        let whole = decode(&name, &bytes).unwrap();
        for eighths in 0..8 {
            match decode(&name, &bytes[..bytes.len() * eighths / 8]) {
                Ok(image) if name.starts_with("animated") => assert_eq!(image, whole),
                result => assert_refused(result, &name, ""),
            }
        }
    }
    let (name, bytes) = files().into_iter().find(|(name, _)| name == "baseline_420.jpg").unwrap();
    assert_refused(decode(&name, &bytes[..bytes.len() - 2]), &name, "cut short");
}

#[test]
fn what_is_no_image_is_refused() {
    assert_refused(decode("a.png", b""), "a.png", "the file is empty");
    assert_refused(decode("b.jpg", b"once upon a time"), "b.jpg", "not an image");
    for (content, what) in [
        (&b"\xff\x0a\xfa\x7f"[..], "a JPEG XL image, which is not read here: convert"),
        #[cfg(not(feature = "avif"))]
        (b"\0\0\0\x20ftypavif\0\0\0\0", "an AVIF image, which is not read here: convert"),
        #[cfg(not(feature = "heic"))]
        (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC image, which is not read here: convert"),
        (b"\0\0\0\x18ftyphevc\0\0\0\0", "a sequence of HEIC images, which is not read here: convert"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"<!DOCTYPE html><title>404", "a web page"),
    ] {
        assert_refused(decode("c.jpg", content), "c.jpg", what);
    }
    let error = images::open("no/such.png", DecodeOptions::default()).unwrap_err();
    let is_of_file =
        matches!(&error, Error::Files(model_files::Error::Io { file, .. }) if file == "no/such.png");
    assert!(is_of_file, "{error:?}");
}

/// Damage may give an error or a faulty image, but never a panic.
#[test]
fn damaged_files_do_not_panic() {
    for (name, bytes) in files() {
        let step = bytes.len() / 40 + 1;
        for at in (0..bytes.len()).step_by(step) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xFF;
            let options = DecodeOptions { max_pixels: 1 << 21, ..DecodeOptions::default() };
            let _ = images::decode(&name, &damaged, options);
        }
    }
}

#[test]
fn too_many_pixels_are_refused_before_decoding() {
    let options = DecodeOptions { max_pixels: 8, ..DecodeOptions::default() };
    for (name, bytes) in files().into_iter().filter(|(name, _)| name != "one_pixel.png") {
        assert_refused(images::decode(&name, &bytes, options), &name, "pixels, expected 1 to 8 in all");
    }
    // Headers that claim 4 gigapixels, in small files.
    let file = |name: &str| files().into_iter().find(|(file, _)| file == name).unwrap().1;
    let mut jpeg = file("grey.jpg");
    let frame = jpeg.windows(2).position(|pair| pair == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].fill(0xFF);
    assert_refused(decode("bomb.jpg", &jpeg), "bomb.jpg", "65535×65535 pixels");
    let mut gif = file("still.gif");
    gif[6..10].fill(0xFF);
    assert_refused(decode("bomb.gif", &gif), "bomb.gif", "65535×65535 pixels");
}
