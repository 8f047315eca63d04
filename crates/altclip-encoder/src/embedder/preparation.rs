//! Decides how a model's images are prepared, from its files.

use std::sync::Arc;

use image::DynamicImage;
use model_files::config::parse_config;
use model_files::in_folder;
use model_files::source::{FileData, ModelSource};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::dual_encoder::Family;
use crate::error::{Error, Result};
use crate::image_processor::{ImageProcessor, ImageProcessorConfig};
use crate::images::{Background, DecodeOptions};

/// Where transformers 5 keeps what is done to an image.
const PROCESSOR_FILE: &str = "processor_config.json";

/// `processor_config.json`, as far as it is about images.
#[derive(Deserialize)]
struct ProcessorFile {
    image_processor: Option<Map<String, Value>>,
}

/// How image files are read, and how images are prepared. A model for texts alone need not say it.
#[derive(Debug, Clone)]
pub(super) struct ImagePreparation {
    pub decode_options: DecodeOptions,
    processor: Processor,
}

#[derive(Debug, Clone)]
enum Processor {
    /// As the file says.
    Found { processor: Arc<ImageProcessor>, file: String },
    /// The model, and the files of which it has none.
    Missing { model: String, files: String },
    /// The model, and why its images would not fit its image tower.
    Unfit { model: String, problem: String },
}

impl ImagePreparation {
    /// Reads the image processor of a model, if there is one.
    ///
    /// # Errors
    /// If its file is damaged.
    pub(super) fn read(source: &ModelSource, family: Family) -> Result<Self> {
        let files = image_processor_files(family);
        let processor = match read_image_processor(source, &files)? {
            Some((processor, file)) => Processor::Found { processor: Arc::new(processor), file },
            None => Processor::Missing { model: source.to_string(), files: files.join(" or ") },
        };
        Ok(Self { decode_options: DecodeOptions::default(), processor })
    }

    /// The same for a model with images of `side` pixels. Images that would not fit are an error once they are asked for:
    /// texts need none.
    ///
    /// # Errors
    /// If an image cannot be prepared at all.
    pub(super) fn checked(self, side: usize, source: &ModelSource) -> Result<Self> {
        let Processor::Found { processor, file } = &self.processor else { return Ok(self) };
        let (prepared, expected) = (processor.preprocess(&DynamicImage::new_rgb8(1, 1))?, [3, side, side]);
        if prepared.dims() == expected {
            return Ok(self);
        }
        let problem = format!(
            "{file} makes images of shape {:?}, expected {expected:?} for the image tower",
            prepared.dims()
        );
        let processor = Processor::Unfit { model: source.to_string(), problem };
        Ok(Self { processor, ..self })
    }

    /// The same, laying transparent images on `background`.
    pub(super) fn with_background(mut self, background: Background) -> Self {
        if let Processor::Found { processor, .. } = &mut self.processor {
            *processor = Arc::new(ImageProcessor::clone(processor).with_background(background));
        }
        self
    }

    /// The image processor.
    ///
    /// # Errors
    /// [`MissingFile`](model_files::Error::MissingFile) if the model has none, as one for texts alone need not, and if it does not fit the model.
    pub(super) fn processor(&self) -> Result<&ImageProcessor> {
        match &self.processor {
            Processor::Found { processor, .. } => Ok(processor),
            Processor::Missing { model, files } => {
                Err(model_files::Error::MissingFile { model: model.clone(), file: files.clone() }.into())
            }
            Processor::Unfit { model, problem } => Err(Error::config(model, problem)),
        }
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
