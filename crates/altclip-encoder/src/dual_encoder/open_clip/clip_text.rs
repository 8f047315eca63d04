//! Reads CLIP's own text tower, whose weights OpenCLIP has at the root or, in models of a later class, under `text`.

use model_files::checkpoint::Checkpoint;

use super::super::family::OPEN_CLIP_CONFIG;
use super::config::ModelConfig;
use crate::clip_text::ClipTextConfig;
use crate::error::{Error, Result};
use crate::open_clip_names;

/// What the names of its weights begin with; `None` if the text tower is another.
pub(super) fn prefix(checkpoint: &Checkpoint) -> Option<&'static str> {
    ["", "text."].into_iter().find(|prefix| checkpoint.contains(&format!("{prefix}token_embedding.weight")))
}

/// The configuration of the tower.
///
/// # Errors
/// If it contradicts itself.
pub(super) fn config(model: &ModelConfig) -> Result<ClipTextConfig> {
    let config = model.clip_text();
    config.check().map_err(|problem| Error::config(OPEN_CLIP_CONFIG, problem))?;
    Ok(config)
}

/// The weights of the tower, by their names in transformers.
pub(super) fn weights(checkpoint: &Checkpoint, prefix: &'static str) -> Checkpoint {
    checkpoint.part(prefix, move |name| {
        let name = text_name(name)?;
        let folder = if name.starts_with(LAYERS) { "transformer." } else { "" };
        Some(format!("{prefix}{folder}{name}"))
    })
}

const LAYERS: &str = "resblocks.";

/// The name in OpenCLIP of a weight of the text tower in transformers, where both are those of one module.
pub(in crate::dual_encoder) fn text_name(name: &str) -> Option<String> {
    Some(match name {
        "embeddings.token_embedding.weight" => "token_embedding.weight".to_owned(),
        "embeddings.position_embedding.weight" => "positional_embedding".to_owned(),
        _ => match name.split_once('.')? {
            ("final_layer_norm", kind) => format!("ln_final.{kind}"),
            _ => {
                let (layer, rest) = name.strip_prefix("encoder.layers.")?.split_once('.')?;
                format!("{LAYERS}{layer}.{}", open_clip_names::to_open_clip(rest)?)
            }
        },
    })
}
