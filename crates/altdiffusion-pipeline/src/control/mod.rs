//! Follows images with ControlNets: edges, depth, poses.

mod prepared;

use std::fmt;
use std::sync::Arc;

use image::RgbImage;

use crate::controlnet::ControlNetModel;
use crate::{Error, Result};
pub(crate) use prepared::{PreparedControl, PreparedControls};

/// A ControlNet and the image it follows: edges, depth, a pose, or whatever it was trained with. The image must
/// already be of that kind.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use model_files::source::ModelSource;
/// use altdiffusion_pipeline::controlnet::ControlNetModel;
/// use altdiffusion_pipeline::{AltDiffusion, Control, GenerateOptions};
/// use candle_core::{DType, Device};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (dtype, device) = (DType::F32, Device::Cpu);
/// let model = ModelSource::open("BAAI/AltDiffusion-m9")?;
/// let pipeline = AltDiffusion::from_source(&model, dtype, &device)?;
/// let net = ModelSource::open("lllyasviel/control_v11p_sd15_canny")?;
/// let net = Arc::new(ControlNetModel::from_source(&net, dtype, &device)?);
///
/// let edges = image::open("edges.png")?.into_rgb8();
/// let options = GenerateOptions::new("一座红色的房子").control(Control::new(net, edges).scale(0.8).end(0.6));
/// pipeline.generate(&options)?.images[0].save("house.png")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
#[non_exhaustive]
pub struct Control {
    /// The ControlNet.
    pub net: Arc<ControlNetModel>,
    /// The image, in the size of the output.
    pub image: RgbImage,
    /// How closely the image is followed.
    pub scale: f64,
    /// Follow the image from this share of the steps on.
    pub start: f64,
    /// Follow the image up to this share of the steps.
    pub end: f64,
}

impl Control {
    /// Follows `image`, which has the output's size, at scale 1 and in all steps.
    pub fn new(net: Arc<ControlNetModel>, image: RgbImage) -> Self {
        Self { net, image, scale: 1.0, start: 0.0, end: 1.0 }
    }

    /// Sets how closely the image is followed (diffusers' `controlnet_conditioning_scale`); 1 by default, and 0 for
    /// not at all.
    pub fn scale(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }

    /// Sets the share of the steps from which on the image is followed (`control_guidance_start`); 0 by default.
    pub fn start(mut self, start: f64) -> Self {
        self.start = start;
        self
    }

    /// Sets the share of the steps up to which the image is followed (`control_guidance_end`); 1 by default.
    pub fn end(mut self, end: f64) -> Self {
        self.end = end;
        self
    }

    /// Width and height of the image, in pixels.
    pub(crate) fn size(&self) -> (usize, usize) {
        let (width, height) = self.image.dimensions();
        (width as usize, height as usize)
    }

    /// Checks that the numbers are in range.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { scale, start, end, .. } = *self;
        if !scale.is_finite() {
            return Err(Error::option("control scale", format!("{scale}, expected a number")));
        }
        let share = 0.0..=1.0;
        if !(share.contains(&start) && share.contains(&end) && start < end) {
            let problem =
                format!("from {start} to {end} of the steps, expected two growing numbers from 0 to 1");
            return Err(Error::option("control range", problem));
        }
        Ok(())
    }
}

/// Leaves out weights and pixels, which are too long to read.
impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, scale, start, end, .. } = self;
        let (width, height) = image.dimensions();
        write!(f, "Control({width}×{height} pixels, scale {scale}, from {start} to {end})")
    }
}
