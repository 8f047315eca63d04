//! Tells the sizes of an XLM-R by its weights, for configurations that only name it.

use model_files::checkpoint::Checkpoint;

use crate::error::{Error, Result};
use crate::xlm_roberta::XlmRobertaConfig;

/// Channels per head in XLM-R, base and large.
const HEAD_WIDTH: usize = 64;

/// The sizes of the XLM-R whose weights' names start with `prefix`; `expected` names the model in errors.
///
/// # Errors
/// If there are no such weights, or they cannot be XLM-R's.
pub(super) fn xlm_roberta_config(
    checkpoint: &Checkpoint,
    prefix: &str,
    expected: &str,
) -> Result<XlmRobertaConfig> {
    let size = |name: &str, dimension: usize| -> Result<usize> {
        let name = format!("{prefix}{name}.weight");
        let missing = || {
            let problem = format!("expected {expected}, found no tensor {name}");
            Error::format(checkpoint.file_name(), problem)
        };
        checkpoint.shape(&name).and_then(|shape| shape.get(dimension)).copied().ok_or_else(missing)
    };
    let words = "embeddings.word_embeddings";
    let hidden_size = size(words, 1)?;
    let layer = |name: &str| {
        let layer = name.strip_prefix(prefix)?.strip_prefix("encoder.layer.")?;
        layer.split('.').next()?.parse().ok()
    };
    let config = XlmRobertaConfig {
        vocab_size: size(words, 0)?,
        hidden_size,
        num_hidden_layers: checkpoint
            .names()
            .filter_map(layer)
            .max()
            .map_or(0, |last: usize| last.saturating_add(1)),
        num_attention_heads: hidden_size / HEAD_WIDTH,
        intermediate_size: size("encoder.layer.0.intermediate.dense", 0)?,
        max_position_embeddings: size("embeddings.position_embeddings", 0)?,
        type_vocab_size: size("embeddings.token_type_embeddings", 0)?,
        ..XlmRobertaConfig::large()
    };
    config.check().map_err(|problem| Error::format(checkpoint.file_name(), problem))?;
    Ok(config)
}
