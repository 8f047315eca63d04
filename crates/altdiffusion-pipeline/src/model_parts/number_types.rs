//! Decides which weights of a model are quantized.
//!
//! In blocks are the weights of linear layers and convolutions, nearly all of the model. What is left out is little of it and
//! much of its quality: llama.cpp and stable-diffusion.cpp keep norms and biases in f32, stable-diffusion.cpp the embedding
//! of the timestep and ComfyUI-GGUF the first and last convolutions, whose errors nothing after them corrects (Q-Diffusion, Li
//! et al. 2023, arXiv:2302.04304, finds the same). An autoencoder is a tenth of a model, is used once, and shows each of its
//! errors in the image; and what a safety checker is unsure of should not change its mind.

use fused_ops::BlockType;
use model_files::checkpoint::NumberType;

use super::PartKind;

/// What is tried where a row is no whole number of blocks of the type that was asked for: blocks of 32, and the most exact.
const FALLBACK: BlockType = BlockType::Q8_0;

/// How a tensor is written, and whether that is for want of a whole number of blocks in its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chosen {
    pub number: NumberType,
    pub fell_back: bool,
}

/// How to write a tensor of floating-point numbers that diffusers calls `name`, where `wanted` is asked for.
pub(super) fn choose(part: PartKind, name: &str, shape: &[usize], wanted: NumberType) -> Chosen {
    let as_it_is = |number| Chosen { number, fell_back: false };
    let NumberType::Quantized(wanted) = wanted else { return as_it_is(wanted) };
    let [_, row @ ..] = shape else { return as_it_is(NumberType::F32) };
    if row.is_empty() {
        return as_it_is(NumberType::F32);
    }
    let wanted = match part {
        PartKind::Vae | PartKind::SafetyChecker => return as_it_is(NumberType::F16),
        PartKind::UNet => match name.split('.').next() {
            Some("conv_in" | "conv_out" | "time_embedding") => return as_it_is(NumberType::F16),
            _ => wanted,
        },
        PartKind::ImageEncoder if name.contains(".embeddings.") => return as_it_is(NumberType::F16),
        PartKind::ImageEncoder => wanted,
        PartKind::TextEncoder => match name.rsplit('.').nth(1) {
            // A quarter of the text encoder, of which a prompt reads a few rows.
            Some("word_embeddings") => FALLBACK,
            Some("position_embeddings" | "token_type_embeddings") => return as_it_is(NumberType::F16),
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
    fn rows_that_are_no_whole_blocks_take_others() {
        let unet = PartKind::UNet;
        check(unet, "down_blocks.0.resnets.0.conv1.weight", &[320, 320, 3, 3], Q8_0, true);
        check(unet, "x.weight", &[320, 40], NumberType::F16, true);
    }
}
