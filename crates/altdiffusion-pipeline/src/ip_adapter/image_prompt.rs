//! Conditions a run on images.

use std::fmt;
use std::sync::Arc;

use candle_core::Tensor;
use image::RgbImage;

use super::{ImageEncoder, IpAdapter};
use crate::denoiser::DenoiserSpec;
use crate::unet::ImageContext;
use crate::{Error, Result};

/// Images as a prompt, with the adapter of the UNet and the encoder that it was trained with.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use model_files::source::ModelSource;
/// use altdiffusion_pipeline::ip_adapter::{ImageEncoder, ImagePrompt, IpAdapter};
/// use altdiffusion_pipeline::{AltDiffusion, GenerateOptions};
/// use candle_core::{DType, Device};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (dtype, device) = (DType::F32, Device::Cpu);
/// let model = ModelSource::open("BAAI/AltDiffusion-m9")?;
/// let pipeline = AltDiffusion::from_source(&model, dtype, &device)?;
///
/// let source = ModelSource::open("h94/IP-Adapter")?;
/// let file = "models/ip-adapter_sd15.safetensors";
/// let adapter = Arc::new(IpAdapter::from_source(&source, file, &*pipeline.unet()?, dtype, &device)?);
/// let encoder = Arc::new(ImageEncoder::from_source(&source, "models/image_encoder", dtype, &device)?);
///
/// let image = image::open("statue.jpg")?.into_rgb8();
/// let prompt = ImagePrompt::new(adapter, encoder, [image]).scale(0.6);
/// let options = GenerateOptions::new("一座花园").image_prompt(prompt);
/// pipeline.generate(&options)?.images[0].save("garden.png")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
#[non_exhaustive]
pub struct ImagePrompt {
    /// The adapter that was made for the UNet.
    pub adapter: Arc<IpAdapter>,
    /// The encoder that the adapter was trained with.
    pub encoder: Arc<ImageEncoder>,
    /// The images, which form one prompt together.
    pub images: Vec<RgbImage>,
    /// The weight of the images relative to the text.
    pub scale: f64,
}

impl ImagePrompt {
    /// Prompts with one image or several, at scale 1.
    pub fn new(
        adapter: Arc<IpAdapter>,
        encoder: Arc<ImageEncoder>,
        images: impl IntoIterator<Item = RgbImage>,
    ) -> Self {
        Self { adapter, encoder, images: images.into_iter().collect(), scale: 1.0 }
    }

    /// Sets the weight of the images (diffusers' `set_ip_adapter_scale`); 1 by default, and 0 for none.
    pub fn scale(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }

    /// Checks the images and that the adapter fits this denoiser.
    pub(crate) fn check(&self, denoiser: &DenoiserSpec) -> Result<()> {
        if !self.scale.is_finite() {
            return Err(Error::option("image prompt scale", format!("{}, expected a number", self.scale)));
        }
        if let Some(empty) = self.images.iter().find(|image| image.is_empty()) {
            let problem = format!("{} × {} pixels, expected some", empty.width(), empty.height());
            return Err(Error::option("image prompt", problem));
        }
        if self.images.is_empty() {
            return Err(Error::option("image prompt", "no image, expected at least one"));
        }
        if let Some(unet) = &denoiser.unet
            && self.adapter.channels != unet.cross_attentions()?.in_order()
        {
            let problem = "its IP-Adapter was loaded for another UNet, expected one that was loaded for this";
            return Err(Error::option("image prompt", problem));
        }
        self.adapter.check_encoder(&self.encoder)
    }

    /// The keys and values for a batch of `images` or, with guidance, twice as many: the unconditional half first.
    pub(crate) fn project(&self, images: usize, guided: bool) -> Result<ImageContext> {
        let Self { adapter, encoder, scale, .. } = self;
        let tokens = adapter.tokens(&encoder.encode(&self.images, adapter.features())?)?;
        // All images are attended to at once, one after the other.
        let (count, _, width) = tokens.dims3()?;
        let tokens = tokens.reshape((1, (), width))?;
        let mut rows = Vec::new();
        if guided {
            let nothing = adapter.tokens(&encoder.encode_nothing(adapter.features())?)?;
            rows.push(nothing.repeat((images, count, 1))?);
        }
        rows.push(tokens.repeat((images, 1, 1))?);
        adapter.project(&Tensor::cat(&rows, 0)?, *scale)
    }
}

/// Leaves out weights and pixels, which are too long to read.
impl fmt::Debug for ImagePrompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImagePrompt({} images, scale {})", self.images.len(), self.scale)
    }
}
