//! Checks the memory that decoding takes. All is in one test, since the peak is that of the whole process.
#![cfg(target_os = "linux")]

use std::fs;

use altclip_encoder::images::{self, DecodeOptions};
use image::DynamicImage;
use png::{BitDepth, ColorType, Encoder};

const WIDTH: u32 = 4000;
const HEIGHT: u32 = 3000;
/// For everything but pixels.
const BESIDE: u64 = 16 << 20;

/// A small PNG file of a large image in one colour.
fn png_file(color: ColorType, depth: BitDepth, value: u8) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, WIDTH, HEIGHT);
    encoder.set_color(color);
    encoder.set_depth(depth);
    let bytes = color.samples() * (depth as usize / 8) * WIDTH as usize * HEIGHT as usize;
    encoder.write_header().unwrap().write_image_data(&vec![value; bytes]).unwrap();
    file
}

/// A field of the process's status, in bytes.
fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Decodes a file, and returns the bytes that this took at most.
fn decoded(bytes: &[u8]) -> (DynamicImage, u64) {
    // The peak begins anew.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let image = images::decode("large.png", bytes, DecodeOptions::default()).unwrap();
    (image, status("VmHWM:").saturating_sub(before))
}

#[test]
fn decoding_takes_the_memory_of_the_image() {
    let pixels = u64::from(WIDTH) * u64::from(HEIGHT);
    for (color, depth, value, bytes) in [
        (ColorType::Grayscale, BitDepth::Eight, 7, 3),
        (ColorType::Grayscale, BitDepth::Sixteen, 7, 3),
        (ColorType::Rgb, BitDepth::Eight, 7, 3),
        (ColorType::Rgb, BitDepth::Sixteen, 7, 3),
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen, 7, 4),
        (ColorType::Rgba, BitDepth::Sixteen, 7, 4),
        // Opaque.
        (ColorType::Rgba, BitDepth::Sixteen, 255, 4),
    ] {
        let file = png_file(color, depth, value);
        let (image, most) = decoded(&file);
        assert_eq!(image.as_bytes().len() as u64, pixels * if value == 255 { 3 } else { bytes });
        assert!(image.as_bytes().iter().all(|byte| *byte == value));
        let allowed = pixels * bytes + BESIDE;
        assert!(most <= allowed, "{color:?}, {depth:?}: {most} bytes, expected at most {allowed}");
    }
}
