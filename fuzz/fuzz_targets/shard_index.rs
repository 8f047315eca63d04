//! Reads arbitrary bytes as `model.safetensors.index.json`: an index of files in its own folder, or an error.
#![no_main]

use model_files::checkpoint::ShardIndex;
use model_files::source::FileData;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(index) = ShardIndex::parse(&FileData::owned("fuzz.index.json", bytes.to_vec())) {
        for shard in index.shards() {
            assert!(!shard.starts_with('/') && shard.split('/').all(|part| part != ".."));
        }
    }
});
