//! Loads Taiyi-CLIP, a Chinese text tower for OpenAI's CLIP, as a [`DualEncoder`].
//!
//! Fengshenbang 1.0: Being the Foundation of Chinese Cognitive Intelligence, <https://arxiv.org/abs/2209.02970>. A
//! `BertForSequenceClassification` of transformers, whose logits are the embedding, trained with a frozen CLIP:
//! IDEA-CCNL/Taiyi-CLIP-Roberta-102M-Chinese with openai/clip-vit-base-patch32, and -large-326M- with
//! openai/clip-vit-large-patch14. They are published separately, so a model is a directory with both: the Taiyi
//! repository in `text_encoder/`, and the CLIP repository in `image_encoder/` or at the root.
//!
//! The published example does not pass the padding mask to the model, so a text's vector there depends on the lengths
//! of its neighbours. Here the mask is used, and a text's vector depends on the text only.

use candle_core::{DType, Device, Tensor};
use fused_ops::Linear;
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

use super::family::{IMAGE_ENCODER, TEXT_ENCODER};
use super::image_encoder::SeparateImageTower;
use super::{DualEncoder, Properties, TextPadding};
use crate::bert::{BertConfig, BertModel};
use crate::error::Result;
use crate::vision::ClipVisionTower;

/// Taiyi's text tower and CLIP's image tower.
#[derive(Debug, Clone)]
pub struct TaiyiClip {
    bert: BertModel,
    pooler: Linear,
    classifier: Linear,
    vision: ClipVisionTower,
    properties: Properties,
}

impl TaiyiClip {
    /// Reads the folder `text_encoder` of `source` (`bert.*`, `bert.pooler.dense.*` and `classifier.*`), and the image
    /// tower and `logit_scale` of the CLIP in `image_encoder` or at the root.
    ///
    /// # Errors
    /// If a file is missing, is damaged, or contradicts the configuration.
    pub fn load(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let text: BertConfig = source.read_config("text_encoder/config.json")?;
        let images = SeparateImageTower::load(source, &[IMAGE_ENCODER, ""], dtype, device)?;
        let vb = Checkpoint::open(source, TEXT_ENCODER)?.var_builder(dtype, device)?;
        let (hidden, dim) = (text.hidden_size, images.projection_dim);
        Ok(Self {
            bert: BertModel::new(&text, vb.pp("bert"))?,
            pooler: Linear::new(hidden, hidden, true, vb.pp("bert.pooler.dense"))?,
            classifier: Linear::new(hidden, dim, true, vb.pp("classifier"))?,
            vision: images.tower,
            properties: Properties {
                logit_scale: images.logit_scale,
                logit_bias: None,
                projection_dim: dim,
                image_size: images.image_size,
                max_tokens: text.max_position_embeddings,
                vocab_size: text.vocab_size,
                device: device.clone(),
                dtype,
                padding: TextPadding::Masked,
            },
        })
    }
}

impl DualEncoder for TaiyiClip {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn encode_text(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let class = self.bert.class_states(input_ids, attention_mask)?;
        Ok(self.classifier.forward(&self.pooler.forward(&class)?.tanh()?)?)
    }

    fn text_hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        Ok(self.bert.forward(input_ids, attention_mask)?)
    }

    fn encode_image(&self, pixel_values: &Tensor) -> Result<Tensor> {
        Ok(self.vision.forward(&pixel_values.to_device(&self.properties.device)?)?)
    }
}
