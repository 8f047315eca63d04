//! Reads arbitrary bytes as JSON lines: no more strings than the file can hold, or an error.
#![no_main]

use altdiffusion_fuzz::in_file;
use embedding_index::readers::{ListFile, TextTable};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    in_file("fuzz.jsonl", bytes, |path| {
        let _ = TextTable::read(path, &["text"]);
        for column in [None, Some("text"), Some("a.b")] {
            let Ok(list) = ListFile::open(path, column) else { continue };
            if let Ok(strings) = list.strings() {
                assert!(strings.count() <= bytes.len());
            }
            if let Ok(names) = list.image_names() {
                assert!(names.count() <= bytes.len());
            }
        }
    });
});
