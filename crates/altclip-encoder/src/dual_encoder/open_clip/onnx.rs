//! Builds the ONNX graphs of both towers, for XLM-R and CLIP's image tower.

use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

use super::super::family::OPEN_CLIP_CONFIG;
use super::super::onnx::OnnxTowers;
use super::super::xlm_roberta_sizes::xlm_roberta_config;
use super::config::OpenClipConfig;
use super::text::{self, MEAN_POOLER};
use super::vision_name;
use crate::activation::HiddenAct;
use crate::error::{Error, Result};
use crate::onnx::{Graph, Precision, Weights};
use crate::open_clip_names;

/// Builds the graphs of the model of `source`.
///
/// # Errors
/// If a tower is another one, or a file or a weight is missing or damaged.
pub(in crate::dual_encoder) fn onnx_towers(source: &ModelSource, precision: Precision) -> Result<OnnxTowers> {
    let config: OpenClipConfig = source.read_config(OPEN_CLIP_CONFIG)?;
    let model = &config.model_cfg;
    let other = |tower: &str| {
        let problem = format!(
            "an OpenCLIP with {tower} cannot be written as ONNX, expected XLM-R and CLIP's image tower"
        );
        Error::config(source.to_string(), problem)
    };
    let checkpoint = Checkpoint::open(source, "")?.with_rows_split(open_clip_names::fused_parts);
    let weights = Weights::new(checkpoint.clone());
    if let Some(name) = &model.vision_cfg.timm_model_name {
        return Err(other(name));
    }
    if text::is_nllb(&checkpoint) {
        return Err(other("NLLB"));
    }
    model.text_cfg.check_pooler(MEAN_POOLER)?;
    let encoder = xlm_roberta_config(&checkpoint, text::PREFIX, text::EXPECTED)?;
    let (hidden, dim) = (encoder.hidden_size, model.embed_dim);
    let mut texts = Graph::of_texts(None, precision);
    let states = texts.xlm_roberta(&encoder, &weights.at("text.transformer"))?;
    let mean = texts.mean(&states);
    let projection = weights.at("text.proj");
    let of_text = if projection.contains("weight") {
        texts.product(&mean, hidden, dim, &projection)?
    } else {
        let middle = usize::midpoint(hidden, dim);
        let widened = texts.product(&mean, hidden, middle, &projection.at(0))?;
        let widened = texts.activation(&widened, HiddenAct::Gelu);
        texts.product(&widened, middle, dim, &projection.at(2))?
    };

    let vision = config.vision();
    vision.check().map_err(|problem| Error::config(OPEN_CLIP_CONFIG, problem))?;
    let visual = Weights::new(checkpoint.part("visual.", vision_name));
    let mut images = Graph::of_images(vision.num_channels, vision.image_size, precision);
    let class = images.clip_image(&vision, &visual)?;
    // The one weight that is stored transposed.
    let of_image = images.product_by_rows(&class, vision.hidden_size, dim, (&weights, "visual.proj"))?;
    Ok(OnnxTowers {
        text: texts.finish(&of_text, dim),
        image: images.finish(&of_image, dim),
        projection_dim: dim,
        image_size: vision.image_size,
        context_length: model.text_cfg.context_length.min(encoder.max_tokens()),
    })
}
