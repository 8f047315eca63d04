//! Loads R2D2 and PRD2 (yuxie11/R2D2) as a [`DualEncoder`].
//!
//! CCMB: A Large-scale Chinese Cross-modal Benchmark, <https://arxiv.org/abs/2205.03860>. A Chinese BERT and CLIP's ViT,
//! each with a projection of its first row. R2D2 also has a [`Ranker`]: a text's states attend to an image's and the
//! other way round, and both say whether they match. The published `.pth` has no configuration; its weights give
//! the sizes.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use fused_ops::Linear;
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

use super::family::{R2D2_ENDING, only_file};
use super::ranker::Ranker;
use super::weight_sizes::WeightSizes;
use super::{DualEncoder, Properties, TextPadding};
use crate::activation::HiddenAct;
use crate::bert::joint::{JointEncoder, States};
use crate::bert::{BertConfig, BertModel};
use crate::error::{Error, Result};
use crate::layer_shape::LayerShape;
use crate::padding::hidden_key_bias;
use crate::vision::{VisionConfig, VisionTransformer};

/// The longest text in training.
const MOST_TOKENS: usize = 64;
/// Channels per head in all parts.
const HEAD_WIDTH: usize = 64;
/// The key under which training saved the weights.
const KEY: &str = "model";

/// BERT and CLIP's ViT, and for R2D2 the layers that rank.
#[derive(Debug, Clone)]
pub struct R2d2 {
    text_encoder: BertModel,
    text_proj: Linear,
    visual_encoder: VisionTransformer,
    vision_proj: Linear,
    ranker: Option<JointLayers>,
    properties: Properties,
}

impl R2d2 {
    /// Reads the only `.pth` at the root of `source`: `text_encoder.*`, `text_proj.*`, `visual_encoder.*`,
    /// `vision_proj.*` and `temp` under `model`, and for R2D2 the layers that rank.
    ///
    /// # Errors
    /// If the file is missing, is damaged, or holds something else.
    pub fn load(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let Some(file) = only_file(source, R2D2_ENDING)? else {
            return Err(source.missing(&format!("one file that ends in {R2D2_ENDING}")).into());
        };
        let checkpoint = Checkpoint::open_file(source, &file)?;
        let sizes = WeightSizes::new(&checkpoint, "R2D2 or PRD2 under the key model");
        let (text, vision) = (text_config(sizes)?, vision_config(sizes)?);
        let root = checkpoint.var_builder(dtype, device)?.pp(KEY);
        let dim = vision.projection_dim;
        Ok(Self {
            text_encoder: BertModel::new(&text, root.pp("text_encoder"))?,
            text_proj: Linear::new(text.hidden_size, dim, true, root.pp("text_proj"))?,
            visual_encoder: VisionTransformer::new(&vision, root.pp("visual_encoder"))?,
            vision_proj: Linear::new(vision.hidden_size, dim, true, root.pp("vision_proj"))?,
            ranker: JointLayers::new(sizes, &text, vision.hidden_size, &root)?,
            properties: Properties {
                logit_scale: 1. / temperature(&checkpoint)?,
                logit_bias: None,
                projection_dim: dim,
                image_size: vision.image_size,
                max_tokens: MOST_TOKENS.min(text.max_position_embeddings),
                vocab_size: text.vocab_size,
                device: device.clone(),
                dtype,
                padding: TextPadding::Masked,
            },
        })
    }

    /// Whether it is R2D2, which ranks pairs, and not PRD2.
    pub fn ranks(&self) -> bool {
        self.ranker.is_some()
    }
}

/// What cosines are divided by, in f32.
fn temperature(checkpoint: &Checkpoint) -> Result<f32> {
    let temperature = checkpoint.var_builder(DType::F32, &Device::Cpu)?.pp(KEY).get((), "temp")?;
    match temperature.to_scalar::<f32>()? {
        positive if positive > 0. => Ok(positive),
        other => Err(Error::format(
            checkpoint.file_name(),
            format!("{KEY}.temp is {other}, expected a positive number"),
        )),
    }
}

fn text_config(sizes: WeightSizes) -> Result<BertConfig> {
    let size = |name: &str, dimension| sizes.of(&format!("{KEY}.text_encoder.{name}.weight"), dimension);
    let hidden_size = size("embeddings.word_embeddings", 1)?;
    let config = BertConfig {
        vocab_size: size("embeddings.word_embeddings", 0)?,
        hidden_size,
        num_hidden_layers: sizes.layers(&format!("{KEY}.text_encoder.encoder.layer.")),
        num_attention_heads: hidden_size / HEAD_WIDTH,
        intermediate_size: size("encoder.layer.0.intermediate.dense", 0)?,
        max_position_embeddings: size("embeddings.position_embeddings", 0)?,
        type_vocab_size: size("embeddings.token_type_embeddings", 0)?,
        ..BertConfig::default()
    };
    config.check().map_err(|problem| sizes.problem(&problem))?;
    Ok(config)
}

fn vision_config(sizes: WeightSizes) -> Result<VisionConfig> {
    let size = |name: &str, dimension| sizes.of(&format!("{KEY}.visual_encoder.{name}.weight"), dimension);
    let hidden_size = size("embeddings.patch_embedding", 0)?;
    let patch_size = size("embeddings.patch_embedding", 2)?;
    let positions = format!("{KEY}.visual_encoder.embeddings.position_embedding.weight");
    let config = VisionConfig {
        hidden_size,
        intermediate_size: size("encoder.layers.0.mlp.fc1", 0)?,
        projection_dim: sizes.of(&format!("{KEY}.vision_proj.weight"), 0)?,
        num_hidden_layers: sizes.layers(&format!("{KEY}.visual_encoder.encoder.layers.")),
        num_attention_heads: hidden_size / HEAD_WIDTH,
        num_channels: size("embeddings.patch_embedding", 1)?,
        image_size: sizes.patches_per_side(&positions)?.saturating_mul(patch_size),
        patch_size,
        hidden_act: HiddenAct::QuickGelu,
        layer_norm_eps: 1e-5,
    };
    config.check().map_err(|problem| sizes.problem(&problem))?;
    Ok(config)
}

/// The layers that rank, and their heads.
#[derive(Debug, Clone)]
struct JointLayers {
    text_joint_layer: JointEncoder,
    img_joint_layer: JointEncoder,
    img_joint_proj: Linear,
    itm_head: Linear,
    itm_head_i: Linear,
}

impl JointLayers {
    /// `None` for PRD2.
    fn new(
        sizes: WeightSizes,
        text: &BertConfig,
        image_width: usize,
        root: &VarBuilder,
    ) -> Result<Option<Self>> {
        let layers = |part: &str| sizes.layers(&format!("{KEY}.{part}.encoder.layer."));
        let (of_text, of_image) = (layers("text_joint_layer"), layers("img_joint_layer"));
        if (of_text, of_image) == (0, 0) {
            return Ok(None);
        }
        if of_text == 0 || of_image == 0 {
            return Err(sizes.problem(&format!(
                "found text_joint_layer with {of_text} layers and img_joint_layer with {of_image}; R2D2 has both, \
                 PRD2 neither"
            )));
        }
        let width = text.hidden_size;
        let shape = |part: &str| -> Result<LayerShape> {
            let inner = format!("{KEY}.{part}.encoder.layer.0.intermediate.dense.weight");
            Ok(LayerShape { intermediate_size: sizes.of(&inner, 0)?, ..text.layer_shape() })
        };
        let linear = |name: &str, input, output| Linear::new(input, output, true, root.pp(name));
        Ok(Some(Self {
            text_joint_layer: JointEncoder::new(
                &shape("text_joint_layer")?,
                image_width,
                of_text,
                root.pp("text_joint_layer"),
            )?,
            img_joint_layer: JointEncoder::new(
                &shape("img_joint_layer")?,
                width,
                of_image,
                root.pp("img_joint_layer"),
            )?,
            img_joint_proj: linear("img_joint_proj", image_width, width)?,
            itm_head: linear("itm_head", width, 2)?,
            itm_head_i: linear("itm_head_i", width, 2)?,
        }))
    }

    fn match_pairs(&self, texts: States, images: States) -> candle_core::Result<Tensor> {
        let by_text = self.itm_head.forward(&self.text_joint_layer.first_rows(texts, images)?)?;
        let projected = self.img_joint_proj.forward(images.rows)?;
        let of_image = self.img_joint_layer.first_rows(States { rows: &projected, bias: None }, texts)?;
        let by_image = self.itm_head_i.forward(&of_image)?;
        let matching = |logits: &Tensor| {
            candle_nn::ops::softmax(&logits.to_dtype(DType::F32)?, 1)?.narrow(1, 1, 1)?.squeeze(1)
        };
        (matching(&by_text)? + matching(&by_image)?)? / 2.
    }
}

impl DualEncoder for R2d2 {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn encode_text(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        Ok(self.text_proj.forward(&self.text_encoder.class_states(input_ids, attention_mask)?)?)
    }

    fn text_hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        Ok(self.text_encoder.forward(input_ids, attention_mask)?)
    }

    fn encode_image(&self, pixel_values: &Tensor) -> Result<Tensor> {
        let pixel_values = pixel_values.to_device(&self.properties.device)?;
        Ok(self.vision_proj.forward(&self.visual_encoder.class_states(&pixel_values)?)?)
    }

    fn ranker(&self) -> Option<&dyn Ranker> {
        self.ranker.is_some().then_some(self)
    }
}

impl Ranker for R2d2 {
    /// Before `post_layernorm`, which the model has and does not use.
    fn image_hidden_states(&self, pixel_values: &Tensor) -> Result<Tensor> {
        Ok(self.visual_encoder.hidden_states(&pixel_values.to_device(&self.properties.device)?)?)
    }

    fn match_pairs(&self, texts: &Tensor, attention_mask: &Tensor, images: &Tensor) -> Result<Tensor> {
        let Some(ranker) = &self.ranker else {
            return Err(Error::Input("this is PRD2, which compares vectors only; expected R2D2".into()));
        };
        if texts.dim(0)? != images.dim(0)? {
            let (texts, images) = (texts.dim(0)?, images.dim(0)?);
            return Err(Error::Input(format!("{texts} texts and {images} images, expected pairs")));
        }
        let bias = hidden_key_bias(attention_mask, attention_mask, &self.properties.device)?;
        let texts = States { rows: texts, bias: Some(&bias) };
        Ok(ranker.match_pairs(texts, States { rows: images, bias: None })?)
    }
}
