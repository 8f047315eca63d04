//! Translates MindSpore's names, as in Wukong-Huahua's file, to those of PyTorch's files.
//!
//! MindSpore calls a norm's weight and bias gamma and beta, and Wukong-Huahua's UNet has a cell around each convolution
//! and one instead of a list in residual blocks. The text encoder's names are OpenCLIP's but for its tables.

/// What only MindSpore's files have.
const SIGN: &str = ".gamma";
const TEXT_ENCODER: &str = "cond_stage_model.transformer.";

/// The parts of a name that differ, in MindSpore and in latent diffusion.
const UNET_PARTS: [(&str, &str); 8] = [
    (".in_layers_norm.", ".in_layers.0."),
    (".out_layers_norm.", ".out_layers.0."),
    (".in_layers_conv.conv.", ".in_layers.2."),
    (".out_layers_conv.conv.", ".out_layers.3."),
    (".skip_connection.conv.", ".skip_connection."),
    (".op.conv.", ".op."),
    (".conv.conv.", ".conv."),
    ("out.2.conv.", "out.2."),
];
/// The first convolution, which has no name of its own.
const FIRST: (&str, &str) = ("input_blocks.0.0.conv.", "input_blocks.0.0.");
/// The same for the text encoder, in OpenCLIP's naming.
const TEXT_PARTS: [(&str, &str); 5] = [
    ("embedding_table", "token_embedding.weight"),
    ("transformer_layer.resblocks.", "transformer.resblocks."),
    (".attn.attn.in_proj.", ".attn.in_proj_"),
    (".attn.attn.out_proj.", ".attn.out_proj."),
    (".c_", ".mlp.c_"),
];

/// Whether a file with these tensors was written by MindSpore.
pub(super) fn are_in<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(|name| name.ends_with(SIGN))
}

/// The name in PyTorch's files.
pub(super) fn to_pytorch(name: &str) -> String {
    let replaced = |name: String, parts: &[(&str, &str)]| {
        parts.iter().fold(name, |name, (from, to)| name.replace(from, to))
    };
    let name = match name.rsplit_once('.') {
        Some((layer, "gamma")) => format!("{layer}.weight"),
        Some((layer, "beta")) => format!("{layer}.bias"),
        _ => name.to_owned(),
    };
    match name.strip_prefix(TEXT_ENCODER) {
        Some(rest) => format!("cond_stage_model.model.{}", replaced(rest.to_owned(), &TEXT_PARTS)),
        None if name.starts_with(super::unet_names::PREFIX) => {
            replaced(name.replace(FIRST.0, FIRST.1), &UNET_PARTS)
        }
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_latent_diffusion_and_open_clip() {
        for (name, expected) in [
            (
                "model.diffusion_model.input_blocks.0.0.conv.bias",
                "model.diffusion_model.input_blocks.0.0.bias",
            ),
            (
                "model.diffusion_model.input_blocks.3.0.op.conv.weight",
                "model.diffusion_model.input_blocks.3.0.op.weight",
            ),
            (
                "model.diffusion_model.output_blocks.5.2.conv.conv.weight",
                "model.diffusion_model.output_blocks.5.2.conv.weight",
            ),
            (
                "model.diffusion_model.middle_block.0.out_layers_conv.conv.bias",
                "model.diffusion_model.middle_block.0.out_layers.3.bias",
            ),
            ("model.diffusion_model.out.0.gamma", "model.diffusion_model.out.0.weight"),
            ("model.diffusion_model.out.2.conv.weight", "model.diffusion_model.out.2.weight"),
            ("first_stage_model.decoder.norm_out.beta", "first_stage_model.decoder.norm_out.bias"),
            ("cond_stage_model.transformer.embedding_table", "cond_stage_model.model.token_embedding.weight"),
            (
                "cond_stage_model.transformer.transformer_layer.resblocks.3.attn.attn.in_proj.weight",
                "cond_stage_model.model.transformer.resblocks.3.attn.in_proj_weight",
            ),
            (
                "cond_stage_model.transformer.transformer_layer.resblocks.3.c_fc.bias",
                "cond_stage_model.model.transformer.resblocks.3.mlp.c_fc.bias",
            ),
        ] {
            assert_eq!(to_pytorch(name), expected);
        }
    }
}
