//! Reads arbitrary bytes as a Parquet file: a bounded number of strings and images, or an error.
#![no_main]

use altdiffusion_fuzz::in_file;
use embedding_index::readers::ListFile;
use libfuzzer_sys::fuzz_target;

/// The most rows looked at: a few bytes can encode a long run of equal ones.
const MOST_ROWS: usize = 1 << 12;

fuzz_target!(|bytes: &[u8]| {
    in_file("fuzz.parquet", bytes, |path| {
        for column in [None, Some("text"), Some("image")] {
            let Ok(list) = ListFile::open(path, column) else { continue };
            if let Ok(strings) = list.strings() {
                strings.take(MOST_ROWS).for_each(drop);
            }
            if let Ok(images) = list.images() {
                images.take(MOST_ROWS).for_each(drop);
            }
        }
    });
});
