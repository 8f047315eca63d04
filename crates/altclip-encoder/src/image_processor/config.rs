//! Reads `preprocessor_config.json`.

use model_files::config::Accepted::{Is, Text};
use model_files::config::{ConfigFile, FieldTable};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::checked::checked;
use crate::images::Background;

/// The longest side a configuration may ask for: above all models, below what exhausts memory.
const MAX_SIDE: u32 = 8192;

/// `preprocessor_config.json` of an image tower.
///
/// Missing fields have the defaults of transformers' `CLIPImageProcessor`.
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
    /// The background of transparent images. Only this project's models have the field; the reference implementations
    /// have no background.
    pub background: Background,
}

/// Size after resizing, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ResizeTo {
    /// Length of the shorter side; the other keeps the aspect ratio.
    ShortestEdge {
        /// Pixels.
        shortest_edge: u32,
    },
    /// Both sides, regardless of the aspect ratio.
    Exactly {
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
    },
    /// Length of the shorter side, as older files write it.
    Number(u32),
    /// Height and width, as older files write them.
    Pair([u32; 2]),
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
#[serde(try_from = "ResamplingName", into = "u8")]
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

/// A filter as files write it: Pillow's number, or its name in Pillow or torchvision.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a filter's number, 0 (nearest) to 5 (hamming), or its name")]
enum ResamplingName {
    Number(u8),
    Name(String),
}

impl TryFrom<ResamplingName> for Resampling {
    type Error = String;

    fn try_from(name: ResamplingName) -> std::result::Result<Self, String> {
        const FILTERS: [(&str, Resampling); 6] = [
            ("nearest", Resampling::Nearest),
            ("lanczos", Resampling::Lanczos),
            ("bilinear", Resampling::Bilinear),
            ("bicubic", Resampling::Bicubic),
            ("box", Resampling::Box),
            ("hamming", Resampling::Hamming),
        ];
        let (found, filter) = match name {
            ResamplingName::Number(number) => (number.to_string(), FILTERS.get(usize::from(number))),
            ResamplingName::Name(name) => {
                // `PILImageResampling.BICUBIC` is how Python prints it.
                let lowercase = name.to_lowercase();
                let last = lowercase.rsplit('.').next().unwrap_or_default();
                let filter = FILTERS.iter().find(|(known, _)| *known == last);
                (format!("{name:?}"), filter)
            }
        };
        let expected = "expected 0 (nearest) to 5 (hamming), or a filter's name";
        filter.map(|(_, filter)| *filter).ok_or_else(|| format!("resample is {found}, {expected}"))
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
            background: Background::None,
        }
    }
}

impl ConfigFile for ImageProcessorConfig {
    const FIELDS: FieldTable = FieldTable {
        used: &[
            "background",
            "crop_size",
            "do_center_crop",
            "do_normalize",
            "do_rescale",
            "do_resize",
            "image_mean",
            "image_std",
            "resample",
            "rescale_factor",
            "size",
        ],
        harmless: &[
            ("every image has three channels here", &["do_convert_rgb"]),
            (
                "says how Python computes and what it returns",
                &[
                    "auto_map",
                    "data_format",
                    "device",
                    "disable_grouping",
                    "image_seq_length",
                    "input_data_format",
                    "processor_class",
                    "return_tensors",
                    "size_divisor",
                ],
            ),
        ],
        fixed: &[
            ("default_to_square", &[Is(false)]),
            ("do_pad", &[Is(false)]),
            ("feature_extractor_type", LIKE_CLIP),
            ("image_processor_type", CLASSES),
            ("pad_size", &[]),
            ("use_square_size", &[Is(false)]),
        ],
        nested: &[],
    };
}

/// Classes that do the same.
const LIKE_CLIP: &[model_files::config::Accepted] = &[
    Text("CLIPImageProcessor"),
    Text("CLIPImageProcessorFast"),
    Text("CLIPImageProcessorPil"),
    Text("CLIPFeatureExtractor"),
    Text("ChineseCLIPImageProcessor"),
    Text("ChineseCLIPImageProcessorFast"),
    Text("ChineseCLIPImageProcessorPil"),
    Text("ChineseCLIPFeatureExtractor"),
];

/// Of CLIP and of SigLIP, which has other defaults.
const CLASSES: &[model_files::config::Accepted] = &[
    Text("CLIPImageProcessor"),
    Text("CLIPImageProcessorFast"),
    Text("CLIPImageProcessorPil"),
    Text("CLIPFeatureExtractor"),
    Text("ChineseCLIPImageProcessor"),
    Text("ChineseCLIPImageProcessorFast"),
    Text("ChineseCLIPImageProcessorPil"),
    Text("ChineseCLIPFeatureExtractor"),
    Text("SiglipImageProcessor"),
    Text("SiglipImageProcessorFast"),
    Text("SiglipImageProcessorPil"),
];

fn is_siglip(class: &str) -> bool {
    class.starts_with("SiglipImageProcessor")
}

/// Adds the fields that are missing, with the defaults of transformers' `SiglipImageProcessor`, which does not crop.
fn add_siglip_defaults(fields: &mut Map<String, Value>) {
    let defaults = [
        ("size", json!({"height": 224, "width": 224})),
        ("do_center_crop", json!(false)),
        ("image_mean", json!([0.5, 0.5, 0.5])),
        ("image_std", json!([0.5, 0.5, 0.5])),
    ];
    for (name, value) in defaults {
        fields.entry(name).or_insert(value);
    }
}

impl<'de> Deserialize<'de> for ImageProcessorConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        // transformers treats null as "not given".
        let mut fields = Map::deserialize(deserializer)?;
        fields.retain(|_, value| !value.is_null());
        if fields.get("image_processor_type").and_then(Value::as_str).is_some_and(is_siglip) {
            add_siglip_defaults(&mut fields);
        }
        let mut path = serde_path_to_error::Track::new();
        let fields = serde_path_to_error::Deserializer::new(Value::Object(fields), &mut path);
        let config = Self::deserialize(fields);
        let config = config.map_err(|error| D::Error::custom(format!("{}: {error}", path.path())))?;
        checked(config, Self::check)
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
            ResizeTo::Exactly { height, width } | ResizeTo::Pair([height, width]) => [height, width],
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
