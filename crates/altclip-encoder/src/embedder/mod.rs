//! Embeds texts and images with a model, its tokenizer and its image processor.
//!
//! Embed lists with [`embed_texts`](Embedder::embed_texts) and [`embed_images`](Embedder::embed_images), and columns
//! with nulls with [`embed_into`](Embedder::embed_into). For data larger than memory, use
//! [`text_stream`](Embedder::text_stream), [`row_stream`](Embedder::row_stream) and
//! [`image_stream`](Embedder::image_stream).

mod ahead;
#[cfg(feature = "images")]
mod image_source;
#[cfg(feature = "images")]
mod images;
#[cfg(feature = "images")]
mod preparation;
#[cfg(feature = "images")]
mod ranking;
mod row_stream;
mod texts;
#[cfg(feature = "images")]
mod token_similarity;

use std::fmt;
use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};
use model_files::Arithmetic;
use model_files::source::ModelSource;

use crate::altclip::normalize;
use crate::dual_encoder::{self, DualEncoder, Family};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

#[cfg(feature = "images")]
pub use self::image_source::ImageSource;
#[cfg(feature = "images")]
pub use self::images::{BATCH as IMAGE_BATCH, ImageStream};
#[cfg(feature = "onnx")]
pub(crate) use self::preparation::ImagePreparation;
#[cfg(feature = "images")]
pub use self::ranking::PairRanker;
pub use self::row_stream::{RowStream, TextStream};
pub use self::texts::RowOutcome;
#[cfg(feature = "images")]
pub use self::token_similarity::{TokenComparer, TokenSimilarities};

/// The placeholder for the label in a template.
pub const LABEL_PLACE: &str = "{}";

/// A model with its tokenizer and its image processor.
///
/// Cheap to clone: clones share the weights.
#[derive(Clone)]
pub struct Embedder {
    family: Family,
    model: Arc<dyn DualEncoder>,
    tokenizer: Arc<Tokenizer>,
    max_tokens: usize,
    is_in_int8: bool,
    #[cfg(feature = "images")]
    preparation: preparation::ImagePreparation,
}

impl Embedder {
    /// Loads the model called `name`, a directory or a repository on the hub: see [`ModelSource::open`].
    ///
    /// # Errors
    /// Like [`from_source`](Self::from_source); also if `name` cannot be a model's.
    pub fn from_pretrained(name: &str, dtype: DType, device: &Device) -> Result<Self> {
        Self::from_source(&ModelSource::open(name)?, dtype, device)
    }

    /// Loads the model of `source` with weights of `dtype` (f32, f16 or bf16).
    ///
    /// # Errors
    /// If the family is not supported, or a file is missing, damaged, or contradicts another.
    pub fn from_source(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let family = Family::of(source)?;
        // Small files first, so that errors in them come before the weights are read.
        let tokenizer = Tokenizer::from_source(source, family.tokenizer_folder())?;
        #[cfg(feature = "images")]
        let preparation = preparation::ImagePreparation::read(source, family)?;
        let model = dual_encoder::load(source, dtype, device)?;
        if model.projection_dim() == 0 {
            return Err(Error::config(source.to_string(), "projection_dim is 0, expected at least 1"));
        }
        Ok(Self {
            family,
            max_tokens: tokenizer.max_length(model.max_tokens()),
            is_in_int8: source.is_in_int8(),
            tokenizer: Arc::new(tokenizer.with_embedding_rows(model.properties().vocab_size)),
            #[cfg(feature = "images")]
            preparation: preparation.checked(model.image_size(), family, source)?,
            model: Arc::from(model),
        })
    }

    /// Sets the language of texts, for NLLB-CLIP: see [`Tokenizer::with_language`].
    ///
    /// # Errors
    /// [`Error::Input`] if the tokenizer has no such language.
    pub fn with_language(self, language: &str) -> Result<Self> {
        let tokenizer = Tokenizer::clone(&self.tokenizer).with_language(language)?;
        Ok(Self { tokenizer: Arc::new(tokenizer), ..self })
    }

    /// The model's family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Width of the vectors.
    pub fn projection_dim(&self) -> usize {
        self.model.projection_dim()
    }

    /// The length that texts are truncated to: the tokenizer's configured one, or the model's number of positions.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The model.
    pub fn model(&self) -> &dyn DualEncoder {
        &*self.model
    }

    /// What the model computes in, by its name, such as `bf16` or `int8`.
    pub fn arithmetic_name(&self) -> &'static str {
        match self.is_in_int8 {
            true => Arithmetic::Int8.name(),
            false => self.model.dtype().as_str(),
        }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// A unit vector per label, (labels, projection_dim), f32 on the CPU: the mean over `templates`, which are texts
    /// with [`LABEL_PLACE`] for the label, all weighted equally (Radford et al., arXiv 2103.00020, section 3.1.4).
    ///
    /// # Errors
    /// If there is no template, or one has no placeholder; also like [`embed_texts`](Self::embed_texts).
    pub fn embed_labels<S: AsRef<str>>(&self, labels: &[S], templates: &[S]) -> Result<Tensor> {
        let unfit = templates.iter().map(AsRef::as_ref).find(|template| !template.contains(LABEL_PLACE));
        if templates.is_empty() || unfit.is_some() {
            let found = unfit.map_or("none".to_owned(), |template| format!("{template:?}"));
            return Err(Error::Input(format!(
                "expected templates with {LABEL_PLACE} where the label belongs, found {found}"
            )));
        }
        let mut texts = Vec::with_capacity(labels.len() * templates.len());
        for label in labels {
            texts.extend(
                templates.iter().map(|template| template.as_ref().replace(LABEL_PLACE, label.as_ref())),
            );
        }
        let vectors = normalize(&self.embed_texts(&texts)?)?;
        let vectors = vectors.reshape((labels.len(), templates.len(), self.projection_dim()))?;
        Ok(normalize(&vectors.mean(1)?)?)
    }

    /// Logits per image, cosine × logit scale, and for SigLIP + logit bias: (images, texts), f32 on the CPU. See
    /// [`probabilities`](Self::probabilities).
    ///
    /// * `image_embeds` (images, projection_dim) and `text_embeds` (texts, projection_dim), normalised or not
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn similarity(&self, image_embeds: &Tensor, text_embeds: &Tensor) -> Result<Tensor> {
        let ((images, _), (texts, _)) = (image_embeds.dims2()?, text_embeds.dims2()?);
        if images == 0 || texts == 0 {
            return Ok(Tensor::zeros((images, texts), DType::F32, &Device::Cpu)?);
        }
        let unit = |x: &Tensor| normalize(&x.to_device(&Device::Cpu)?);
        let cosines = unit(image_embeds)?.matmul(&unit(text_embeds)?.t()?)?;
        let bias = self.model.properties().logit_bias.unwrap_or(0.);
        Ok(cosines.affine(self.model.logit_scale().into(), bias.into())?)
    }

    /// Probabilities from [logits](Self::similarity), (images, texts). A text's is that it, of all texts, matches the
    /// image (softmax over the texts), or for SigLIP that it matches at all, independently of the others (sigmoid).
    ///
    /// # Errors
    /// If there are no dimensions.
    pub fn probabilities(&self, logits: &Tensor) -> Result<Tensor> {
        Ok(match self.model.properties().logit_bias {
            None => candle_nn::ops::softmax(logits, D::Minus1)?,
            Some(_) => candle_nn::ops::sigmoid(logits)?,
        })
    }
}

impl fmt::Debug for Embedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedder({}, {:?})", self.family, self.model.properties())
    }
}
