//! Infers the sizes of an XLM-R from its weights, for configurations that only name it.

use model_files::checkpoint::Checkpoint;

use super::weight_sizes::WeightSizes;
use crate::error::Result;
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
    expected: &'static str,
) -> Result<XlmRobertaConfig> {
    let sizes = WeightSizes::new(checkpoint, expected);
    let size = |name: &str, dimension| sizes.of(&format!("{prefix}{name}.weight"), dimension);
    let hidden_size = size("embeddings.word_embeddings", 1)?;
    let config = XlmRobertaConfig {
        vocab_size: size("embeddings.word_embeddings", 0)?,
        hidden_size,
        num_hidden_layers: sizes.layers(&format!("{prefix}encoder.layer.")),
        num_attention_heads: hidden_size / HEAD_WIDTH,
        intermediate_size: size("encoder.layer.0.intermediate.dense", 0)?,
        max_position_embeddings: size("embeddings.position_embeddings", 0)?,
        type_vocab_size: size("embeddings.token_type_embeddings", 0)?,
        ..XlmRobertaConfig::large()
    };
    config.check().map_err(|problem| sizes.problem(&problem))?;
    Ok(config)
}
