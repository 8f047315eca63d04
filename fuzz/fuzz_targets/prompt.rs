//! Parses arbitrary texts as prompts with weights: finite weights and no new text, or an error.
#![no_main]

use altdiffusion_pipeline::{PromptSegment, parse_prompt};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|prompt: &str| {
    let Ok(parts) = parse_prompt(prompt) else { return };
    let mut bytes = 0;
    for part in parts {
        if let PromptSegment::Text { text, weight } = part {
            assert!(!weight.is_nan(), "{prompt:?}");
            bytes += text.len();
        }
    }
    assert!(bytes <= prompt.len());
});
