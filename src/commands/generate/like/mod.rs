//! Reads from an image how it was drawn, as options.

mod common;
mod files;
mod found;
mod other_programs;
mod ours;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use altdiffusion_pipeline::image_metadata::{GenerationParameters, read_parameters_text};
use anyhow::{Context, Result, anyhow};

use self::found::ImageOptions;
use super::options::{Generate, parse_options};
use crate::progress::warn;

/// Fields that only matter to readers.
const SILENT: [&str; 6] = ["Version", "Device", "Model hash", "Lora hashes", "TI hashes", "User"];

/// Fields with which other programs number images, besides recording their seeds.
const BATCH: [&str; 2] = ["Batch size", "Batch pos"];

/// The most unused fields to name.
const MOST_NAMED: usize = 12;

/// The options, with those of the image at `--like` as defaults.
///
/// # Errors
/// If the image has no record, or it names a missing file.
pub fn with_image_options(options: Generate) -> Result<(Generate, Option<ModelHash>)> {
    let Some(path) = options.like.clone() else { return Ok((options, None)) };
    let info = GenerationParameters::parse(&read_parameters_text(&path).context("--like")?);
    let model_hash = info.fields.get("Model hash").filter(|_| !options.has("model"));
    let model_hash = model_hash.map(|hash| ModelHash { hash: hash.to_owned(), image: path.clone() });
    let source = format!("--like {}", path.display());
    let RecordedOptions { options: image, warnings } = recorded_options(info, &source, &path, &options)?;
    warnings.iter().for_each(|warning| warn(warning));
    Ok((options.or(image), model_hash))
}

/// A record's options, and messages about it for the user.
pub struct RecordedOptions {
    pub options: Generate,
    pub warnings: Vec<String>,
}

/// Reads a record, called `source` in messages, as options, with precedence for those in `given`. Files are searched
/// for beside `path`.
///
/// # Errors
/// If it names a missing file, or has an invalid value.
pub fn recorded_options(
    record: GenerationParameters,
    source: &str,
    path: &Path,
    given: &Generate,
) -> Result<RecordedOptions> {
    let mut found = ImageOptions::new(source, path, given);
    read(&mut found, record)?;
    let ImageOptions { arguments, unused, changed, .. } = found;
    let options = parse_options(&arguments)
        .map_err(|problem| anyhow!("{source}: what the image says cannot be: {problem}"))?;
    let mut warnings = changed;
    if !unused.is_empty() {
        let more = match unused.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
            Some(more) => format!(" and {more} more"),
            None => String::new(),
        };
        let named: Vec<&str> = unused.iter().take(MOST_NAMED).map(String::as_str).collect();
        warnings.push(format!("{source}: not used: {}{more}", named.join(", ")));
    }
    Ok(RecordedOptions { options, warnings })
}

/// The hash of the model that an image was drawn with, if it must be the same.
pub struct ModelHash {
    hash: String,
    image: PathBuf,
}

impl ModelHash {
    /// Warns if the model is another one.
    pub fn check(&self, found: &str) {
        let Self { hash, image } = self;
        if hash != found {
            warn(&format!(
                "--like {}: was drawn with another model, whose hash is {hash}; this one's is {found}, so that another \
                 image comes out",
                image.display()
            ));
        }
    }
}

/// Reads an image's record.
fn read(found: &mut ImageOptions<'_>, info: GenerationParameters) -> Result<()> {
    let GenerationParameters { mut prompt, negative_prompt, mut fields } = info;
    let is_ours = fields.get("Version").is_some_and(|version| version.starts_with("altdiffusion"));
    let mut prompts = vec![];
    if is_ours {
        if let Some(list) = fields.take("Prompts") {
            prompts = serde_json::from_str(&list).context("its field Prompts")?;
        }
        found.read_ours(&mut fields, prompts.len().max(1))?;
    } else {
        prompt = found.read_networks(&prompt);
        found.read_theirs(&mut fields);
    }
    found.read_common(&mut fields, is_ours);
    for (name, value) in fields.iter() {
        if !SILENT.contains(&name) && (is_ours || !BATCH.contains(&name)) {
            found.not_used(name, value);
        }
    }
    if !negative_prompt.is_empty() {
        found.value("Negative prompt", "negative-prompt", &negative_prompt);
    }
    if prompts.is_empty() {
        prompts.push(prompt);
    }
    found.arguments.push("--".into());
    found.arguments.extend(prompts.into_iter().map(OsString::from));
    Ok(())
}
