//! Translates other spellings of names in single files to the usual ones.

use super::{text_encoder_names, vae_names};

/// Beginnings of the text encoder's names, and the usual ones.
const TEXT_ENCODER: [(&str, &str); 5] = [
    // Stability AI's generative-models, as in the file of SD-Turbo.
    ("conditioner.embedders.0.model.", "cond_stage_model.model."),
    // CLIP's tower by itself. BERT has other names after the same beginning.
    (
        "cond_stage_model.transformer.embeddings.token_embedding.",
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.",
    ),
    (
        "cond_stage_model.transformer.embeddings.position_embedding.",
        "cond_stage_model.transformer.text_model.embeddings.position_embedding.",
    ),
    (
        "cond_stage_model.transformer.encoder.layers.",
        "cond_stage_model.transformer.text_model.encoder.layers.",
    ),
    (
        "cond_stage_model.transformer.final_layer_norm.",
        "cond_stage_model.transformer.text_model.final_layer_norm.",
    ),
];

/// Parts of the autoencoder's names that some conversions from diffusers leave as they are there.
const VAE_ATTENTION: [(&str, &str); 5] = [
    (".attn_1.group_norm.", ".attn_1.norm."),
    (".attn_1.to_q.", ".attn_1.q."),
    (".attn_1.to_k.", ".attn_1.k."),
    (".attn_1.to_v.", ".attn_1.v."),
    (".attn_1.to_out.0.", ".attn_1.proj_out."),
];

/// The usual name of a tensor, if it is called otherwise, and divided as in diffusers; none for others. For
/// [`Checkpoint::with_rows_split`](model_files::checkpoint::Checkpoint::with_rows_split).
pub(super) fn usual_names(stored: &str) -> Vec<String> {
    let usual = usual_name(stored);
    let parts = text_encoder_names::fused_parts(usual.as_deref().unwrap_or(stored));
    if parts.is_empty() { usual.into_iter().collect() } else { parts }
}

fn usual_name(stored: &str) -> Option<String> {
    if stored.starts_with(vae_names::PREFIX) {
        let (theirs, ours) = VAE_ATTENTION.iter().find(|(theirs, _)| stored.contains(theirs))?;
        return Some(stored.replacen(theirs, ours, 1));
    }
    let mut beginnings = TEXT_ENCODER.iter();
    beginnings.find_map(|(theirs, ours)| Some(format!("{ours}{}", stored.strip_prefix(theirs)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_usual_ones() {
        for (stored, usual) in [
            (
                "cond_stage_model.transformer.encoder.layers.0.mlp.fc1.bias",
                &["cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.bias"][..],
            ),
            (
                "conditioner.embedders.0.model.transformer.resblocks.0.attn.in_proj_bias",
                &[
                    "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias.q",
                    "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias.k",
                    "cond_stage_model.model.transformer.resblocks.0.attn.in_proj_bias.v",
                ],
            ),
            (
                "first_stage_model.decoder.mid.attn_1.to_out.0.bias",
                &["first_stage_model.decoder.mid.attn_1.proj_out.bias"],
            ),
            // Taiyi's BERT, and names that are the usual ones.
            ("cond_stage_model.transformer.encoder.layer.0.output.dense.bias", &[]),
            ("cond_stage_model.transformer.embeddings.word_embeddings.weight", &[]),
            ("cond_stage_model.transformer.text_model.final_layer_norm.bias", &[]),
            ("first_stage_model.encoder.mid.attn_1.q.bias", &[]),
            ("model.diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_out.0.bias", &[]),
            // Stable Diffusion XL's second text encoder.
            ("conditioner.embedders.1.model.ln_final.bias", &[]),
        ] {
            assert_eq!(usual_names(stored), usual, "{stored}");
        }
    }
}
