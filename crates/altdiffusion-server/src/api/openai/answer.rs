//! Gives drawn images the form that a request asks for.

use altdiffusion_pipeline::image_metadata::ImageFileFormat;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use utoipa::ToSchema;

use super::draw_options::format;
use super::error::now;
use crate::drawing::Drawn;
use crate::problem::Problem;

/// Images in the order of their seeds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImageList {
    /// Seconds since 1970.
    created: u64,
    data: Vec<ImageItem>,
}

/// An image.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImageItem {
    #[serde(skip_serializing_if = "Option::is_none")]
    b64_json: Option<String>,
    /// A data URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    pub(super) seed: u64,
    pub(super) width: u32,
    pub(super) height: u32,
    /// How it was drawn, as the file says.
    pub(super) parameters: String,
    /// Whether the safety checker made it black.
    flagged: bool,
    seconds: f64,
}

/// How images are answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerForm {
    pub(super) as_uri: bool,
    pub(super) format: ImageFileFormat,
    /// The quality of a JPEG, from 1 to 100.
    pub(super) quality: Option<u8>,
    /// What the names of events begin with.
    pub(super) event_prefix: &'static str,
}

/// The fields of a request that say how images are answered.
pub(super) struct AnswerFields<'a> {
    pub(super) response_format: Option<&'a str>,
    pub(super) output_format: Option<&'a str>,
    pub(super) output_compression: Option<usize>,
    pub(super) background: Option<&'a str>,
}

impl AnswerForm {
    /// Reads the fields of a request.
    ///
    /// # Errors
    /// If one has another value than those known, or the format loses nothing and more compression is asked for.
    pub(super) fn read(fields: AnswerFields<'_>) -> Result<Self, Problem> {
        let as_uri = match fields.response_format {
            None | Some("b64_json") => false,
            Some("url") => true,
            Some(other) => {
                let problem = format!("{other:?}, expected b64_json or url");
                return Err(Problem::field("response_format", problem));
            }
        };
        let format = fields.output_format.map_or(Ok(ImageFileFormat::Png), format)?;
        let quality = fields.output_compression.map(|quality| quality_of(format, quality)).transpose()?;
        if let Some(other) = fields.background.filter(|name| !matches!(*name, "auto" | "opaque")) {
            let problem = format!("{other:?}, expected auto or opaque: no image here is transparent");
            return Err(Problem::field("background", problem));
        }
        Ok(Self { as_uri, format, quality, event_prefix: "image_generation" })
    }

    /// With the events of an edit.
    pub(super) fn of_edits(self) -> Self {
        Self { event_prefix: "image_edit", ..self }
    }

    /// The format's name in OpenAI's interface.
    pub(super) fn format_name(self) -> &'static str {
        match self.format {
            ImageFileFormat::Jpeg => "jpeg",
            ImageFileFormat::WebP => "webp",
            _ => "png",
        }
    }

    pub(super) fn item(self, drawn: &Drawn) -> ImageItem {
        let encoded = BASE64_STANDARD.encode(&drawn.file);
        let (b64_json, url) = match self.as_uri {
            true => (None, Some(format!("data:image/{};base64,{encoded}", self.format_name()))),
            false => (Some(encoded), None),
        };
        ImageItem {
            b64_json,
            url,
            seed: drawn.seed,
            width: drawn.width,
            height: drawn.height,
            parameters: drawn.parameters.clone(),
            flagged: drawn.flagged,
            seconds: drawn.seconds,
        }
    }

    pub(super) fn list(self, images: &[Drawn]) -> ImageList {
        ImageList { created: now(), data: images.iter().map(|drawn| self.item(drawn)).collect() }
    }
}

/// The quality of a JPEG, which OpenAI calls compression: 100 loses least.
fn quality_of(format: ImageFileFormat, quality: usize) -> Result<u8, Problem> {
    let least = if format == ImageFileFormat::Jpeg { 0 } else { 100 };
    match u8::try_from(quality) {
        Ok(quality) if (least..=100).contains(&quality) => Ok(quality.max(1)),
        _ => {
            let expected = match least {
                0 => "0 to 100",
                _ => "100: of the formats only jpeg loses anything",
            };
            Err(Problem::field("output_compression", format!("{quality}, expected {expected}")))
        }
    }
}
