//! Decides which weights of a model to quantize.
//!
//! Quantized are the weights of linear layers and convolutions, nearly all of a model. The rest is small and matters
//! most for quality: llama.cpp and stable-diffusion.cpp keep norms and biases in f32, stable-diffusion.cpp also the
//! timestep embedding, and ComfyUI-GGUF the first and last convolutions, since nothing after them corrects their
//! errors (Q-Diffusion, Li et al. 2023, arXiv:2302.04304, finds the same). The autoencoder is a tenth of a model,
//! runs once, and shows each error in the image, so it is quantized only if asked for; so does the upscaler, which is tiny. The safety checker is left alone
//! so that no verdict changes.
//!
//! In int8 are the weights of linear layers, whose inputs are then rounded too, except for the most sensitive ones. All
//! others are bf16 there.

use fused_ops::BlockType;
use model_files::checkpoint::{NumberType, is_sensitive_to_int8};

use super::PartKind;

/// The type to fall back to where rows are not a multiple of the requested type's block size: blocks of 32, and the
/// most accurate.
const FALLBACK: BlockType = BlockType::Q8_0;

/// How to write a tensor, and whether that is a fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chosen {
    pub number: NumberType,
    pub fell_back: bool,
}

/// Chooses how to write the floating-point tensor `name` (in diffusers' naming) when `wanted` is requested.
pub(super) fn choose(part: PartKind, name: &str, shape: &[usize], wanted: NumberType) -> Chosen {
    let as_it_is = |number| Chosen { number, fell_back: false };
    if wanted == NumberType::Int8 {
        return as_it_is(choose_int8(part, name, shape));
    }
    let NumberType::Quantized(wanted) = wanted else { return as_it_is(wanted) };
    let [_, row @ ..] = shape else { return as_it_is(NumberType::F32) };
    if row.is_empty() {
        return as_it_is(NumberType::F32);
    }
    let wanted = match part {
        PartKind::Vae | PartKind::Upscaler | PartKind::SafetyChecker => return as_it_is(NumberType::F16),
        PartKind::UNet => match name.split('.').next() {
            Some("conv_in" | "conv_out" | "time_embedding") => return as_it_is(NumberType::F16),
            _ => wanted,
        },
        PartKind::ImageEncoder if name.contains(".embeddings.") => return as_it_is(NumberType::F16),
        PartKind::ImageEncoder => wanted,
        PartKind::TextEncoder => match name.rsplit('.').nth(1) {
            // A quarter of the text encoder, and a prompt reads only a few of its rows.
            Some("word_embeddings" | "token_embedding") => FALLBACK,
            Some("position_embeddings" | "position_embedding" | "token_type_embeddings") => {
                return as_it_is(NumberType::F16);
            }
            _ => wanted,
        },
    };
    let row = row.iter().product();
    let fits = |kind: &BlockType| kind.bytes_of(row).is_some();
    match [wanted, FALLBACK].into_iter().find(fits) {
        Some(kind) => Chosen { number: NumberType::Quantized(kind), fell_back: kind != wanted },
        None => Chosen { number: NumberType::F16, fell_back: true },
    }
}

/// Chooses how to write a tensor of a model in int8.
pub(super) fn choose_int8(part: PartKind, name: &str, shape: &[usize]) -> NumberType {
    if shape.len() < 2 {
        return NumberType::F32;
    }
    if matches!(part, PartKind::Vae | PartKind::Upscaler | PartKind::SafetyChecker) {
        return NumberType::F16;
    }
    // Tables are read by rows, without products.
    let is_table = name.rsplit('.').nth(1).is_some_and(|layer| layer.contains("embedding"));
    let is_linear = shape.len() == 2 && name.rsplit('.').next() == Some("weight") && !is_table;
    match is_linear && !name.starts_with("time_embedding.") && !is_sensitive_to_int8(name) {
        true => NumberType::Int8,
        false => NumberType::Bf16,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q4K: NumberType = NumberType::Quantized(BlockType::Q4K);
    const Q8_0: NumberType = NumberType::Quantized(BlockType::Q8_0);

    #[track_caller]
    fn check(part: PartKind, name: &str, shape: &[usize], number: NumberType, fell_back: bool) {
        assert_eq!(choose(part, name, shape, Q4K), Chosen { number, fell_back }, "{name}");
    }

    #[test]
    fn weights_are_quantized_and_what_is_delicate_is_not() {
        let unet = PartKind::UNet;
        check(unet, "mid_block.resnets.0.conv1.weight", &[1280, 1280, 3, 3], Q4K, false);
        check(unet, "mid_block.resnets.0.conv1.bias", &[1280], NumberType::F32, false);
        check(unet, "mid_block.resnets.0.norm1.weight", &[1280], NumberType::F32, false);
        check(unet, "conv_in.weight", &[320, 4, 3, 3], NumberType::F16, false);
        check(unet, "conv_out.weight", &[4, 320, 3, 3], NumberType::F16, false);
        check(unet, "time_embedding.linear_1.weight", &[1280, 320], NumberType::F16, false);
        check(PartKind::Vae, "decoder.conv_in.weight", &[512, 256, 3, 3], NumberType::F16, false);
        let text = PartKind::TextEncoder;
        check(text, "roberta.embeddings.word_embeddings.weight", &[250_002, 1024], Q8_0, false);
        check(text, "roberta.embeddings.position_embeddings.weight", &[514, 1024], NumberType::F16, false);
        check(text, "roberta.encoder.layer.0.output.dense.weight", &[1024, 4096], Q4K, false);
        check(text, "logit_scale", &[], NumberType::F32, false);
        let as_asked = choose(PartKind::Vae, "x", &[3], NumberType::Bf16);
        assert_eq!(as_asked, Chosen { number: NumberType::Bf16, fell_back: false });
    }

    #[test]
    fn linear_layers_are_in_int8_and_what_is_sensitive_is_not() {
        let check = |part, name, shape: &[usize], number| {
            let chosen = choose(part, name, shape, NumberType::Int8);
            assert_eq!(chosen, Chosen { number, fell_back: false }, "{name}");
        };
        let (unet, text) = (PartKind::UNet, PartKind::TextEncoder);
        check(unet, "mid_block.attentions.0.proj_in.weight", &[1280, 1280], NumberType::Int8);
        check(unet, "mid_block.attentions.0.proj_in.weight", &[1280, 1280, 1, 1], NumberType::Bf16);
        check(unet, "mid_block.resnets.0.conv1.weight", &[1280, 1280, 3, 3], NumberType::Bf16);
        check(unet, "mid_block.resnets.0.conv1.bias", &[1280], NumberType::F32);
        check(unet, "time_embedding.linear_1.weight", &[1280, 320], NumberType::Bf16);
        check(PartKind::Vae, "decoder.mid_block.attentions.0.to_q.weight", &[512, 512], NumberType::F16);
        check(text, "roberta.embeddings.word_embeddings.weight", &[250_002, 1024], NumberType::Bf16);
        check(text, "roberta.encoder.layer.0.output.dense.weight", &[1024, 4096], NumberType::Bf16);
        check(text, "roberta.encoder.layer.1.output.dense.weight", &[1024, 4096], NumberType::Int8);
        check(text, "logit_scale", &[], NumberType::F32);
    }

    #[test]
    fn rows_that_are_no_whole_blocks_take_others() {
        let unet = PartKind::UNet;
        check(unet, "down_blocks.0.resnets.0.conv1.weight", &[320, 320, 3, 3], Q8_0, true);
        check(unet, "x.weight", &[320, 40], NumberType::F16, true);
    }
}
