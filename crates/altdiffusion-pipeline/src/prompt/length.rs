//! Finds out how many tokens the prompts of a model have.

use altclip_encoder::text_encoder::TextEncoderConfig;
pub use altclip_encoder::tokenizer::PROMPT_LENGTH as PROMPT_TOKENS;
use model_files::config::parse_json;
use model_files::source::ModelSource;
use serde::Deserialize;

use crate::Result;

/// The tokens that the prompts of a model are padded and cut to: `model_max_length` of its
/// `tokenizer/tokenizer_config.json`, as in diffusers. That is [`PROMPT_TOKENS`] in published models; what the encoder
/// has no positions for counts as not given, since transformers writes a huge number where nothing was set.
///
/// # Errors
/// When the file is there but cannot be read.
pub(crate) fn prompt_tokens(source: &ModelSource, encoder: &TextEncoderConfig) -> Result<usize> {
    #[derive(Deserialize)]
    struct TokenizerConfig {
        model_max_length: Option<f64>,
    }

    let Some(file) = source.read_optional("tokenizer/tokenizer_config.json")? else {
        return Ok(PROMPT_TOKENS);
    };
    let config: TokenizerConfig = parse_json(&file)?;
    // Room for `<s>` and `</s>` at least.
    let possible = 2.0..=encoder.encoder.max_tokens() as f64;
    Ok(match config.model_max_length {
        Some(length) if possible.contains(&length) => length as usize,
        _ => PROMPT_TOKENS,
    })
}
