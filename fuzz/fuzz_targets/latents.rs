//! Reads arbitrary bytes as latents that a run begins with.
#![no_main]

use altdiffusion_fuzz::in_file;
use altdiffusion_pipeline::latents::read_latents;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    in_file("fuzz.safetensors", bytes, |path| {
        if let Ok(latents) = read_latents(path) {
            assert!(latents.elem_count() <= bytes.len());
        }
    });
});
