//! Embeds the model that ships with the program, `models/emoji`, quantized to 5 bits where that hardly costs quality.

use std::path::Path;

use emoji_model::EmojiRecipe;
use model_files::source::{EmbeddedFiles, ModelSource};

/// The model's name in images.
pub const NAME: &str = "emoji";

/// The width and height of its images, in pixels.
pub const SIDE: usize = 64;

/// More steps do not improve its images: the PSNR to the originals falls.
pub const STEPS: usize = 6;

/// Below, more images are of another concept; above, they are further from the originals.
pub const GUIDANCE_SCALE: f64 = 1.5;

/// How many times its images' sides are enlarged.
pub const SCALE: usize = 4;

/// The recipe it was trained with.
const RECIPE: &str = include_str!("../models/emoji/recipe.toml");

/// The files at these paths in `models/emoji`, and those in its folder `embedded` under their names in the model.
macro_rules! embedded {
    ($($path:literal),*; $($quantized:literal as $name:literal),*) => {
        &[
            $(($path, include_bytes!(concat!("../models/emoji/", $path))),)*
            $(($name, include_bytes!(concat!("../models/emoji/embedded/", $quantized))),)*
        ]
    };
}

/// A static, since each use of a constant could duplicate the weights in the program.
static FILES: EmbeddedFiles = embedded![
    "concepts.json.gz",
    "model_index.json",
    "tokenizer/sentencepiece.bpe.model",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "text_encoder/config.json",
    "unet/config.json",
    "vae/config.json",
    "scheduler/scheduler_config.json",
    "image_encoder/config.json",
    "feature_extractor/preprocessor_config.json",
    "upscaler/config.json",
    "upscaler/diffusion_pytorch_model.safetensors";
    "text_encoder.gguf" as "text_encoder/model.gguf",
    "unet.gguf" as "unet/diffusion_pytorch_model.gguf",
    "vae.gguf" as "vae/diffusion_pytorch_model.gguf",
    "image_encoder.gguf" as "image_encoder/model.gguf"
];

/// Its files, as a model source.
pub fn source() -> ModelSource {
    // Quantized for a small program; unpacked it takes some 40 MB, and draws in less time.
    ModelSource::embedded("the built-in model", FILES).unpacked()
}

/// The recipe in a file, by default that of the built-in model.
///
/// # Errors
/// If the file cannot be read, or is not a recipe.
pub fn recipe(path: Option<&Path>) -> emoji_model::Result<EmojiRecipe> {
    match path {
        Some(path) => EmojiRecipe::load(path, &[]),
        None => EmojiRecipe::parse(RECIPE, Path::new("models/emoji/recipe.toml")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program must stay a quick download.
    const MOST_BYTES: usize = 9_000_000;

    #[test]
    fn it_is_small() {
        let bytes: usize = FILES.iter().map(|(_, content)| content.len()).sum();
        assert!(bytes <= MOST_BYTES, "{bytes} bytes");
    }
}
