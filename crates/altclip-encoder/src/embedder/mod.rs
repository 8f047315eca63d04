//! Embeds texts and images: a model with everything that it needs for that in one place.
//!
//! An [`Embedder`] joins a [`DualEncoder`], its tokenizer and its image processor. Lists go through
//! [`embed_texts`](Embedder::embed_texts) and [`embed_images`](Embedder::embed_images), columns with nulls through
//! [`embed_into`](Embedder::embed_into). What does not fit into memory goes through
//! [`text_stream`](Embedder::text_stream), [`row_stream`](Embedder::row_stream) and
//! [`image_stream`](Embedder::image_stream).

mod ahead;
#[cfg(feature = "images")]
mod image_source;
#[cfg(feature = "images")]
mod images;
#[cfg(feature = "images")]
mod preparation;
mod row_stream;
mod texts;

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use model_files::source::ModelSource;

use crate::altclip::normalize;
use crate::dual_encoder::{self, DualEncoder, Family};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

#[cfg(feature = "images")]
pub use self::image_source::ImageSource;
#[cfg(feature = "images")]
pub use self::images::{BATCH as IMAGE_BATCH, ImageStream};
pub use self::row_stream::{RowStream, TextStream};
pub use self::texts::RowOutcome;

/// What stands for the label in a template.
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
    #[cfg(feature = "images")]
    preparation: preparation::ImagePreparation,
}

impl Embedder {
    /// Loads the model called `name`, a directory or a repository on the hub: see [`ModelSource::open`].
    ///
    /// # Errors
    /// As [`from_source`](Self::from_source), and if there can be no model of this name.
    pub fn from_pretrained(name: &str, dtype: DType, device: &Device) -> Result<Self> {
        Self::from_source(&ModelSource::open(name)?, dtype, device)
    }

    /// Loads the model of `source` with weights of `dtype` (f32, f16 or bf16).
    ///
    /// # Errors
    /// If it is of no family that is known here, and if a file is missing, is damaged, or contradicts another.
    pub fn from_source(source: &ModelSource, dtype: DType, device: &Device) -> Result<Self> {
        let family = Family::of(source)?;
        // The small files first, so that what is wrong with them is known before the weights are read.
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
            tokenizer: Arc::new(tokenizer.with_embedding_rows(model.properties().vocab_size)),
            #[cfg(feature = "images")]
            preparation: preparation.checked(model.image_size(), source)?,
            model: Arc::from(model),
        })
    }

    /// The model's family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Width of the vectors.
    pub fn projection_dim(&self) -> usize {
        self.model.projection_dim()
    }

    /// Tokens that texts are cut to: what the tokenizer's configuration says, or what the model has positions for.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The model.
    pub fn model(&self) -> &dyn DualEncoder {
        &*self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// A vector of length 1 for each of `labels`, (labels, projection_dim), f32 on the CPU: the mean over `templates`, texts
    /// with [`LABEL_PLACE`] where the label belongs, each text with the same weight (Radford et al., arXiv 2103.00020, section 3.1.4).
    ///
    /// # Errors
    /// If there is no template, or one has no place for the label; and as for [`embed_texts`](Self::embed_texts).
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

    /// Logits per image, cosine × logit scale: (images, texts), f32 on the CPU. Their softmax along the texts is
    /// each text's probability of going with the image.
    ///
    /// * `image_embeds` (images, projection_dim) and `text_embeds` (texts, projection_dim), normalised or not
    ///
    /// # Errors
    /// If the shapes are others.
    pub fn similarity(&self, image_embeds: &Tensor, text_embeds: &Tensor) -> Result<Tensor> {
        let ((images, _), (texts, _)) = (image_embeds.dims2()?, text_embeds.dims2()?);
        if images == 0 || texts == 0 {
            return Ok(Tensor::zeros((images, texts), DType::F32, &Device::Cpu)?);
        }
        let unit = |x: &Tensor| normalize(&x.to_device(&Device::Cpu)?);
        let cosines = unit(image_embeds)?.matmul(&unit(text_embeds)?.t()?)?;
        Ok((cosines * f64::from(self.model.logit_scale()))?)
    }
}

impl fmt::Debug for Embedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Embedder({}, {:?})", self.family, self.model.properties())
    }
}
