//! Finds a model's image processor.

use std::sync::Arc;

use image::DynamicImage;
use model_files::config::parse_config;
use model_files::in_folder;
use model_files::source::{FileData, ModelSource};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::dual_encoder::{Family, OPEN_CLIP_CONFIG, OpenClipConfig};
use crate::error::{Error, Result};
use crate::image_processor::{ImageProcessor, ImageProcessorConfig};
use crate::images::{Background, DecodeOptions};

/// Where transformers 5 stores the image processor.
const PROCESSOR_FILE: &str = "processor_config.json";

/// The part of `processor_config.json` about images.
#[derive(Deserialize)]
struct ProcessorFile {
    image_processor: Option<Map<String, Value>>,
}

/// How image files are read and prepared. A text-only model need not have it.
#[derive(Debug, Clone)]
pub(crate) struct ImagePreparation {
    pub decode_options: DecodeOptions,
    processor: Processor,
}

#[derive(Debug, Clone)]
enum Processor {
    /// Read from this file.
    Found { processor: Arc<ImageProcessor>, file: String },
    /// The model, and the files it lacks.
    Missing { model: String, files: String },
    /// The model, and why images would not fit its image tower.
    Unfit { model: String, problem: String },
}

impl ImagePreparation {
    /// Reads a model's image processor, if there is one.
    ///
    /// # Errors
    /// If its file is damaged.
    pub(crate) fn read(source: &ModelSource, family: Family) -> Result<Self> {
        let files = image_processor_files(family);
        let processor = match read_image_processor(source, &files)? {
            Some((processor, file)) => Processor::Found { processor: Arc::new(processor), file },
            None => Processor::Missing { model: source.to_string(), files: files.join(" or ") },
        };
        Ok(Self { decode_options: DecodeOptions::default(), processor })
    }

    /// Checks it against a model for images of `side` pixels, or takes what its family always does. Images that would not
    /// fit are an error only once they are used: texts do not need them.
    ///
    /// # Errors
    /// If images cannot be prepared at all.
    pub(crate) fn checked(self, side: usize, family: Family, source: &ModelSource) -> Result<Self> {
        let own =
            family.image_processor(side).filter(|_| matches!(self.processor, Processor::Missing { .. }));
        if let Some(config) = own {
            let processor = Arc::new(ImageProcessor::new(config)?);
            return Ok(Self { processor: Processor::Found { processor, file: family.to_string() }, ..self });
        }
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

    /// Sets the background of transparent images.
    pub(super) fn with_background(mut self, background: Background) -> Self {
        if let Processor::Found { processor, .. } = &mut self.processor {
            *processor = Arc::new(ImageProcessor::clone(processor).with_background(background));
        }
        self
    }

    /// The image processor.
    ///
    /// # Errors
    /// [`MissingFile`](model_files::Error::MissingFile) if the model has none, which a text-only model does not need,
    /// or if it does not fit the model.
    pub(crate) fn processor(&self) -> Result<&ImageProcessor> {
        match &self.processor {
            Processor::Found { processor, .. } => Ok(processor),
            Processor::Missing { model, files } => {
                Err(model_files::Error::MissingFile { model: model.clone(), file: files.clone() }.into())
            }
            Processor::Unfit { model, problem } => Err(Error::config(model, problem)),
        }
    }
}

/// The files where an image processor may be found.
fn image_processor_files(family: Family) -> Vec<String> {
    let in_folders = |name: &str| -> Vec<String> {
        family.preprocessor_folders().iter().map(|folder| in_folder(folder, name)).collect()
    };
    [in_folders("preprocessor_config.json"), in_folders(PROCESSOR_FILE)].concat()
}

/// Reads the first of these files that exists.
fn read_image_processor(source: &ModelSource, files: &[String]) -> Result<Option<(ImageProcessor, String)>> {
    let Some(file) = source.first_of(files)? else {
        // OpenCLIP has it in the model's own configuration.
        let Some(file) = source.read_optional(OPEN_CLIP_CONFIG)? else { return Ok(None) };
        let config: OpenClipConfig = parse_config(&file)?;
        return Ok(Some((ImageProcessor::new(config.image_processor()?)?, OPEN_CLIP_CONFIG.to_owned())));
    };
    let config: ImageProcessorConfig = if file.rsplit('/').next() == Some(PROCESSOR_FILE) {
        // transformers 5 writes one file for tokenizer, image and video processors.
        let whole: ProcessorFile = source.read_json(&file)?;
        let Some(fields) = whole.image_processor else { return Ok(None) };
        let part = serde_json::to_vec(&fields).unwrap_or_default();
        parse_config(&FileData::owned(format!("{}: image_processor", source.read(&file)?.name()), part))?
    } else {
        source.read_config(&file)?
    };
    Ok(Some((ImageProcessor::new(config)?, file)))
}
