//! Reads how an image was drawn from arbitrary bytes, as a PNG, JPEG, WebP and text file.
#![no_main]

use altdiffusion_fuzz::in_file;
use altdiffusion_pipeline::image_metadata::{GenerationParameters, read_parameters_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for name in ["fuzz.png", "fuzz.txt"] {
        in_file(name, bytes, |path| {
            if let Ok(text) = read_parameters_text(path) {
                let read = GenerationParameters::parse(&text);
                // Written again, it reads the same.
                assert_eq!(GenerationParameters::parse(&read.to_text()), read);
            }
        });
    }
});
