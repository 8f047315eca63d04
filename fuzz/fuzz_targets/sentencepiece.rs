//! Reads arbitrary bytes as a SentencePiece model, and tokenizes with it.
#![no_main]

use altclip_encoder::Tokenizer;
use libfuzzer_sys::fuzz_target;

/// What is tokenized: of several scripts, with combining characters and spaces.
const TEXTS: [&str; 3] = ["a photo of a cat", "一只猫 ｆｕｌｌ　ｗｉｄｔｈ", "e\u{301}\u{200d} \t\u{fffd}👩‍🎨"];

fuzz_target!(|bytes: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_sentencepiece_bytes(bytes, "fuzz.model") else { return };
    for text in TEXTS {
        if let Ok(ids) = tokenizer.encode(text) {
            assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
        }
    }
});
