//! Defines what to draw, and what happens meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use altdiffusion_pipeline::GenerateOptions;
use altdiffusion_pipeline::image_metadata::ImageFileFormat;
use image::RgbImage;

use super::area::RedrawnArea;
use crate::image_data::ImageRoom;
use crate::problem::Problem;

/// A LoRA of the server's folder, and how strongly to apply it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NamedLora {
    pub(crate) name: String,
    pub(crate) strength: f64,
}

/// An image that a ControlNet of the server's folder follows.
#[derive(Debug)]
pub(crate) struct ControlImage {
    pub(crate) model: String,
    pub(crate) image: RgbImage,
    #[allow(dead_code, reason = "held until the image is drawn")]
    pub(crate) room: ImageRoom,
    pub(crate) scale: f64,
    pub(crate) start: f64,
    pub(crate) end: f64,
}

/// What to draw.
pub(crate) struct DrawRequest {
    /// For one image; the seed is that of the first.
    pub(crate) options: GenerateOptions,
    /// How many images, with consecutive seeds.
    pub(crate) images: usize,
    pub(crate) format: ImageFileFormat,
    /// The quality of a JPEG, from 1 to 100.
    pub(crate) quality: Option<u8>,
    pub(crate) loras: Vec<NamedLora>,
    pub(crate) controls: Vec<ControlImage>,
    /// The part of the initial image that is drawn at full size and put back.
    pub(crate) area: Option<RedrawnArea>,
    /// What its images hold of the room for images.
    pub(crate) rooms: Vec<ImageRoom>,
    /// How many previews of each image are promised, beside those for which there is time; `None` for none at all.
    pub(crate) previews: Option<usize>,
    /// Whether an interruption decodes the latents so far.
    pub(crate) keeps_interrupted: bool,
}

/// What happens while a request is drawn.
#[derive(Debug)]
pub(crate) enum DrawEvent {
    /// A step of an image was completed; a preview of it has one pixel per latent.
    Step { image: usize, step: usize, steps: usize, preview: Option<Vec<u8>> },
    /// An image is complete.
    Image(Drawn),
    /// The request failed, and ends.
    Failed(Problem),
}

/// A complete image.
#[derive(Debug, Clone)]
pub(crate) struct Drawn {
    /// Its index in the request.
    pub(crate) image: usize,
    /// The image file.
    pub(crate) file: Vec<u8>,
    pub(crate) seed: u64,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// How it was drawn, as the file says.
    pub(crate) parameters: String,
    /// Whether the safety checker made it black.
    pub(crate) flagged: bool,
    pub(crate) seconds: f64,
}

/// Asks a running request to end with what it has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interruption(Arc<AtomicBool>);

impl Interruption {
    pub(crate) fn interrupt(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
