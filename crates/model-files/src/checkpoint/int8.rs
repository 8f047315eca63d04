//! Decides which weights are given in int8.

/// Whether a weight, by the name that a model asks for, loses more in int8 than others: that of a transformer's first
/// layer, whose errors pass through all other layers.
pub fn is_sensitive_to_int8(name: &str) -> bool {
    /// What transformers, OpenCLIP and timm call it.
    const FIRST_LAYER: [&str; 4] = ["layer.0.", "layers.0.", "resblocks.0.", "blocks.0."];
    let starts_segment = |at: usize| at == 0 || name.as_bytes().get(at - 1) == Some(&b'.');
    FIRST_LAYER.iter().any(|first| name.match_indices(first).any(|(at, _)| starts_segment(at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_layer_of_a_transformer_is_sensitive() {
        for name in [
            "roberta.encoder.layer.0.output.dense.weight",
            "text_model.encoder.layers.0.mlp.fc1.weight",
            "transformer.resblocks.0.mlp.c_fc.weight",
            "visual.trunk.blocks.0.attn.qkv.weight",
            "layers.0.weight",
        ] {
            assert!(is_sensitive_to_int8(name), "{name}");
        }
        for name in [
            "roberta.encoder.layer.10.output.dense.weight",
            "down_blocks.0.attentions.0.proj_in.weight",
            "transformation.weight",
        ] {
            assert!(!is_sensitive_to_int8(name), "{name}");
        }
    }
}
