//! Recognizes a text encoder's family from its configuration.

use std::sync::Arc;

use candle_nn::VarBuilder;
use model_files::config::{parse_config, parse_json};
use model_files::source::FileData;
use serde::Deserialize;

use super::{
    BertConditioner, BertConditionerConfig, ClipConditioner, ClipConditionerConfig, Conditioner,
    ConditionerSpec, TextEncoder, TextEncoderConfig,
};
use crate::error::{Error, Result};

/// What errors list.
const SUPPORTED: &str = "RobertaSeriesModelWithTransformation (AltDiffusion), CLIPTextModel (Stable Diffusion) or \
                         BertModel (Taiyi-Stable-Diffusion)";

/// `text_encoder/config.json` of a diffusion model of any supported family.
#[derive(Debug, Clone, PartialEq)]
pub enum ConditionerConfig {
    /// AltDiffusion: XLM-R and a projection.
    AltDiffusion(TextEncoderConfig),
    /// Stable Diffusion: CLIP's text tower.
    Clip(ClipConditionerConfig),
    /// Taiyi-Stable-Diffusion: BERT.
    Bert(BertConditionerConfig),
}

/// The fields that tell the family.
#[derive(Deserialize)]
struct FamilyFields {
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    model_type: Option<String>,
}

impl ConditionerConfig {
    /// Reads a configuration. The class in `architectures` decides, then `model_type`; a file with neither, as in
    /// single files written by this project, is AltDiffusion's.
    ///
    /// # Errors
    /// If the family is not supported, or a value is invalid.
    pub fn read(file: &FileData) -> Result<Self> {
        let FamilyFields { architectures, model_type } = parse_json(file)?;
        let class = architectures.as_deref().unwrap_or_default().first();
        Ok(match (class.map(String::as_str), model_type.as_deref()) {
            (Some("RobertaSeriesModelWithTransformation"), _) | (None, None) => {
                Self::AltDiffusion(parse_config(file)?)
            }
            (Some("CLIPTextModel" | "CLIPTextModelWithProjection"), _) | (None, Some("clip_text_model")) => {
                Self::Clip(parse_config(file)?)
            }
            (Some("BertModel"), _) | (None, Some("bert")) => Self::Bert(parse_config(file)?),
            (None, Some("xlm-roberta")) => Self::AltDiffusion(parse_config(file)?),
            (Some(found), _) => {
                let problem = format!("architectures: expected {SUPPORTED}, found {found}");
                return Err(Error::config(file.name(), problem));
            }
            (None, Some(found)) => {
                let problem = format!(
                    "model_type: expected xlm-roberta, clip_text_model or bert, found {found:?}, and no architectures"
                );
                return Err(Error::config(file.name(), problem));
            }
        })
    }

    /// The sizes.
    pub fn spec(&self) -> ConditionerSpec {
        match self {
            Self::AltDiffusion(config) => config.spec(),
            Self::Clip(config) => config.spec(),
            Self::Bert(config) => config.spec(),
        }
    }

    /// The field that gives the width of the hidden states, for errors.
    pub fn width_field(&self) -> &'static str {
        match self {
            Self::AltDiffusion(_) => "project_dim",
            Self::Clip(_) | Self::Bert(_) => "hidden_size",
        }
    }

    /// The text encoder, with weights from `vb` under the names of the family's `text_encoder` folder.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a weight is missing or has another shape.
    pub fn build(&self, vb: VarBuilder) -> candle_core::Result<Arc<dyn Conditioner>> {
        Ok(match self {
            Self::AltDiffusion(config) => Arc::new(TextEncoder::new(config, vb)?),
            Self::Clip(config) => Arc::new(ClipConditioner::new(config, vb)?),
            Self::Bert(config) => Arc::new(BertConditioner::new(config, vb)?),
        })
    }
}
