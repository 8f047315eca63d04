//! Loads sentence-transformers' multilingual CLIP (clip-ViT-B-32-multilingual-v1), a DistilBERT that was taught the
//! text vectors of a CLIP, as a [`DualEncoder`].
//!
//! Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation,
//! <https://arxiv.org/abs/2004.09813>: the mean of a text's states, and a linear layer. The repository holds the text
//! tower only, as the modules that `modules.json` lists, so a model is a directory with the CLIP's repository in
//! `image_encoder/`.

use candle_core::{DType, Device, Tensor};
use fused_ops::Linear;
use model_files::checkpoint::Checkpoint;
use model_files::config::Accepted::{Is, Text};
use model_files::config::{ConfigFile, FieldTable};
use model_files::in_folder;
use model_files::source::ModelSource;
use serde::Deserialize;

use super::family::IMAGE_ENCODER;
use super::image_encoder::{SeparateImageTower, check_dim};
use super::sentence_modules::{MODULES, Module};
use super::{DualEncoder, Properties, TextPadding};
use crate::bert::{BertModel, DistilBertConfig, distilbert_name};
use crate::error::{Error, Result};
use crate::padding::mean_of_seen;
use crate::vision::ClipVisionTower;

const SENTENCE_CONFIG: &str = "sentence_bert_config.json";
/// The modules of the text tower, in order.
const EXPECTED: [&str; 3] = ["Transformer", "Pooling", "Dense"];

/// `sentence_bert_config.json`.
#[derive(Debug, Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
}

impl ConfigFile for SentenceConfig {
    const FIELDS: FieldTable = FieldTable {
        used: &["max_seq_length"],
        harmless: &[],
        fixed: &[("do_lower_case", &[Is(false)])],
        nested: &[],
    };
}

/// `config.json` of the module `Pooling`: only the mean is known.
#[derive(Debug, Deserialize)]
struct PoolingConfig {}

impl ConfigFile for PoolingConfig {
    const FIELDS: FieldTable = FieldTable {
        used: &[],
        harmless: &[("repeats the width of the states", &["word_embedding_dimension"])],
        fixed: &[
            ("include_prompt", &[Is(true)]),
            ("pooling_mode_cls_token", &[Is(false)]),
            ("pooling_mode_lasttoken", &[Is(false)]),
            ("pooling_mode_max_tokens", &[Is(false)]),
            ("pooling_mode_mean_sqrt_len_tokens", &[Is(false)]),
            ("pooling_mode_mean_tokens", &[Is(true)]),
            ("pooling_mode_weightedmean_tokens", &[Is(false)]),
        ],
        nested: &[],
    };
}

/// `config.json` of the module `Dense`.
#[derive(Debug, Deserialize)]
struct DenseConfig {
    in_features: usize,
    out_features: usize,
    #[serde(default = "with_bias")]
    bias: bool,
}

fn with_bias() -> bool {
    true
}

impl ConfigFile for DenseConfig {
    const FIELDS: FieldTable = FieldTable {
        used: &["bias", "in_features", "out_features"],
        harmless: &[],
        fixed: &[("activation_function", &[Text("torch.nn.modules.linear.Identity")])],
        nested: &[],
    };
}

/// DistilBERT with a linear layer on the mean of its states, and CLIP's image tower.
#[derive(Debug, Clone)]
pub struct DistilBertClip {
    bert: BertModel,
    dense: Linear,
    vision: ClipVisionTower,
    properties: Properties,
}

impl DistilBertClip {
    /// Reads the modules of `source` (DistilBERT, and `linear.*` of the last), and the image tower and `logit_scale` of
    /// the CLIP in `image_encoder`.
    ///
    /// # Errors
    /// If a file is missing, is damaged, or contradicts the configuration, or the modules are others.
    pub fn load(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let modules: Vec<Module> = source.read_json(MODULES)?;
        let classes: Vec<&str> = modules.iter().map(Module::class).collect();
        let [transformer, pooling, last] = modules.as_slice() else { return Err(unknown_modules(&classes)) };
        if classes != EXPECTED {
            return Err(unknown_modules(&classes));
        }
        let file = |module: &Module, name: &str| in_folder(&module.path, name);
        let text: DistilBertConfig = source.read_config(&file(transformer, "config.json"))?;
        let text = text.as_bert();
        let PoolingConfig {} = source.read_config(&file(pooling, "config.json"))?;
        let dense_file = file(last, "config.json");
        let dense: DenseConfig = source.read_config(&dense_file)?;
        if dense.in_features != text.hidden_size {
            let problem = format!("in_features is {}, expected {}", dense.in_features, text.hidden_size);
            return Err(Error::config(dense_file, problem));
        }
        let sentences = file(transformer, SENTENCE_CONFIG);
        let longest = match source.read_optional(&sentences)? {
            Some(_) => source.read_config::<SentenceConfig>(&sentences)?.max_seq_length,
            None => None,
        };
        let images = SeparateImageTower::load(source, &[IMAGE_ENCODER], dtype, device)?;
        check_dim(images.projection_dim, dense.out_features, &dense_file)?;

        let weights = Checkpoint::open(source, &transformer.path)?;
        let names =
            if weights.names().any(|name| name.starts_with("distilbert.")) { "distilbert." } else { "" };
        let weights = weights.part(names, move |name| Some(format!("{names}{}", distilbert_name(name)?)));
        let dense_weights = Checkpoint::open(source, &last.path)?.var_builder(dtype, device)?.pp("linear");
        Ok(Self {
            bert: BertModel::new(&text, weights.var_builder(dtype, device)?)?,
            dense: Linear::new(dense.in_features, dense.out_features, dense.bias, dense_weights)?,
            vision: images.tower,
            properties: Properties {
                logit_scale: images.logit_scale,
                logit_bias: None,
                projection_dim: dense.out_features,
                image_size: images.image_size,
                max_tokens: longest.unwrap_or(usize::MAX).min(text.max_position_embeddings),
                vocab_size: text.vocab_size,
                device: device.clone(),
                dtype,
                padding: TextPadding::Masked,
            },
        })
    }
}

fn unknown_modules(found: &[&str]) -> Error {
    let (expected, found) = (EXPECTED.join(", "), found.join(", "));
    Error::config(MODULES, format!("the modules are {found}, expected {expected}"))
}

impl DualEncoder for DistilBertClip {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn encode_text(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        let hidden = self.bert.forward(input_ids, attention_mask)?;
        Ok(self.dense.forward(&mean_of_seen(&hidden, attention_mask)?)?)
    }

    fn text_hidden_states(&self, input_ids: &Tensor, attention_mask: &Tensor) -> Result<Tensor> {
        Ok(self.bert.forward(input_ids, attention_mask)?)
    }

    fn encode_image(&self, pixel_values: &Tensor) -> Result<Tensor> {
        Ok(self.vision.forward(&pixel_values.to_device(&self.properties.device)?)?)
    }
}
