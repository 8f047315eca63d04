//! Decodes arbitrary bytes as an image file: pixels within the limit, or an error.
#![no_main]

use altclip_encoder::images::{DecodeOptions, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let options = DecodeOptions { max_pixels: 1 << 20, ..DecodeOptions::default() };
    if let Ok(image) = decode("fuzz", bytes, options) {
        assert!(u64::from(image.width()) * u64::from(image.height()) <= options.max_pixels);
    }
});
