//! Recognizes families of dual encoders by their files.

use std::fmt;

use model_files::config::parse_json;
use model_files::source::ModelSource;
use serde::Deserialize;

use super::sentence_modules::{MODULES, Module};
use crate::error::{Error, Result};
#[cfg(feature = "images")]
use crate::image_processor::{CropTo, ImageProcessorConfig, ResizeTo};

/// A family of dual encoders, with the same layout and computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// BAAI/AltCLIP, -m9 and -m18, in transformers' layout and in FlagAI's.
    AltClip,
    /// OpenAI's CLIP, and others in the same layout.
    Clip,
    /// OFA-Sys/chinese-clip-*.
    ChineseClip,
    /// IDEA-CCNL/Taiyi-CLIP-*, with the CLIP it was trained for.
    TaiyiClip,
    /// OpenCLIP's models with CLIP's text tower, XLM-R or NLLB, in OpenCLIP's own layout.
    OpenClip,
    /// SigLIP and SigLIP 2, of a fixed resolution.
    Siglip,
    /// M-CLIP with XLM-R, with the CLIP that it was taught by.
    MClip,
    /// sentence-transformers' multilingual CLIP, a DistilBERT, with the CLIP that it was taught by.
    DistilBertClip,
    /// OpenAI's CLIP in sentence-transformers' layout.
    SentenceClip,
    /// R2D2 and PRD2, as their authors publish them.
    R2d2,
    /// Wukong in any of its forms, as its authors publish it.
    Wukong,
    /// An AltDiffusion with an image encoder, such as this project's own model.
    AltDiffusion,
}

/// The fields of a `config.json` that [`Family::of`] looks at.
#[derive(Debug, Default, Deserialize)]
struct DeclaredType {
    #[serde(default)]
    model_type: String,
    text_config: Option<DeclaredTextType>,
}

#[derive(Debug, Deserialize)]
struct DeclaredTextType {
    #[serde(default)]
    model_type: String,
}

/// The folder of a separate text tower.
pub(super) const TEXT_ENCODER: &str = "text_encoder";
/// The folder of a separate image tower.
pub(super) const IMAGE_ENCODER: &str = "image_encoder";

const SUPPORTED: &str = "AltCLIP (altclip), CLIP (clip), Chinese-CLIP (chinese_clip), Taiyi-CLIP (a BERT in text_encoder/ and a CLIP at the root \
     or in image_encoder/), OpenCLIP (open_clip_config.json), SigLIP (siglip), M-CLIP and sentence-transformers' \
     multilingual CLIP (each with its CLIP in image_encoder/), R2D2 and PRD2 (a .pth with vocab.txt beside it), Wukong (a .pkl with vocab_zh.txt beside it), and AltDiffusion with text_encoder/ and \
     image_encoder/";
/// The ending of the name of R2D2's weights.
pub(super) const R2D2_ENDING: &str = ".pth";
/// The ending of the name of Wukong's weights.
pub(super) const WUKONG_ENDING: &str = ".pkl";
/// The folder of a CLIP in sentence-transformers' layout.
const SENTENCE_CLIP: &str = "0_CLIPModel";
/// The configuration of OpenCLIP's models.
pub(crate) const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";

impl Family {
    /// The family of a model, from its `config.json` or, without one, its folders.
    ///
    /// # Errors
    /// If the family is not supported; the error lists those that are.
    pub fn of(source: &ModelSource) -> Result<Self> {
        let read = |path: &str| -> Result<Option<DeclaredType>> {
            Ok(source.read_optional(path)?.map(|file| parse_json(&file)).transpose()?)
        };
        let Some(root) = read("config.json")? else {
            if source.read_optional(OPEN_CLIP_CONFIG)?.is_some() {
                return Ok(Self::OpenClip);
            }
            if source.read_optional(MODULES)?.is_some() {
                let modules: Vec<Module> = source.read_json(MODULES)?;
                return match modules.as_slice() {
                    [only] if only.class() == "CLIPModel" && only.path == SENTENCE_CLIP => {
                        Ok(Self::SentenceClip)
                    }
                    _ => Err(Error::config(
                        source.to_string(),
                        format!(
                            "{MODULES}: expected one CLIPModel in {SENTENCE_CLIP}, or a config.json beside it"
                        ),
                    )),
                };
            }
            return match read("text_encoder/config.json")? {
                None => of_weights(source)?.ok_or_else(|| {
                    Error::config(
                        source.to_string(),
                        format!(
                            "no config.json and no text_encoder/config.json, expected one of {SUPPORTED}"
                        ),
                    )
                }),
                Some(text) if text.model_type == "bert" => Ok(Self::TaiyiClip),
                Some(text) if text.model_type.contains("roberta") => Ok(Self::AltDiffusion),
                Some(text) => Err(unknown(source, "text_encoder/config.json", &text.model_type)),
            };
        };
        match root.model_type.as_str() {
            "altclip" => Ok(Self::AltClip),
            "chinese_clip" => Ok(Self::ChineseClip),
            "siglip" => Ok(Self::Siglip),
            "siglip2" => Err(Error::config(
                source.to_string(),
                "config.json: model_type is siglip2, which is SigLIP 2 for images of any shape (NaFlex); expected one of a \
                 fixed resolution, whose model_type is siglip",
            )),
            "M-CLIP" => Ok(Self::MClip),
            "distilbert" if source.read_optional(MODULES)?.is_some() => Ok(Self::DistilBertClip),
            "clip" => {
                // FlagAI derived its class from CLIP's, and it still calls itself that.
                if root.text_config.is_some_and(|text| text.model_type == "xlm-roberta") {
                    return Ok(Self::AltClip);
                }
                let text = read("text_encoder/config.json")?.unwrap_or_default();
                Ok(if text.model_type == "bert" { Self::TaiyiClip } else { Self::Clip })
            }
            // R2D2's tokenizer has a configuration of a BERT beside it.
            "bert" if only_file(source, R2D2_ENDING)?.is_some() => Ok(Self::R2d2),
            "bert" => Err(Error::config(
                source.to_string(),
                "config.json: model_type is bert, which is a text tower alone, as Taiyi-CLIP's is; expected it in \
                 text_encoder/, with the CLIP that it belongs to in image_encoder/",
            )),
            other => Err(unknown(source, "config.json", other)),
        }
    }

    /// The folder of the model's tokenizer, "" for its root.
    pub fn tokenizer_folder(self) -> &'static str {
        match self {
            Self::AltClip
            | Self::Clip
            | Self::ChineseClip
            | Self::OpenClip
            | Self::Siglip
            | Self::MClip
            | Self::DistilBertClip
            | Self::R2d2
            | Self::Wukong => "",
            Self::SentenceClip => SENTENCE_CLIP,
            Self::TaiyiClip => TEXT_ENCODER,
            Self::AltDiffusion => "tokenizer",
        }
    }

    /// The folders where the model's `preprocessor_config.json` may be, "" for its root.
    pub fn preprocessor_folders(self) -> &'static [&'static str] {
        match self {
            Self::AltClip
            | Self::Clip
            | Self::ChineseClip
            | Self::OpenClip
            | Self::Siglip
            | Self::R2d2
            | Self::Wukong => &[""],
            Self::MClip | Self::DistilBertClip => &[IMAGE_ENCODER],
            Self::SentenceClip => &[SENTENCE_CLIP],
            Self::TaiyiClip => &[IMAGE_ENCODER, ""],
            Self::AltDiffusion => &["feature_extractor", IMAGE_ENCODER],
        }
    }

    /// How images of `side` pixels are prepared, where no file says so and all models of the family have it.
    #[cfg(feature = "images")]
    pub(crate) fn image_processor(self, side: usize) -> Option<ImageProcessorConfig> {
        let side = u32::try_from(side).unwrap_or(u32::MAX);
        match self {
            // The whole image, out of shape.
            Self::R2d2 => Some(ImageProcessorConfig {
                size: ResizeTo::Exactly { height: side, width: side },
                do_center_crop: false,
                ..ImageProcessorConfig::default()
            }),
            Self::Wukong => Some(ImageProcessorConfig {
                size: ResizeTo::ShortestEdge { shortest_edge: side },
                crop_size: CropTo::Exactly { height: side, width: side },
                ..ImageProcessorConfig::default()
            }),
            _ => None,
        }
    }
}

/// The family of a model that is one file of weights with a vocabulary.
fn of_weights(source: &ModelSource) -> Result<Option<Family>> {
    for (ending, family) in [(R2D2_ENDING, Family::R2d2), (WUKONG_ENDING, Family::Wukong)] {
        if only_file(source, ending)?.is_some() {
            return Ok(Some(family));
        }
    }
    Ok(None)
}

/// The file at the root whose name ends in `ending`.
///
/// # Errors
/// If there are several.
pub(super) fn only_file(source: &ModelSource, ending: &str) -> Result<Option<String>> {
    let files = source.files()?.unwrap_or_default();
    let mut found = files.into_iter().filter(|file| file.ends_with(ending) && !file.contains('/'));
    let file = found.next();
    match (&file, found.next()) {
        (Some(first), Some(second)) => Err(Error::config(
            source.to_string(),
            format!("expected one file that ends in {ending}, found {first} and {second}"),
        )),
        _ => Ok(file),
    }
}

fn unknown(source: &ModelSource, file: &str, model_type: &str) -> Error {
    Error::config(
        source.to_string(),
        format!("{file}: model_type is {model_type:?}, expected one of {SUPPORTED}"),
    )
}

/// With the spelling of the authors.
impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AltClip => "AltCLIP",
            Self::Clip => "CLIP",
            Self::ChineseClip => "Chinese-CLIP",
            Self::TaiyiClip => "Taiyi-CLIP",
            Self::OpenClip => "OpenCLIP",
            Self::Siglip => "SigLIP",
            Self::MClip => "M-CLIP",
            Self::DistilBertClip => "sentence-transformers' multilingual CLIP",
            Self::SentenceClip => "CLIP in sentence-transformers' layout",
            Self::R2d2 => "R2D2",
            Self::Wukong => "Wukong",
            Self::AltDiffusion => "AltDiffusion",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model_files::source::EmbeddedFiles;

    fn family(files: EmbeddedFiles) -> Result<Family> {
        Family::of(&ModelSource::embedded("model", files))
    }

    #[test]
    fn families_are_recognized_by_their_files() {
        let root = "config.json";
        let text = "text_encoder/config.json";
        let cases: [(EmbeddedFiles, Family); 7] = [
            (&[("config.json", br#"{"model_type": "altclip"}"#)], Family::AltClip),
            (
                &[(
                    "config.json",
                    br#"{"model_type": "clip", "text_config": {"model_type": "xlm-roberta"}}"#,
                )],
                Family::AltClip,
            ),
            (&[("config.json", br#"{"model_type": "clip", "text_config": null}"#)], Family::Clip),
            (&[("config.json", br#"{"model_type": "chinese_clip"}"#)], Family::ChineseClip),
            (
                &[
                    ("config.json", br#"{"model_type": "clip"}"#),
                    ("text_encoder/config.json", br#"{"model_type": "bert"}"#),
                ],
                Family::TaiyiClip,
            ),
            (&[("text_encoder/config.json", br#"{"model_type": "bert"}"#)], Family::TaiyiClip),
            (&[("text_encoder/config.json", br#"{"model_type": "xlm-roberta"}"#)], Family::AltDiffusion),
        ];
        for (files, expected) in cases {
            assert_eq!(family(files).unwrap(), expected, "{root} {text} {expected}");
        }
    }

    #[test]
    fn other_models_are_refused_in_one_line_that_says_what_is_supported() {
        let cases: [EmbeddedFiles; 4] = [
            &[],
            &[("config.json", br#"{"model_type": "blip"}"#)],
            &[("config.json", b"{}")],
            &[("text_encoder/config.json", br#"{"model_type": "t5"}"#)],
        ];
        for files in cases {
            let error = family(files).unwrap_err().to_string();
            assert!(error.starts_with("model: ") && error.contains("Chinese-CLIP (chinese_clip)"), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let error = family(&[("config.json", br#"{"model_type": "bert"}"#)]).unwrap_err().to_string();
        assert!(error.contains("image_encoder/"), "{error}");
    }
}
