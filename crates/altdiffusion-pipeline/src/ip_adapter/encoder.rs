//! Encodes image prompts with a CLIP image tower and its projection.

use altclip_encoder::image_processor::{CropTo, ImageProcessor, ImageProcessorConfig, ResizeTo};
use altclip_encoder::vision::{ClipVisionTower, VisionConfig};
use candle_core::{DType, Device, Tensor};
use image::{DynamicImage, RgbImage};
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

use super::ImageFeatures;
use crate::{Error, Result};

/// Encodes images for an [`IpAdapter`](super::IpAdapter) (transformers' `CLIPVisionModelWithProjection` after its
/// `CLIPImageProcessor`).
#[derive(Debug, Clone)]
pub struct ImageEncoder {
    tower: ClipVisionTower,
    processor: ImageProcessor,
    config: VisionConfig,
    device: Device,
}

impl ImageEncoder {
    /// Loads the encoder in the folder `folder` of a source ("" for its root): `config.json` and the weights. In
    /// h94/IP-Adapter it is `models/image_encoder`.
    ///
    /// # Errors
    /// If a file is missing or damaged, or contradicts the configuration.
    pub fn from_source(source: &ModelSource, folder: &str, dtype: DType, device: &Device) -> Result<Self> {
        let config_file =
            if folder.is_empty() { "config.json".to_owned() } else { format!("{folder}/config.json") };
        let config: VisionConfig = source.read_config(&config_file)?;
        let weights = Checkpoint::open(source, folder)?.var_builder(dtype, device)?;
        let side = u32::try_from(config.image_size).unwrap_or(u32::MAX);
        let processor = ImageProcessor::new(ImageProcessorConfig {
            size: ResizeTo::Number(side),
            crop_size: CropTo::Number(side),
            ..ImageProcessorConfig::default()
        })?;
        Ok(Self { tower: ClipVisionTower::new(&config, weights)?, processor, config, device: device.clone() })
    }

    /// The encoder's configuration.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// The width of its outputs.
    pub(super) fn width(&self, features: ImageFeatures) -> usize {
        match features {
            ImageFeatures::Embedding => self.config.projection_dim,
            ImageFeatures::HiddenStates => self.config.hidden_size,
        }
    }

    /// Encodes images to (images, width), or (images, rows, width).
    pub(super) fn encode(&self, images: &[RgbImage], features: ImageFeatures) -> Result<Tensor> {
        if images.is_empty() {
            return Err(Error::option("image prompt", "no image, expected at least one"));
        }
        let images: Vec<_> = images.iter().cloned().map(DynamicImage::ImageRgb8).collect();
        self.forward(&self.processor.preprocess_batch(&images)?, features)
    }

    /// The unconditional counterpart of an image for guidance: zeros in the joint space, or the hidden states of a
    /// grey image. Shaped like [`encode`](Self::encode) for one image.
    pub(super) fn encode_nothing(&self, features: ImageFeatures) -> Result<Tensor> {
        match features {
            ImageFeatures::Embedding => {
                Ok(Tensor::zeros((1, self.config.projection_dim), DType::F32, &self.device)?)
            }
            ImageFeatures::HiddenStates => {
                let (channels, side) = (self.config.num_channels, self.config.image_size);
                let pixels = Tensor::zeros((1, channels, side, side), DType::F32, &self.device)?;
                self.forward(&pixels, features)
            }
        }
    }

    fn forward(&self, pixels: &Tensor, features: ImageFeatures) -> Result<Tensor> {
        let pixels = pixels.to_device(&self.device)?;
        Ok(match features {
            ImageFeatures::Embedding => self.tower.forward(&pixels)?,
            ImageFeatures::HiddenStates => self.tower.vision_model().penultimate_hidden_states(&pixels)?,
        })
    }
}
