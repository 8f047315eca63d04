//! Builds the ONNX graphs of both towers, for the families whose towers are XLM-R, BERT, CLIP's or SigLIP's.

use model_files::checkpoint::Checkpoint;
use model_files::config::ConfigFile;
use model_files::in_folder;
use model_files::source::ModelSource;

use super::alt_diffusion::read_configs;
use super::family::{IMAGE_ENCODER, TEXT_ENCODER};
use super::image_encoder::{SeparateImageTower, check_dim};
use super::siglip::split;
use super::{ChineseClipConfig, ClipConfig, Family, MClipConfig, SiglipConfig, open_clip};
use crate::altclip::{AltClipConfig, AltClipTextConfig};
use crate::bert::BertConfig;
use crate::error::{Error, Result};
use crate::onnx::{Graph, Precision, Weights};
use crate::tokenizer::{PROMPT_TOKENS, Tokenizer};
use crate::vision::VisionConfig;

/// The towers of a model.
pub(crate) struct OnnxTowers {
    pub text: Graph,
    pub image: Graph,
    pub projection_dim: usize,
    pub image_size: usize,
    /// The length that texts are padded to: as in training, or as far as there are positions.
    pub context_length: usize,
}

/// Builds the graphs of the model of `source`.
///
/// # Errors
/// If the family has none here, a file is missing or damaged, or a weight is missing or has another shape.
pub(crate) fn onnx_towers(source: &ModelSource, family: Family, precision: Precision) -> Result<OnnxTowers> {
    match family {
        Family::AltClip => alt_clip(source, precision),
        Family::AltDiffusion => alt_diffusion(source, precision),
        Family::Clip | Family::SentenceClip => clip(source, family.tokenizer_folder(), precision),
        Family::ChineseClip => chinese_clip(source, precision),
        Family::OpenClip => open_clip::onnx_towers(source, precision),
        Family::Siglip => siglip(source, precision),
        Family::MClip => m_clip(source, precision),
        Family::TaiyiClip => taiyi_clip(source, precision),
        Family::DistilBertClip | Family::R2d2 | Family::Wukong => Err(Error::config(
            source.to_string(),
            format!(
                "{family} cannot be written as ONNX, expected AltCLIP, CLIP, Chinese-CLIP, Taiyi-CLIP, M-CLIP, OpenCLIP without \
                 NLLB, SigLIP, or AltDiffusion with image_encoder/"
            ),
        )),
    }
}

/// The configuration and the weights in a folder.
fn read<C: ConfigFile>(source: &ModelSource, folder: &str) -> Result<(C, Weights)> {
    let config = source.read_config(&in_folder(folder, "config.json"))?;
    Ok((config, Weights::new(Checkpoint::open(source, folder)?)))
}

fn alt_clip(source: &ModelSource, precision: Precision) -> Result<OnnxTowers> {
    let (config, weights): (AltClipConfig, _) = read(source, "")?;
    let projection_dim = config.projection_dim;
    let vision = VisionConfig { projection_dim, ..config.vision_config };
    let (own, projection) = (weights.at("text_model"), weights.at("text_projection"));
    Ok(OnnxTowers {
        text: alt_clip_text(&config.text_config, projection_dim, &own, &projection, precision)?,
        image: clip_image(&vision, &weights, precision)?,
        projection_dim,
        image_size: vision.image_size,
        context_length: PROMPT_TOKENS.min(config.text_config.encoder.max_tokens()),
    })
}

fn alt_diffusion(source: &ModelSource, precision: Precision) -> Result<OnnxTowers> {
    let (text, vision) = read_configs(source)?;
    let weights = Weights::new(Checkpoint::open(source, TEXT_ENCODER)?);
    let images = Weights::new(Checkpoint::open(source, IMAGE_ENCODER)?);
    let (projection_dim, max_tokens) = (vision.projection_dim, text.encoder.max_tokens());
    let config = AltClipTextConfig { encoder: text.encoder, project_dim: text.project_dim };
    let projection = weights.at("text_projection");
    Ok(OnnxTowers {
        text: alt_clip_text(&config, projection_dim, &weights, &projection, precision)?,
        image: clip_image(&vision, &images, precision)?,
        projection_dim,
        image_size: vision.image_size,
        context_length: PROMPT_TOKENS.min(max_tokens),
    })
}

fn alt_clip_text(
    config: &AltClipTextConfig,
    dim: usize,
    weights: &Weights,
    projection: &Weights,
    precision: Precision,
) -> Result<Graph> {
    let (encoder, width) = (&config.encoder, config.project_dim);
    let mut graph = Graph::of_texts(None, precision);
    let texts = graph.xlm_roberta(encoder, &weights.at("roberta"))?;
    let start = graph.row(&texts.states, 0);
    let start =
        graph.layer_norm(&start, encoder.hidden_size, encoder.layer_norm_eps, &weights.at("pre_LN"))?;
    let pooled = graph.linear(&start, encoder.hidden_size, width, &weights.at("transformation"))?;
    let embedding = graph.product(&pooled, width, dim, projection)?;
    Ok(graph.finish(&embedding, dim))
}

fn clip(source: &ModelSource, folder: &str, precision: Precision) -> Result<OnnxTowers> {
    let (config, weights): (ClipConfig, _) = read(source, folder)?;
    let (text, projection_dim) = (&config.text_config, config.projection_dim);
    let mut graph = Graph::of_texts(None, precision);
    let end = graph.clip_text(text, &weights.at("text_model"))?;
    let embedding = graph.product(&end, text.hidden_size, projection_dim, &weights.at("text_projection"))?;
    Ok(OnnxTowers {
        text: graph.finish(&embedding, projection_dim),
        image: clip_image(&config.vision_config, &weights, precision)?,
        projection_dim,
        image_size: config.vision_config.image_size,
        context_length: text.max_position_embeddings,
    })
}

fn chinese_clip(source: &ModelSource, precision: Precision) -> Result<OnnxTowers> {
    let (config, weights): (ChineseClipConfig, _) = read(source, "")?;
    let (text, projection_dim) = (&config.text_config, config.projection_dim);
    let mut graph = Graph::of_texts(None, precision);
    // The configuration does not tell.
    let pad_id = Tokenizer::from_source(source, "")?.pad_id();
    let texts = graph.bert(text, pad_id, &weights.at("text_model"))?;
    let class = graph.row(&texts.states, 0);
    let embedding =
        graph.product(&class, text.hidden_size, projection_dim, &weights.at("text_projection"))?;
    Ok(OnnxTowers {
        text: graph.finish(&embedding, projection_dim),
        image: clip_image(&config.vision_config, &weights, precision)?,
        projection_dim,
        image_size: config.vision_config.image_size,
        context_length: PROMPT_TOKENS.min(text.max_position_embeddings),
    })
}

fn m_clip(source: &ModelSource, precision: Precision) -> Result<OnnxTowers> {
    let config: MClipConfig = source.read_config("config.json")?;
    let checkpoint = Checkpoint::open(source, "")?;
    let (text, weights) = (config.text(&checkpoint)?, Weights::new(checkpoint));
    let (clip, images) = SeparateImageTower::open(source, &[IMAGE_ENCODER])?;
    let dim = config.projection_dim;
    check_dim(clip.projection_dim, dim, "config.json")?;
    let mut graph = Graph::of_texts(None, precision);
    let states = graph.xlm_roberta(&text, &weights.at("transformer"))?;
    let mean = graph.mean(&states);
    let linear = weights.at("LinearTransformation");
    let embedding = graph.linear(&mean, text.hidden_size, dim, &linear)?;
    Ok(OnnxTowers {
        text: graph.finish(&embedding, dim),
        image: clip_image(&clip.vision_config, &Weights::new(images), precision)?,
        projection_dim: dim,
        image_size: clip.vision_config.image_size,
        context_length: PROMPT_TOKENS.min(text.max_tokens()),
    })
}

fn taiyi_clip(source: &ModelSource, precision: Precision) -> Result<OnnxTowers> {
    let (text, weights): (BertConfig, _) = read(source, TEXT_ENCODER)?;
    let (clip, images) = SeparateImageTower::open(source, &[IMAGE_ENCODER, ""])?;
    let (hidden, dim) = (text.hidden_size, clip.projection_dim);
    let mut graph = Graph::of_texts(None, precision);
    let pad_id = Tokenizer::from_source(source, TEXT_ENCODER)?.pad_id();
    let texts = graph.bert(&text, pad_id, &weights.at("bert"))?;
    let class = graph.row(&texts.states, 0);
    let pooled = graph.linear(&class, hidden, hidden, &weights.at("bert.pooler.dense"))?;
    let pooled = graph.tanh(&pooled);
    let embedding = graph.linear(&pooled, hidden, dim, &weights.at("classifier"))?;
    Ok(OnnxTowers {
        text: graph.finish(&embedding, dim),
        image: clip_image(&clip.vision_config, &Weights::new(images), precision)?,
        projection_dim: dim,
        image_size: clip.vision_config.image_size,
        context_length: PROMPT_TOKENS.min(text.max_position_embeddings),
    })
}

fn siglip(source: &ModelSource, precision: Precision) -> Result<OnnxTowers> {
    let config = SiglipConfig::read(source)?;
    let (text, vision) = (&config.text_config, &config.vision_config);
    let (dim, tokens) = (vision.projection_dim, text.max_position_embeddings);
    let weights = Weights::new(split(&Checkpoint::open(source, "")?));
    let mut texts = Graph::of_texts(Some(tokens), precision);
    let of_text = texts.siglip_text(text, dim, &weights.at("text_model"))?;
    let mut images = Graph::of_images(vision.num_channels, vision.image_size, precision);
    let of_image = images.siglip_image(vision, &weights.at("vision_model"))?;
    Ok(OnnxTowers {
        text: texts.finish(&of_text, dim),
        image: images.finish(&of_image, dim),
        projection_dim: dim,
        image_size: vision.image_size,
        context_length: tokens,
    })
}

/// CLIP's image tower in transformers' layout.
fn clip_image(config: &VisionConfig, weights: &Weights, precision: Precision) -> Result<Graph> {
    let mut graph = Graph::of_images(config.num_channels, config.image_size, precision);
    let class = graph.clip_image(config, &weights.at("vision_model"))?;
    let (width, dim) = (config.hidden_size, config.projection_dim);
    let embedding = graph.product(&class, width, dim, &weights.at("visual_projection"))?;
    Ok(graph.finish(&embedding, dim))
}
