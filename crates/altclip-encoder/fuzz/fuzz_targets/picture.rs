//! Any bytes as a picture file: pixels within the limit, or an error.
#![no_main]

use altclip_encoder::picture::{DecodeOptions, decode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let options = DecodeOptions { max_pixels: 1 << 20, ..DecodeOptions::default() };
    if let Ok(picture) = decode("fuzz", bytes, options) {
        assert!(u64::from(picture.width()) * u64::from(picture.height()) <= options.max_pixels);
    }
});
