//! `altdiffusion inspect`: describes a checkpoint, and checks whether it is complete.

use std::path::Path;

use altclip_encoder::conditioner::ConditionerConfig;
use altclip_encoder::dual_encoder::{self, Family};
use altclip_encoder::tokenizer::Tokenizer;
use altdiffusion_pipeline::{AltDiffusion, ModelParts};
use anyhow::{Result, bail};
use candle_core::{DType, Device};
use clap::Args;
use model_files::checkpoint::{PartReport, Survey};
use model_files::source::{FileData, ModelSource};
use serde::Serialize;

use crate::shipped;
use crate::standard_streams::{is_for_people, print_json, print_line, print_table};

/// The most tensors of one kind to list; the others are counted.
const MOST_LISTED: usize = 20;

/// Inspect a model: its family, sizes, number types, and missing or unexpected tensors.
///
/// Loads everything as for use, but of the weights only the tables of contents. The exit code is 1 where something
/// is missing or contradicts the configuration.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The model: a directory, a repository on the Hugging Face hub, or one file (.safetensors, .gguf, .ckpt). By
    /// default the one inside this program.
    #[arg(value_name = "DIR_OR_HUB_ID")]
    model: Option<String>,

    /// List all unexpected tensors, not only the first few.
    #[arg(long)]
    all: bool,

    /// Print JSON: an object with model, uses, problems and parts.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct InspectReport {
    model: String,
    /// What it can be used as.
    uses: Vec<String>,
    /// Problems other than tensors.
    problems: Vec<String>,
    parts: Vec<PartReport>,
}

impl Inspect {
    pub fn run(self) -> Result<()> {
        let report = match &self.model {
            Some(file) if Path::new(file).is_file() => inspect_file(Path::new(file))?,
            Some(name) => inspect(&ModelSource::open(name)?)?,
            None => inspect(&shipped::source())?,
        };
        if self.json {
            print_json(&report)?;
        } else {
            self.show(&report)?;
        }
        let broken_in = |part: &PartReport| part.missing.len() + part.misshapen.len() + part.unreadable.len();
        let broken: usize = report.parts.iter().map(broken_in).sum();
        match (report.problems.first(), broken) {
            (None, 0) => Ok(()),
            (Some(problem), _) => bail!("{problem}"),
            (None, broken) => {
                bail!("{}: {broken} tensors are missing, have another shape or cannot be read", report.model)
            }
        }
    }

    fn show(&self, report: &InspectReport) -> Result<()> {
        print_line(format!("{}: {}", report.model, report.uses.join("; ")))?;
        if is_for_people() {
            print_line("")?;
        }
        let header = ["part", "tensors", "parameters", "MB", "types", "missing", "other shape", "unexpected"];
        let row = |part: &PartReport| {
            let types: Vec<String> = part.dtypes.iter().map(|(dtype, n)| format!("{dtype} × {n}")).collect();
            vec![
                if part.folder.is_empty() { file_name(&part.file) } else { part.folder.clone() },
                part.tensors.to_string(),
                part.parameters.to_string(),
                format!("{:.1}", part.bytes as f64 / 1e6),
                types.join(", "),
                part.missing.len().to_string(),
                part.misshapen.len().to_string(),
                part.unexpected.len().to_string(),
            ]
        };
        print_table(&header, &report.parts.iter().map(row).collect::<Vec<_>>(), 1..)?;
        for part in &report.parts {
            for tensor in &part.missing {
                print_line(format!("{}: missing {} {:?}", part.file, tensor.name, tensor.expected))?;
            }
            for tensor in &part.misshapen {
                let (name, found, expected) = (&tensor.name, &tensor.found, &tensor.expected);
                print_line(format!("{}: {name} is {found:?}, expected {expected:?}", part.file))?;
            }
            for tensor in &part.unreadable {
                print_line(format!("{}: {} cannot be read: {}", part.file, tensor.name, tensor.problem))?;
            }
            let listed = if self.all { part.unexpected.len() } else { MOST_LISTED };
            for name in part.unexpected.iter().take(listed) {
                print_line(format!("{}: unexpected {name}", part.file))?;
            }
            if let Some(more) = part.unexpected.len().checked_sub(listed).filter(|&more| more > 0) {
                print_line(format!("{}: and {more} more (--all lists them)", part.file))?;
            }
        }
        Ok(())
    }
}

fn file_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Loads the model in every way it can be used, without its weights.
///
/// # Errors
/// If this program supports none.
fn inspect(source: &ModelSource) -> Result<InspectReport> {
    let survey = Survey::default();
    let surveyed = source.surveyed(&survey);
    let (mut uses, mut problems) = (Vec::new(), Vec::new());
    let is_pipeline = source.read_optional("unet/config.json")?.is_some();
    if is_pipeline {
        uses.push(pipeline_of(&source.read("text_encoder/config.json")?).to_owned());
        match AltDiffusion::from_source(&surveyed, DType::F32, &Device::Cpu) {
            Ok(model) => problems.extend(missing_embeddings(source, model.tokenizer()?)),
            Err(error) => problems.push(error.to_string()),
        }
    }
    let has_image_encoder = source.read_optional("image_encoder/config.json")?.is_some();
    if !is_pipeline || has_image_encoder {
        let family = Family::of(source)?;
        uses.push(format!("dual encoder of the family {family}"));
        match dual_encoder::load(&surveyed, DType::F32, &Device::Cpu) {
            Ok(model) => {
                let rows = model.properties().vocab_size;
                problems.extend(tokenizer_problem(source, family.tokenizer_folder(), rows));
            }
            Err(error) => problems.push(error.to_string()),
        }
    }
    Ok(InspectReport { model: source.to_string(), uses, problems, parts: survey.reports() })
}

/// What to call a pipeline with this text encoder. Errors in its configuration are reported by loading it.
fn pipeline_of(text_encoder: &FileData) -> &'static str {
    match ConditionerConfig::read(text_encoder) {
        Ok(ConditionerConfig::Clip(_)) => "Stable Diffusion pipeline with CLIP",
        Ok(ConditionerConfig::Bert(_)) => "Stable Diffusion pipeline with BERT",
        Ok(ConditionerConfig::AltDiffusion(_)) | Err(_) => "AltDiffusion pipeline",
    }
}

/// What is wrong with the tokenizer of a dual encoder with this many embedding rows. A missing one is fine:
/// image-only use needs none.
fn tokenizer_problem(source: &ModelSource, folder: &str, rows: usize) -> Option<String> {
    match Tokenizer::from_source(source, folder) {
        Ok(tokenizer) => missing_embeddings(source, &tokenizer.with_embedding_rows(rows)),
        Err(altclip_encoder::Error::Files(model_files::Error::MissingFile { .. })) => None,
        Err(error) => Some(error.to_string()),
    }
}

/// Names tokens that were added to the tokenizer but not to the model.
fn missing_embeddings(source: &ModelSource, tokenizer: &Tokenizer) -> Option<String> {
    let tokens = tokenizer.tokens_without_embedding();
    let first = tokens.first()?;
    let (count, verb) = (tokens.len(), if tokens.len() == 1 { "token has" } else { "tokens have" });
    Some(format!("{source}: {count} added {verb} no embedding in the model, {first:?} first"))
}

/// Loads the models in a file, without their weights.
///
/// # Errors
/// If it is not a supported model.
fn inspect_file(file: &Path) -> Result<InspectReport> {
    let survey = Survey::default();
    let parts = ModelParts::in_single_file(file, None)?.surveyed(&survey);
    let (dtype, device) = (DType::F32, Device::Cpu);
    let made = [
        parts.load_text_encoder(dtype, &device).map(|_| ()),
        parts.load_unet(dtype, &device).map(|_| ()),
        parts.load_vae(dtype, &device).map(|_| ()),
    ];
    Ok(InspectReport {
        model: file.display().to_string(),
        uses: vec![format!(
            "{} in one file, to which belongs a tokenizer",
            pipeline_of(parts.text_encoder_config())
        )],
        problems: made.into_iter().filter_map(|made| Some(made.err()?.to_string())).collect(),
        parts: survey.reports(),
    })
}
