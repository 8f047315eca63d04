//! `preprocessor_config.json`: what is done to a picture.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest side that the configuration may ask for: above all models, below what exhausts memory.
const MAX_SIDE: u32 = 8192;

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
    pub rescale_factor: f64,
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
    pub(super) fn dimensions(self) -> (u32, u32) {
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
    /// 4
    Box,
    /// 5
    Hamming,
}

impl TryFrom<u8> for Resampling {
    type Error = String;

    fn try_from(number: u8) -> std::result::Result<Self, String> {
        match number {
            0 => Ok(Self::Nearest),
            1 => Ok(Self::Lanczos),
            2 => Ok(Self::Bilinear),
            3 => Ok(Self::Bicubic),
            4 => Ok(Self::Box),
            5 => Ok(Self::Hamming),
            _ => Err(format!("resample is {number}, expected 0 (nearest) to 5 (hamming)")),
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
            Resampling::Box => 4,
            Resampling::Hamming => 5,
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
    pub(super) fn check(&self) -> std::result::Result<(), String> {
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
