//! Pictures to the normalised pixels that the image tower reads, as `preprocessor_config.json` asks.
//!
//! `CLIPImageProcessor` of transformers: resize the short side, crop the centre, rescale, normalise.

use candle_core::{Device, Result, Tensor, bail};
use image::imageops::{self, FilterType};
use image::{DynamicImage, RgbImage};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `preprocessor_config.json` of an image tower.
///
/// A field that the file leaves out has the value it has in transformers' `CLIPImageProcessor`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default)]
pub struct ImageProcessorConfig {
    /// Whether to resize.
    pub do_resize: bool,
    /// Size after resizing.
    pub size: ResizeTo,
    /// Interpolation filter, by its number in Pillow.
    pub resample: Resampling,
    /// Whether to crop the centre.
    pub do_center_crop: bool,
    /// Size after cropping.
    pub crop_size: CropTo,
    /// Whether to multiply the bytes by `rescale_factor`.
    pub do_rescale: bool,
    /// Factor on the bytes, usually 1/255.
    pub rescale_factor: f32,
    /// Whether to subtract the mean and divide by the standard deviation.
    pub do_normalize: bool,
    /// Mean of each channel, after rescaling.
    pub image_mean: [f32; 3],
    /// Standard deviation of each channel, after rescaling.
    pub image_std: [f32; 3],
}

/// Size after resizing, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ResizeTo {
    /// Length of the shorter side; the other keeps the proportions.
    ShortestEdge {
        /// Pixels.
        shortest_edge: u32,
    },
    /// Both sides, whatever the proportions.
    Exactly {
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
    },
    /// Length of the shorter side, as older files write it.
    Number(u32),
}

/// Size after cropping, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CropTo {
    /// Both sides.
    Exactly {
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
    },
    /// A square, as older files write it.
    Number(u32),
}

impl CropTo {
    /// (width, height)
    fn dimensions(self) -> (u32, u32) {
        match self {
            Self::Exactly { height, width } => (width, height),
            Self::Number(side) => (side, side),
        }
    }
}

/// Interpolation filter, by its number in Pillow (`PIL.Image.Resampling`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum Resampling {
    /// 0
    Nearest,
    /// 1
    Lanczos,
    /// 2
    Bilinear,
    /// 3
    Bicubic,
}

impl TryFrom<u8> for Resampling {
    type Error = String;

    fn try_from(number: u8) -> std::result::Result<Self, String> {
        match number {
            0 => Ok(Self::Nearest),
            1 => Ok(Self::Lanczos),
            2 => Ok(Self::Bilinear),
            3 => Ok(Self::Bicubic),
            _ => Err(format!("resample is {number}, expected 0 (nearest) to 3 (bicubic)")),
        }
    }
}

impl From<Resampling> for u8 {
    fn from(filter: Resampling) -> u8 {
        match filter {
            Resampling::Nearest => 0,
            Resampling::Lanczos => 1,
            Resampling::Bilinear => 2,
            Resampling::Bicubic => 3,
        }
    }
}

impl From<Resampling> for FilterType {
    fn from(filter: Resampling) -> FilterType {
        match filter {
            Resampling::Nearest => FilterType::Nearest,
            Resampling::Lanczos => FilterType::Lanczos3,
            Resampling::Bilinear => FilterType::Triangle,
            // The cubic with a = −1/2, which is also Pillow's.
            Resampling::Bicubic => FilterType::CatmullRom,
        }
    }
}

impl Default for ImageProcessorConfig {
    fn default() -> Self {
        Self {
            do_resize: true,
            size: ResizeTo::ShortestEdge { shortest_edge: 224 },
            resample: Resampling::Bicubic,
            do_center_crop: true,
            crop_size: CropTo::Exactly { height: 224, width: 224 },
            do_rescale: true,
            rescale_factor: 1. / 255.,
            do_normalize: true,
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_6, 0.275_777_1],
        }
    }
}

/// A configuration is checked where it is read, so that the error names the file.
impl<'de> Deserialize<'de> for ImageProcessorConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let config = Self::deserialize(deserializer)?;
        config.check().map_err(D::Error::custom)?;
        Ok(config)
    }
}

impl Serialize for ImageProcessorConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Self::serialize(self, serializer)
    }
}

impl ImageProcessorConfig {
    fn check(&self) -> std::result::Result<(), String> {
        let sides = match self.size {
            ResizeTo::ShortestEdge { shortest_edge } | ResizeTo::Number(shortest_edge) => [shortest_edge; 2],
            ResizeTo::Exactly { height, width } => [height, width],
        };
        let (crop_width, crop_height) = self.crop_size.dimensions();
        for (name, side) in
            [("size", sides[0]), ("size", sides[1]), ("crop_size", crop_width), ("crop_size", crop_height)]
        {
            if !(1..=MAX_SIDE).contains(&side) {
                return Err(format!("{name} is {side}, expected 1 to {MAX_SIDE} pixels"));
            }
        }
        if self.image_std.iter().any(|&std| !(std.is_finite() && std > 0.)) {
            return Err(format!("image_std is {:?}, expected positive numbers", self.image_std));
        }
        Ok(())
    }
}

/// Longest side that a picture is resized to: above all models, below what exhausts memory.
const MAX_SIDE: u32 = 8192;

/// Pictures to the image tower's input.
#[derive(Debug, Clone)]
pub struct ImageProcessor {
    config: ImageProcessorConfig,
}

impl ImageProcessor {
    /// # Errors
    /// Names the field of the configuration that cannot be.
    pub fn new(config: ImageProcessorConfig) -> Result<Self> {
        config.check().map_err(candle_core::Error::msg)?;
        Ok(Self { config })
    }

    /// One picture to (3, height, width), f32, on the CPU. An alpha channel is dropped.
    ///
    /// Resizing is antialiased and stays in floating point between its two passes, where Pillow rounds and clips
    /// to bytes: most bytes are Pillow's, a few differ by some levels beside hard edges.
    ///
    /// # Errors
    /// If the picture is empty, or so long and thin that resizing its short side exceeds what is reasonable.
    pub fn preprocess(&self, image: &DynamicImage) -> Result<Tensor> {
        let config = &self.config;
        let mut image = image.to_rgb8();
        if config.do_resize {
            let (width, height) = self.resized_dimensions(image.width(), image.height())?;
            if (width, height) != image.dimensions() {
                image = imageops::resize(&image, width, height, config.resample.into());
            }
        }
        if config.do_center_crop {
            let (width, height) = config.crop_size.dimensions();
            image = center_crop(&image, width, height);
        }
        let (width, height) = (image.width() as usize, image.height() as usize);
        let scale = if config.do_rescale { config.rescale_factor } else { 1. };
        let (mean, std) =
            if config.do_normalize { (config.image_mean, config.image_std) } else { ([0.; 3], [1.; 3]) };
        let mut values = Vec::with_capacity(3 * width * height);
        for (channel, (mean, std)) in mean.into_iter().zip(std).enumerate() {
            let bytes = image.as_raw().iter().skip(channel).step_by(3);
            values.extend(bytes.map(|&byte| (f32::from(byte) * scale - mean) / std));
        }
        Tensor::from_vec(values, (3, height, width), &Device::Cpu)
    }

    /// (width, height) after resizing; the longer side is rounded down (`get_resize_output_image_size` of
    /// transformers).
    fn resized_dimensions(&self, width: u32, height: u32) -> Result<(u32, u32)> {
        let short = match self.config.size {
            ResizeTo::Exactly { height, width } => return Ok((width, height)),
            ResizeTo::ShortestEdge { shortest_edge } | ResizeTo::Number(shortest_edge) => shortest_edge,
        };
        if width == 0 || height == 0 {
            bail!("the picture is empty ({width}×{height} pixels)")
        }
        let long = u64::from(short) * u64::from(width.max(height)) / u64::from(width.min(height));
        let Some(long) = u32::try_from(long).ok().filter(|&long| long <= 4 * MAX_SIDE) else {
            bail!("the picture is too long and thin to be resized ({width}×{height} pixels)")
        };
        Ok(if width <= height { (short, long) } else { (long, short) })
    }
}

/// Cuts the middle out; where the picture is smaller, black fills the rest (`center_crop` of transformers).
fn center_crop(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let mut cropped = RgbImage::new(width, height);
    // Half of an odd difference is rounded down when cutting, and up when filling.
    let offset = |have: u32, want: u32| {
        let (have, want) = (i64::from(have), i64::from(want));
        if have >= want { -((have - want) / 2) } else { (want - have + 1) / 2 }
    };
    let (x, y) = (offset(image.width(), width), offset(image.height(), height));
    imageops::replace(&mut cropped, image, x, y);
    cropped
}
