//! Makes the small files beside the graphs.

use model_files::source::ModelSource;
use serde_json::{Value, json};

use crate::dual_encoder::{Family, OnnxTowers};
use crate::embedder::ImagePreparation;
use crate::error::{Error, Result};
use crate::image_processor::{CropTo, ImageProcessorConfig, Resampling, ResizeTo};
use crate::tokenizer::TokenizerJson;

/// The small files for these towers, and their contents.
///
/// # Errors
/// If a file is missing or damaged, or the images do not fit the tower, or are prepared in a way that the files cannot
/// say.
pub(super) fn small_files(
    source: &ModelSource,
    family: Family,
    towers: &OnnxTowers,
) -> Result<[(&'static str, Vec<u8>); 4]> {
    let TokenizerJson { json, pad_token, clean } = TokenizerJson::read(source, family.tokenizer_folder())?;
    let side = towers.image_size;
    let images = ImagePreparation::read(source, family)?.checked(side, family, source)?;
    let preprocess = preprocess_config(images.processor()?.config(), side)
        .map_err(|problem| Error::config(source.to_string(), problem))?;
    let mut text = json!({"context_length": towers.context_length});
    if let Some(clean) = clean {
        text["tokenizer_kwargs"] = json!({"clean": clean});
    }
    let config = json!({
        "embed_dim": towers.projection_dim,
        "text_cfg": text,
        "vision_cfg": {"image_size": side},
    });
    let tokenizer_config = json!({
        "model_max_length": towers.context_length,
        "pad_token": pad_token,
        "tokenizer_class": "PreTrainedTokenizerFast",
    });
    let pretty = |json: &Value| format!("{json:#}\n").into_bytes();
    Ok([
        ("config.json", pretty(&config)),
        ("textual/tokenizer.json", json.to_string().into_bytes()),
        ("textual/tokenizer_config.json", pretty(&tokenizer_config)),
        ("visual/preprocess_cfg.json", pretty(&preprocess)),
    ])
}

/// How images are prepared for a tower of `side` pixels, in open_clip's words.
///
/// # Errors
/// If there are no words for it.
fn preprocess_config(config: &ImageProcessorConfig, side: usize) -> std::result::Result<Value, String> {
    let side = u32::try_from(side).unwrap_or(u32::MAX);
    let is_whole_square = match config.crop_size {
        _ if !config.do_center_crop => true,
        CropTo::Exactly { height, width } => (height, width) == (side, side),
        CropTo::Number(number) => number == side,
    };
    let mode = match config.size {
        ResizeTo::ShortestEdge { shortest_edge } | ResizeTo::Number(shortest_edge)
            if shortest_edge == side && config.do_center_crop =>
        {
            Some("shortest")
        }
        ResizeTo::Exactly { height, width } | ResizeTo::Pair([height, width])
            if (height, width) == (side, side) =>
        {
            Some("squash")
        }
        _ => None,
    };
    let rescales = config.do_rescale && (config.rescale_factor * 255. - 1.).abs() < 1e-6;
    let Some(mode) = mode.filter(|_| is_whole_square && config.do_resize && rescales) else {
        return Err(format!(
            "images are prepared in a way that preprocess_cfg.json cannot say, expected them resized to {side} pixels, \
             their short side and a crop of the middle or both sides, and divided by 255"
        ));
    };
    let interpolation = match config.resample {
        Resampling::Nearest => "nearest",
        Resampling::Lanczos => "lanczos",
        Resampling::Bilinear => "bilinear",
        Resampling::Bicubic => "bicubic",
        Resampling::Box => "box",
        Resampling::Hamming => "hamming",
    };
    let (mean, std) = match config.do_normalize {
        true => (config.image_mean, config.image_std),
        false => ([0.; 3], [1.; 3]),
    };
    Ok(json!({
        "fill_color": 0,
        "interpolation": interpolation,
        "mean": mean,
        "mode": "RGB",
        "resize_mode": mode,
        "size": [side, side],
        "std": std,
    }))
}
