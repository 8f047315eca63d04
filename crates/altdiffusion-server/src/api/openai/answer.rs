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
    /// What the names of events begin with.
    pub(super) event_prefix: &'static str,
}

impl AnswerForm {
    /// Reads the fields of a request.
    ///
    /// # Errors
    /// If one has another value than those known.
    pub(super) fn read(response_format: Option<&str>, output_format: Option<&str>) -> Result<Self, Problem> {
        let as_uri = match response_format {
            None | Some("b64_json") => false,
            Some("url") => true,
            Some(other) => {
                let problem = format!("{other:?}, expected b64_json or url");
                return Err(Problem::field("response_format", problem));
            }
        };
        let format = output_format.map_or(Ok(ImageFileFormat::Png), format)?;
        Ok(Self { as_uri, format, event_prefix: "image_generation" })
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
