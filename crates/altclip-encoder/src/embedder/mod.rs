//! Texts and images to vectors, with everything that a model needs for it in one place.
//!
//! An [`Embedder`] joins a [`DualEncoder`], its tokenizer and its image processor. Lists go through
//! [`embed_texts`](Embedder::embed_texts) and [`embed_images`](Embedder::embed_images); what does not fit into memory
//! goes through [`text_stream`](Embedder::text_stream) and [`image_stream`](Embedder::image_stream).

mod ahead;
mod images;
mod texts;

use std::fmt;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use image::DynamicImage;
use model_files::config::parse_config;
use model_files::source::{FileData, ModelSource};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::altclip::normalize;
use crate::dual_encoder::{self, DualEncoder, Family};
use crate::error::{Error, Result};
use crate::image_processor::{ImageProcessor, ImageProcessorConfig};
use crate::images::{Background, DecodeOptions};
use crate::tokenizer::Tokenizer;

pub use self::images::{BATCH as IMAGE_BATCH, ImageSource, ImageStream};
pub use self::texts::TextStream;

/// What stands for the label in a template.
pub const LABEL_PLACE: &str = "{}";

/// Where transformers 5 keeps what is done to an image.
const PROCESSOR_FILE: &str = "processor_config.json";

/// `processor_config.json`, as far as it is about images.
#[derive(Deserialize)]
struct ProcessorFile {
    image_processor: Option<Map<String, Value>>,
}

/// A model with its tokenizer and its image processor.
pub struct Embedder {
    family: Family,
    model: Box<dyn DualEncoder>,
    tokenizer: Arc<Tokenizer>,
    images: Images,
    decode_options: DecodeOptions,
    max_tokens: usize,
}

/// How images are prepared. A model for texts alone need not say it.
#[derive(Debug, Clone)]
enum Images {
    Prepared(Arc<ImageProcessor>),
    /// The model, and the files of which it has none.
    Missing {
        model: String,
        files: String,
    },
    /// The model, and why its images would not fit its image tower.
    Unfit {
        model: String,
        problem: String,
    },
}

impl Images {
    fn processor(&self) -> Result<&ImageProcessor> {
        match self {
            Self::Prepared(processor) => Ok(processor),
            Self::Missing { model, files } => {
                Err(model_files::Error::MissingFile { model: model.clone(), file: files.clone() }.into())
            }
            Self::Unfit { model, problem } => Err(Error::config(model, problem)),
        }
    }
}

/// What a `tokenizer_config.json` says about lengths. It is a very large number where nothing is known.
#[derive(Default, Deserialize)]
struct TokenizerLimits {
    model_max_length: Option<f64>,
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
        let folder = family.tokenizer_folder();
        let tokenizer = Tokenizer::from_source(source, folder)?;
        let limits_file = in_folder(folder, "tokenizer_config.json");
        let limits = match source.read_optional(&limits_file)? {
            Some(file) => model_files::config::parse_json(&file)?,
            None => TokenizerLimits::default(),
        };
        let files = image_processor_files(family);
        let found = read_image_processor(source, &files)?;
        let model = dual_encoder::load(source, dtype, device)?;

        let images = match found {
            Some((processor, file)) => {
                let side = model.image_size();
                let prepared = processor.preprocess(&DynamicImage::new_rgb8(1, 1))?;
                if prepared.dims() == [3, side, side] {
                    Images::Prepared(Arc::new(processor))
                } else {
                    let problem = format!(
                        "{file} makes images of shape {:?}, expected {:?} for the image tower",
                        prepared.dims(),
                        [3, side, side]
                    );
                    Images::Unfit { model: source.to_string(), problem }
                }
            }
            None => Images::Missing { model: source.to_string(), files: files.join(" or ") },
        };
        let vocab_size = model.properties().vocab_size;
        let limit = limits.model_max_length.map_or(usize::MAX, |length| length as usize);
        Ok(Self {
            family,
            max_tokens: model.max_tokens().min(limit),
            model,
            tokenizer: Arc::new(tokenizer.with_embedding_rows(vocab_size)),
            images,
            decode_options: DecodeOptions::default(),
        })
    }

    /// The same with another background for transparent images than the model's configuration asks for.
    #[must_use]
    pub fn with_background(mut self, background: Background) -> Self {
        if let Images::Prepared(processor) = &mut self.images {
            *processor = Arc::new(ImageProcessor::clone(processor).with_background(background));
        }
        self
    }

    /// The same, reading the files of [`image_stream`](Self::image_stream) so.
    #[must_use]
    pub fn with_decode_options(mut self, options: DecodeOptions) -> Self {
        self.decode_options = options;
        self
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

    /// What transparent images are laid on.
    pub fn background(&self) -> Background {
        self.images.processor().map_or(Background::None, ImageProcessor::background)
    }

    /// The image processor.
    ///
    /// # Errors
    /// [`MissingFile`](model_files::Error::MissingFile) if the model has none, as one for texts alone need not.
    pub fn image_processor(&self) -> Result<&ImageProcessor> {
        self.images.processor()
    }

    /// Text embeddings in the order of the texts: (texts, projection_dim), f32 on the CPU, not normalised; (0, dim) for
    /// no texts.
    ///
    /// A text's vector does not depend on its neighbours. A text of more than [`max_tokens`](Self::max_tokens) is cut.
    ///
    /// # Errors
    /// If the tokenizer cannot encode a text, or the model fails.
    pub fn embed_texts<S: AsRef<str>>(&self, texts: &[S]) -> Result<Tensor> {
        let mut values = Vec::with_capacity(texts.len() * self.projection_dim());
        for window in texts.chunks(texts::WINDOW) {
            let window: Vec<&str> = window.iter().map(AsRef::as_ref).collect();
            for vector in self.embed_rows(texts::tokenize(&self.tokenizer, &window, self.max_tokens)) {
                values.extend(vector?);
            }
        }
        Ok(Tensor::from_vec(values, (texts.len(), self.projection_dim()), &Device::Cpu)?)
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

    /// Image embeddings in the order of the images: (images, projection_dim), f32 on the CPU, not normalised;
    /// (0, dim) for no images.
    ///
    /// # Errors
    /// If an image cannot be prepared, or the model has no image processor or fails.
    pub fn embed_images(&self, images: &[DynamicImage]) -> Result<Tensor> {
        let mut values = Vec::with_capacity(images.len() * self.projection_dim());
        for batch in images.chunks(images::BATCH) {
            for vector in self.embed_pixels(images::prepare(self.image_processor()?, batch)) {
                values.extend(vector?);
            }
        }
        Ok(Tensor::from_vec(values, (images.len(), self.projection_dim()), &Device::Cpu)?)
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

/// The files that an image processor may be read from.
fn image_processor_files(family: Family) -> Vec<String> {
    let in_folders = |name: &str| -> Vec<String> {
        family.preprocessor_folders().iter().map(|folder| in_folder(folder, name)).collect()
    };
    [in_folders("preprocessor_config.json"), in_folders(PROCESSOR_FILE)].concat()
}

/// The image processor in the first of these files that there is, and which that is.
fn read_image_processor(source: &ModelSource, files: &[String]) -> Result<Option<(ImageProcessor, String)>> {
    let Some(file) = source.first_of(files)? else { return Ok(None) };
    let config: ImageProcessorConfig = if file.rsplit('/').next() == Some(PROCESSOR_FILE) {
        // transformers 5 writes one file for the tokenizer's, the images' and the videos' processors.
        let whole: ProcessorFile = source.read_json(&file)?;
        let Some(fields) = whole.image_processor else { return Ok(None) };
        let part = serde_json::to_vec(&fields).unwrap_or_default();
        parse_config(&FileData::owned(format!("{}: image_processor", source.read(&file)?.name()), part))?
    } else {
        source.read_config(&file)?
    };
    Ok(Some((ImageProcessor::new(config)?, file)))
}

fn in_folder(folder: &str, file: &str) -> String {
    if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") }
}

/// The vectors of a batch of `count` as f32 on the CPU; where the model failed, everything in the batch has its error.
fn vectors(embeddings: Result<Tensor>, count: usize) -> Vec<Result<Vec<f32>>> {
    let rows = |embeddings: Tensor| Ok(embeddings.to_dtype(DType::F32)?.to_vec2()?);
    match embeddings.and_then(rows) {
        Ok(vectors) => vectors.into_iter().map(Ok).collect(),
        Err(error) => {
            let message = error.to_string();
            let copy = || Error::Candle(Box::new(candle_core::Error::Msg(message.clone())));
            std::iter::repeat_with(|| Err(copy())).take(count).collect()
        }
    }
}

/// Puts what was found for the good ones of `inputs` in their places, and leaves the errors of the others in theirs.
fn in_place<T>(inputs: Vec<Result<T>>, found: Vec<Result<Vec<f32>>>) -> Vec<Result<Vec<f32>>> {
    let mut found = found.into_iter();
    let results = inputs.into_iter().map(|input| match input {
        Ok(_) => found.next(),
        Err(error) => Some(Err(error)),
    });
    results.flatten().collect()
}
