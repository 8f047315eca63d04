//! Builds the ONNX graphs of both towers, for CLIP's text tower or XLM-R and CLIP's image tower.

use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

use super::super::family::OPEN_CLIP_CONFIG;
use super::super::onnx::OnnxTowers;
use super::super::xlm_roberta_sizes::xlm_roberta_config;
use super::config::{ModelConfig, OpenClipConfig};
use super::text::{self, MEAN_POOLER};
use super::{clip_text, vision_name};
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
            "an OpenCLIP with {tower} cannot be written as ONNX, expected CLIP's text tower or XLM-R, and CLIP's image \
             tower"
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
    let (text, context_length) = match clip_text::prefix(&checkpoint) {
        Some(prefix) => clip_texts(model, prefix, &checkpoint, precision)?,
        None => xlm_roberta_texts(model, &checkpoint, precision)?,
    };

    let dim = model.embed_dim;
    let vision = config.vision();
    vision.check().map_err(|problem| Error::config(OPEN_CLIP_CONFIG, problem))?;
    let visual = Weights::new(checkpoint.part("visual.", vision_name));
    let mut images = Graph::of_images(vision.num_channels, vision.image_size, precision);
    let class = images.clip_image(&vision, &visual)?;
    // It is stored transposed.
    let of_image = images.product_by_rows(&class, vision.hidden_size, dim, (&weights, "visual.proj"))?;
    Ok(OnnxTowers {
        text,
        image: images.finish(&of_image, dim),
        projection_dim: dim,
        image_size: vision.image_size,
        context_length,
    })
}

/// CLIP's text tower, and the length that texts are padded to.
fn clip_texts(
    model: &ModelConfig,
    prefix: &'static str,
    checkpoint: &Checkpoint,
    precision: Precision,
) -> Result<(Graph, usize)> {
    let (config, dim) = (clip_text::config(model)?, model.embed_dim);
    let mut graph = Graph::of_texts(None, precision);
    let end = graph.clip_text(&config, &Weights::new(clip_text::weights(checkpoint, prefix)))?;
    let projection = format!("{prefix}text_projection");
    let weights = Weights::new(checkpoint.clone());
    let of_text = graph.product_by_rows(&end, config.hidden_size, dim, (&weights, &projection))?;
    Ok((graph.finish(&of_text, dim), config.max_position_embeddings))
}

/// XLM-R, the mean of whose states is projected, and the length that texts are padded to.
fn xlm_roberta_texts(
    model: &ModelConfig,
    checkpoint: &Checkpoint,
    precision: Precision,
) -> Result<(Graph, usize)> {
    model.text_cfg.check_pooler(MEAN_POOLER)?;
    let encoder = xlm_roberta_config(checkpoint, text::PREFIX, text::EXPECTED)?;
    let (hidden, dim) = (encoder.hidden_size, model.embed_dim);
    let weights = Weights::new(checkpoint.clone());
    let mut graph = Graph::of_texts(None, precision);
    let states = graph.xlm_roberta(&encoder, &weights.at("text.transformer"))?;
    let mean = graph.mean(&states);
    let projection = weights.at("text.proj");
    let of_text = if projection.contains("weight") {
        graph.product(&mean, hidden, dim, &projection)?
    } else {
        let middle = usize::midpoint(hidden, dim);
        let widened = graph.product(&mean, hidden, middle, &projection.at(0))?;
        let widened = graph.activation(&widened, HiddenAct::Gelu);
        graph.product(&widened, middle, dim, &projection.at(2))?
    };
    Ok((graph.finish(&of_text, dim), model.text_cfg.context_length.min(encoder.max_tokens())))
}
