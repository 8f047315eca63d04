//! Flags images that should not be shown, with the safety checker of the published repositories.

use altclip_encoder::dual_encoder::ClipConfig;
use altclip_encoder::image_processor::ImageProcessor;
use altclip_encoder::vision::{ClipVisionTower, VisionConfig};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use image::{DynamicImage, RgbImage};
use model_files::config::{ConfigFile, FieldTable, parse_config};
use serde::Deserialize;

use crate::Result;
use crate::model_parts::SafetyCheckerFiles;

/// How much closer to every concept an image counts after matching a special-care concept.
const SPECIAL_CARE: f64 = 0.01;

/// `safety_checker/config.json` (transformers' `CLIPConfig`).
#[derive(Debug, Deserialize)]
struct SafetyCheckerConfig {
    vision_config: VisionConfig,
    projection_dim: Option<usize>,
}

impl ConfigFile for SafetyCheckerConfig {
    const FIELDS: FieldTable = <ClipConfig as ConfigFile>::FIELDS;
}

/// CLIP's image tower, and the concepts its vectors are compared with: diffusers' `StableDiffusionSafetyChecker`.
#[derive(Debug, Clone)]
pub struct SafetyChecker {
    processor: ImageProcessor,
    vision: ClipVisionTower,
    concepts: Concepts,
    special_care: Concepts,
    device: Device,
}

/// Vectors in the joint space, and the threshold of each.
#[derive(Debug, Clone)]
struct Concepts {
    /// (concepts, projection_dim), of length 1.
    embeds: Tensor,
    thresholds: Vec<f32>,
}

impl SafetyChecker {
    /// Reads `vision_model.vision_model.*`, `visual_projection.weight`, and `concept_embeds` and `special_care_embeds` with
    /// their weights.
    ///
    /// # Errors
    /// If a file is damaged, or a weight is missing or has another shape.
    pub(crate) fn new(parts: &SafetyCheckerFiles, dtype: DType, device: &Device) -> Result<Self> {
        let config: SafetyCheckerConfig = parse_config(&parts.checker.config)?;
        let projection_dim = config.projection_dim.unwrap_or(config.vision_config.projection_dim);
        let vision = VisionConfig { projection_dim, ..config.vision_config };
        let tower = parts.checker.weights.part("", |name| {
            let inner = name.starts_with("vision_model.");
            Some(if inner { format!("vision_model.{name}") } else { name.to_owned() })
        });
        let lists = parts.checker.weights.var_builder(DType::F32, device)?;
        Ok(Self {
            processor: ImageProcessor::new(parse_config(&parts.feature_extractor)?)?,
            vision: ClipVisionTower::new(&vision, tower.var_builder(dtype, device)?)?,
            concepts: Concepts::new(projection_dim, "concept_embeds", &lists)?,
            special_care: Concepts::new(projection_dim, "special_care_embeds", &lists)?,
            device: device.clone(),
        })
    }

    /// Returns whether each image is flagged.
    ///
    /// # Errors
    /// If an image is empty, or the tower fails.
    pub fn check(&self, images: &[RgbImage]) -> Result<Vec<bool>> {
        images.iter().map(|image| self.check_one(image)).collect()
    }

    fn check_one(&self, image: &RgbImage) -> Result<bool> {
        let pixels = self.processor.preprocess(&DynamicImage::ImageRgb8(image.clone()))?;
        let embeds =
            self.vision.forward(&pixels.unsqueeze(0)?.to_device(&self.device)?)?.to_dtype(DType::F32)?;
        let embeds = unit(&embeds)?;
        let care = self.special_care.distances(&embeds)?;
        // The reference also adjusts special-care concepts once one matches; only whether any matches is used.
        let adjustment =
            if care.iter().any(|&distance| rounded(distance, 0.0) > 0.0) { SPECIAL_CARE } else { 0.0 };
        let concepts = self.concepts.distances(&embeds)?;
        Ok(concepts.iter().any(|&distance| rounded(distance, adjustment) > 0.0))
    }
}

impl Concepts {
    fn new(width: usize, name: &str, vb: &VarBuilder) -> Result<Self> {
        let thresholds = vb.get_unchecked(&format!("{name}_weights"))?.flatten_all()?.to_vec1::<f32>()?;
        let embeds = unit(&vb.get((thresholds.len(), width), name)?)?;
        Ok(Self { embeds, thresholds })
    }

    /// By how much an image's vector (1, projection_dim) exceeds the threshold of each concept.
    fn distances(&self, embeds: &Tensor) -> Result<Vec<f64>> {
        let cosines = embeds.matmul(&self.embeds.t()?)?.flatten_all()?.to_vec1::<f32>()?;
        Ok(cosines.iter().zip(&self.thresholds).map(|(cosine, limit)| f64::from(cosine - limit)).collect())
    }
}

/// Normalizes rows to length 1.
fn unit(rows: &Tensor) -> candle_core::Result<Tensor> {
    rows.broadcast_div(&rows.sqr()?.sum_keepdim(1)?.sqrt()?)
}

/// Rounds to three decimals, as the reference does.
fn rounded(distance: f64, adjustment: f64) -> f64 {
    ((distance + adjustment) * 1000.0).round_ties_even() / 1000.0
}
