//! Loads Wukong (`research/mm/wukong` of mindspore-ai/models) as a [`DualEncoder`].
//!
//! Wukong: A 100 Million Large-scale Chinese Cross-modal Pre-training Benchmark, <https://arxiv.org/abs/2202.06767>.
//! CLIP's towers with a Chinese vocabulary, in three forms: with one vector for each text and image, or with one for each
//! token (FILIP, <https://arxiv.org/abs/2111.07783>), those of images reduced to a few or not. The published pickle has
//! no configuration; its weights give the sizes and the form.

use candle_core::{DType, Device, Tensor};
use fused_ops::Linear;
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

use super::family::{WUKONG_ENDING, only_file};
use super::late_interaction::TokenWise;
use super::open_clip::{self, vision_name};
use super::token_reduction::TokenReduction;
use super::weight_sizes::WeightSizes;
use super::{DualEncoder, Properties, TextPadding};
use crate::activation::HiddenAct;
use crate::clip_text::{ClipTextConfig, ClipTextModel};
use crate::error::{Error, Result};
use crate::open_clip_names;
use crate::vision::{VisionConfig, VisionTransformer};

/// Channels per head in both towers.
const HEAD_WIDTH: usize = 64;
/// MindSpore's default.
const LAYER_NORM_EPS: f64 = 1e-7;
/// The factor of cosines if the file has none: the largest in CLIP's training.
const DEFAULT_LOGIT_SCALE: f32 = 100.;
const LOGIT_SCALE: &str = "loss.logit_scale";

/// CLIP's towers, and what follows them.
#[derive(Debug, Clone)]
pub struct Wukong {
    text: ClipTextModel,
    text_projection: Linear,
    vision: VisionTransformer,
    visual_projection: Linear,
    form: Form,
    properties: Properties,
}

/// What texts and images become.
#[derive(Debug, Clone)]
enum Form {
    /// One vector.
    Global,
    /// A vector for each token.
    Tokens,
    /// The same, but fewer for an image.
    ReducedTokens(TokenReduction),
}

impl Wukong {
    /// Reads the only `.pkl` at the root of `source`: `transformer.*`, `visual.*` and `loss.logit_scale`.
    ///
    /// # Errors
    /// If the file is missing, is damaged, or holds something else.
    pub fn load(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let Some(file) = only_file(source, WUKONG_ENDING)? else {
            return Err(source.missing(&format!("one file that ends in {WUKONG_ENDING}")).into());
        };
        let checkpoint = Checkpoint::open_file(source, &file)?.with_rows_split(open_clip_names::fused_parts);
        let sizes = WeightSizes::new(&checkpoint, "Wukong");
        let dim = sizes.of("transformer.text_projection", 1)?;
        let (text, vision) = (text_config(sizes)?, vision_config(sizes, dim)?);
        let part = |prefix: &str, name: fn(&str) -> Option<String>| {
            checkpoint.part(prefix, name).var_builder(dtype, device)
        };
        // These are stored transposed.
        let projection = |name: &str| -> Result<Linear> {
            let weight = checkpoint.tensor(name, dtype, device)?.t()?.contiguous()?;
            Ok(Linear::from_tensors(weight, None)?)
        };
        let form = if checkpoint.contains("visual.token_learner.feat_conv.weight") {
            let vb = checkpoint.var_builder(dtype, device)?.pp("visual.token_learner");
            Form::ReducedTokens(TokenReduction::new(sizes, dim, LAYER_NORM_EPS, vb)?)
        } else if dim == text.hidden_size {
            Form::Global
        } else {
            // All token-wise models have a space narrower than their text tower, and no other does.
            Form::Tokens
        };
        Ok(Self {
            text: ClipTextModel::new(&text, part("transformer.", text_name)?)?,
            text_projection: projection("transformer.text_projection")?,
            vision: VisionTransformer::new(&vision, part("visual.", vision_name)?)?,
            visual_projection: projection("visual.proj")?,
            form,
            properties: Properties {
                logit_scale: logit_scale(&checkpoint)?,
                logit_bias: None,
                projection_dim: dim,
                image_size: vision.image_size,
                max_tokens: text.max_position_embeddings,
                vocab_size: text.vocab_size,
                device: device.clone(),
                dtype,
                padding: TextPadding::Masked,
            },
        })
    }

    /// The error for vectors of a form that has none.
    fn token_wise_only(&self) -> Error {
        Error::Input(
            "this Wukong has a vector for each token and none for the whole; expected token-wise similarity, or a \
             Wukong of the CLIP form"
                .into(),
        )
    }
}

fn logit_scale(checkpoint: &Checkpoint) -> Result<f32> {
    if !checkpoint.contains(LOGIT_SCALE) {
        return Ok(DEFAULT_LOGIT_SCALE);
    }
    let scale = checkpoint.tensor(LOGIT_SCALE, DType::F32, &Device::Cpu)?.flatten_all()?;
    match scale.to_vec1::<f32>()?.as_slice() {
        [scale] => Ok(scale.exp()),
        values => Err(Error::format(
            checkpoint.file_name(),
            format!("{LOGIT_SCALE}: expected one number, found {}", values.len()),
        )),
    }
}

fn text_config(sizes: WeightSizes) -> Result<ClipTextConfig> {
    let hidden_size = sizes.of("transformer.token_embedding.weight", 1)?;
    let config = ClipTextConfig {
        vocab_size: sizes.of("transformer.token_embedding.weight", 0)?,
        hidden_size,
        intermediate_size: sizes.of("transformer.resblocks.0.mlp.c_fc.weight", 0)?,
        num_hidden_layers: sizes.layers("transformer.resblocks."),
        num_attention_heads: hidden_size / HEAD_WIDTH,
        max_position_embeddings: sizes.of("transformer.positional_embedding", 0)?,
        hidden_act: HiddenAct::QuickGelu,
        layer_norm_eps: LAYER_NORM_EPS,
        // The mask says where a text ends.
        ..ClipTextConfig::default()
    };
    config.check().map_err(|problem| sizes.problem(&problem))?;
    Ok(config)
}

fn vision_config(sizes: WeightSizes, dim: usize) -> Result<VisionConfig> {
    let (hidden_size, patch_size) =
        (sizes.of("visual.conv1.weight", 0)?, sizes.of("visual.conv1.weight", 2)?);
    let config = VisionConfig {
        hidden_size,
        intermediate_size: sizes.of("visual.transformer.resblocks.0.mlp.c_fc.weight", 0)?,
        projection_dim: dim,
        num_hidden_layers: sizes.layers("visual.transformer.resblocks."),
        num_attention_heads: hidden_size / HEAD_WIDTH,
        num_channels: sizes.of("visual.conv1.weight", 1)?,
        image_size: sizes.patches_per_side("visual.positional_embedding")?.saturating_mul(patch_size),
        patch_size,
        hidden_act: HiddenAct::QuickGelu,
        layer_norm_eps: LAYER_NORM_EPS,
    };
    config.check().map_err(|problem| sizes.problem(&problem))?;
    Ok(config)
}

/// The name in Wukong of a weight of the text tower.
fn text_name(name: &str) -> Option<String> {
    Some(format!("transformer.{}", open_clip::text_name(name)?))
}

impl DualEncoder for Wukong {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The projected state of each text's last token.
    fn encode_text(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        if !matches!(self.form, Form::Global) {
            return Err(self.token_wise_only());
        }
        let hidden = self.text.hidden_states(input_ids, attention_mask)?;
        let (texts, tokens, width) = hidden.dims3()?;
        let count = |row: &Vec<u32>| row.iter().filter(|&&seen| seen != 0).count() as u32;
        let counts = attention_mask.to_vec2::<u32>()?;
        let ends =
            counts.iter().zip(0u32..).map(|(row, text)| text * tokens as u32 + count(row).saturating_sub(1));
        let ends = Tensor::from_iter(ends, hidden.device())?;
        let ends = hidden.reshape((texts * tokens, width))?.index_select(&ends, 0)?;
        Ok(self.text_projection.forward(&ends)?)
    }

    fn text_hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        Ok(self.text.hidden_states(input_ids, attention_mask)?)
    }

    fn encode_image(&self, pixel_values: &Tensor) -> Result<Tensor> {
        if !matches!(self.form, Form::Global) {
            return Err(self.token_wise_only());
        }
        let class = self.vision.forward(&pixel_values.to_device(&self.properties.device)?)?;
        Ok(self.visual_projection.forward(&class)?)
    }

    fn token_wise(&self) -> Option<&dyn TokenWise> {
        (!matches!(self.form, Form::Global)).then_some(self)
    }
}

impl TokenWise for Wukong {
    fn encode_text_tokens(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        Ok(self.text_projection.forward(&self.text.hidden_states(input_ids, attention_mask)?)?)
    }

    /// Without the class token, which is never compared.
    fn encode_image_tokens(&self, pixel_values: &Tensor) -> Result<Tensor> {
        let pixels = pixel_values.to_device(&self.properties.device)?;
        let states = self.vision.normalised_hidden_states(&pixels)?;
        let patches = states.dim(1)?.saturating_sub(1);
        let patches = self.visual_projection.forward(&states.narrow(1, 1, patches)?.contiguous()?)?;
        Ok(match &self.form {
            Form::ReducedTokens(reduction) => reduction.forward(&patches)?,
            Form::Global | Form::Tokens => patches,
        })
    }
}
