//! Reads arbitrary bytes as a tar archive of captioned images: samples within the file, or an error.
#![no_main]

use altdiffusion_fuzz::in_file;
use embedding_index::readers::ImagePairs;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    in_file("fuzz.tar", bytes, |path| {
        if let Ok(pairs) = ImagePairs::read(path, None, &["txt".to_owned()]) {
            // Every sample has a header of 512 bytes at least.
            assert!(pairs.images().count() <= bytes.len() / 512);
        }
    });
});
