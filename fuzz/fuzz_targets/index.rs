//! Opens arbitrary bytes as an index, and searches it.
#![no_main]

use altdiffusion_fuzz::in_file;
use embedding_index::{Index, ItemKind, SearchOptions};
use libfuzzer_sys::fuzz_target;

/// The widest query made; a width is a number in the file.
const WIDEST: usize = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    in_file("fuzz.safetensors", bytes, |path| {
        let Ok(index) = Index::open(path) else { return };
        let items = index.len(ItemKind::Text) + index.len(ItemKind::Image);
        if index.width() <= WIDEST
            && let Ok(hits) = index.search(&vec![0.5; index.width()], SearchOptions::default())
        {
            assert!(hits.len() <= items && hits.iter().all(|hit| hit.score <= 1.001 || hit.score.is_nan()));
        }
    });
});
