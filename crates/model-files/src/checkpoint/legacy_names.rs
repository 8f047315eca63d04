//! Maps tensor names to older ones that published checkpoints still use.

/// From a segment of today's name to its older form.
///
/// * diffusers up to 0.11 named the projections of an autoencoder's attention differently (diffusers'
///   `_convert_deprecated_attention_blocks` renames them).
/// * TensorFlow's layer norms, from which the first BERT checkpoints were converted, have a gamma and a beta.
const RENAMED: [(&str, &str); 6] = [
    (".to_q.", ".query."),
    (".to_k.", ".key."),
    (".to_v.", ".value."),
    (".to_out.0.", ".proj_attn."),
    (".LayerNorm.weight", ".LayerNorm.gamma"),
    (".LayerNorm.bias", ".LayerNorm.beta"),
];

/// The older name of the tensor now called `name`, if it had one.
pub(super) fn legacy_name(name: &str) -> Option<String> {
    let (today, older) = RENAMED.iter().find(|(today, _)| name.contains(today))?;
    Some(name.replacen(today, older, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_of_old_autoencoders_is_found() {
        let old = |name| legacy_name(name).unwrap();
        assert_eq!(old("mid_block.attentions.0.to_q.bias"), "mid_block.attentions.0.query.bias");
        assert_eq!(old("mid_block.attentions.0.to_out.0.weight"), "mid_block.attentions.0.proj_attn.weight");
        assert_eq!(legacy_name("conv_in.weight"), None);
    }
}
