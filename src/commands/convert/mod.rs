//! `altdiffusion convert`: converts a model to another layout or number type.

mod losses;
mod onnx;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use altdiffusion_pipeline::{Converted, ModelParts, convert_weights};
use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use model_files::Target;
use model_files::checkpoint::{Checkpoint, NumberType};
use model_files::source::ModelSource;
use serde::Serialize;

use self::losses::{Loss, Losses};
use crate::interrupt::Interrupt;
use crate::model::open_source;
use crate::option_values;
use crate::output_files::check_writable;
use crate::progress::{ProgressLine, announce};
use crate::standard_streams::{print_json, print_line};
use crate::text_lines::read_names;

/// The output format, by file ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Safetensors,
    Gguf,
    Folders,
}

impl Layout {
    fn of(output: &Path) -> Self {
        match output.extension().and_then(OsStr::to_str) {
            Some("safetensors") => Self::Safetensors,
            Some("gguf") => Self::Gguf,
            // A pipe or a device cannot hold folders.
            _ if matches!(Target::of(output), Ok(Target::Stream | Target::StandardOutput)) => {
                Self::Safetensors
            }
            _ => Self::Folders,
        }
    }
}

/// What other programs load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Onnx,
}

/// The most left-out tensors to name; the others are counted.
const MOST_LISTED: usize = 3;

/// Convert a model to another layout, or to another number type.
///
/// A model is a directory in diffusers' layout, or one file in that of latent diffusion. The output is safetensors
/// or GGUF; pickles (.bin, .ckpt) are read as data and never executed. Converting there and back gives the same
/// bytes.
///
/// A GGUF file can hold weights quantized to 2 to 8 bits. Such a model takes a half to a quarter of the memory of
/// f16, on disk and on the CPU, where layers unpack a few blocks at a time. What the model loses is measured and
/// printed at the end.
///
/// A conversion that fails or is interrupted leaves nothing behind.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Convert {
    /// The model: a directory, a repository on the Hugging Face hub, or one file (.safetensors, .gguf, .ckpt).
    ///
    /// A file that is not a whole model, such as pytorch_model.bin, keeps its tensor names.
    #[arg(value_name = "SOURCE")]
    source: String,

    /// Output: a file ending in .safetensors or .gguf, or a new directory.
    #[arg(value_name = "OUTPUT")]
    output: PathBuf,

    /// Number type to write: f32, f16, bf16, int8, or a quantized type such as q8_0 or q4_0. By default unchanged.
    ///
    /// Only numbers with a fraction are converted. A number that is too large for f16 is an error. 8-bit weights
    /// with scales are multiplied by them and written as f32 by default.
    ///
    /// Quantized types need a .gguf file, or a directory, which then holds GGUF files: q8_0, which loses next to
    /// nothing, q4_0, q4_1, q5_0, q5_1, and q2_k to q6_k, which are more exact for their size but need rows that
    /// 256 divides. The weights of linear layers and convolutions of the UNet and the text encoder are quantized;
    /// small and sensitive tensors and the autoencoder stay f16 or f32. A row that does not fit a block is written
    /// as q8_0, or else as f16.
    ///
    /// int8 needs a .safetensors file or a directory. It is for linear layers, which then multiply integers on the CPU:
    /// their weights get a scale for each output channel, in a tensor called weight_scale beside weight. A
    /// transformer's first layer and all other weights stay bf16, and the autoencoder f16. If there is a tokenizer, layers
    /// are measured: where SmoothQuant loses less, factors for the input's channels are written as pre_quant_scale beside
    /// weight, and the text encoder's layers that lose too much stay bf16.
    #[arg(long, value_name = "TYPE", value_parser = option_values::number_types(), hide_possible_values = true)]
    dtype: Option<NumberType>,

    /// Quantize the autoencoder too, for a quantized --dtype.
    ///
    /// It is a tenth of most models, and its errors show in every image: look at some before you keep it.
    #[arg(long)]
    quantize_autoencoder: bool,

    /// Write another autoencoder in place of the model's own: a file, a directory, or a repository on the hub.
    ///
    /// It is named, and has to fit the model, as for `generate --vae`.
    #[arg(long, value_name = "FILE_OR_DIR_OR_HUB_ID", conflicts_with = "to", hide_short_help = true)]
    vae: Option<String>,

    /// Texts to measure layers with for --dtype int8: a UTF-8 file, one per line. By default a few prompts.
    ///
    /// Texts like those that the model will draw tell best how large its layers' inputs become. The first 256 are used.
    #[arg(long, value_name = "FILE", conflicts_with = "skip_loss")]
    calibrate: Option<PathBuf>,

    /// Write a dual encoder, such as AltCLIP, for other programs.
    ///
    /// onnx: OUTPUT is a new directory with a graph for texts and one for images, their tokenizer and how images are
    /// prepared, as immich's machine-learning server loads them. Takes AltCLIP, CLIP, Chinese-CLIP, Taiyi-CLIP,
    /// M-CLIP, OpenCLIP without NLLB, SigLIP, and AltDiffusion with an image encoder. Weights are f32, or f16 with
    /// --dtype f16; the graphs compute in f32, and vectors have length 1.
    #[arg(long, value_name = "FORM")]
    to: Option<Form>,

    /// Do not measure the UNet's quantization error.
    ///
    /// The measurement compares the outputs of both UNets for the same random input at 128 × 128 pixels. It takes
    /// some seconds, and as much memory as the source's UNet. For int8, neither are layers measured: all but the first of a
    /// transformer are written in int8, without SmoothQuant's factors.
    #[arg(long)]
    skip_loss: bool,

    /// A model that has the tokenizer and configurations of a one-file source: a directory or a repository.
    ///
    /// Needed to write a directory. Without configurations, shapes are inferred from the tensors.
    #[arg(long, value_name = "DIR_OR_HUB_ID")]
    config: Option<String>,

    /// Weights variant, as in diffusers: fp16 reads model.fp16.safetensors and the like.
    ///
    /// Every part of the model must have it. Without this option, fp16 is read where there is nothing else.
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,

    /// Print JSON: an object with path, tensors, left_out, fell_back and losses.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct ConvertReport<'a> {
    path: String,
    tensors: usize,
    left_out: &'a [String],
    /// How many weights have another type than requested, by that type.
    fell_back: &'a BTreeMap<String, usize>,
    losses: Vec<Loss>,
}

const EXAMPLES: &str = "\
Examples:
  A published model as one file of half the size:
      altdiffusion convert BAAI/AltDiffusion-m9 m9.safetensors --dtype f16

  And drawing with it:
      altdiffusion generate 一只猫 --model m9.safetensors --config BAAI/AltDiffusion-m9

  A model a quarter of that size, and an image drawn with it:
      altdiffusion convert m9.safetensors m9-q8.gguf --dtype q8_0
      altdiffusion generate 一只猫 --model m9-q8.gguf --config BAAI/AltDiffusion-m9

  A checkpoint of older tools in diffusers' layout:
      altdiffusion convert model.ckpt my-model --config BAAI/AltDiffusion-m9

  AltCLIP for a photo server that loads ONNX:
      altdiffusion convert BAAI/AltCLIP altclip-onnx --to onnx";

impl Convert {
    pub fn run(self) -> Result<()> {
        ensure!(
            self.calibrate.is_none() || (self.dtype == Some(NumberType::Int8) && self.to.is_none()),
            "--calibrate: is for --dtype int8"
        );
        if let Some(Form::Onnx) = self.to {
            return self.write_onnx();
        }
        let layout = Layout::of(&self.output);
        let source = Path::new(&self.source);
        self.check(layout, source)?;
        let texts = match &self.calibrate {
            Some(file) => read_names("--calibrate", file)?,
            None => Vec::new(),
        };
        let interrupt = Interrupt::watch_for("this tensor is written");
        announce(&format!("Reading {}", self.source));
        let progress = ProgressLine::start("Converting");
        let mut on_tensor = |done: usize, total: usize| {
            progress.steps("Converting", done, total);
            if interrupt.is_pressed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut losses = Losses::default();
        let converted = if source.is_file() && !ModelParts::are_in(source)? {
            ensure!(
                self.calibrate.is_none(),
                "--calibrate: is for a whole model, found only a part of one in {}",
                self.source
            );
            ensure!(
                self.vae.is_none(),
                "--vae: is for a whole model, found only a part of one in {}",
                self.source
            );
            ensure!(
                layout == Layout::Safetensors,
                "OUTPUT {}: expected a file that ends with .safetensors, since {} holds only a part of a model",
                self.output.display(),
                self.source
            );
            convert_weights(&Checkpoint::from_file(source)?, &self.output, self.dtype, &mut on_tensor)?
        } else {
            let mut parts = self.parts(source)?;
            if let Some(name) = &self.vae {
                parts = parts.with_vae(name).context("--vae")?;
            }
            if self.quantize_autoencoder {
                ensure!(
                    matches!(self.dtype, Some(NumberType::Quantized(_))),
                    "--quantize-autoencoder: expected a quantized --dtype, such as q8_0"
                );
                parts = parts.with_quantized_autoencoder();
            }
            if self.dtype == Some(NumberType::Int8) && !self.skip_loss {
                losses = Losses::of_layers(&mut parts, &texts, &progress)?;
                ensure!(
                    self.calibrate.is_none() || losses.is_measured(),
                    "--calibrate: {} has no tokenizer, name a model that has it with --config DIR_OR_HUB_ID",
                    self.source
                );
            }
            let converted = match layout {
                Layout::Safetensors => parts.write_single_file(&self.output, self.dtype, &mut on_tensor)?,
                Layout::Gguf => parts.write_gguf(&self.output, self.dtype, &mut on_tensor)?,
                Layout::Folders => {
                    ensure!(
                        self.config.is_some() || !source.is_file(),
                        "SOURCE {}: one file holds no tokenizer, name a model that has it with --config DIR_OR_HUB_ID, \
                         such as --config BAAI/AltDiffusion-m9",
                        self.source
                    );
                    parts.write_folders(&self.output, self.dtype, &mut on_tensor)?
                }
            };
            if matches!(self.dtype, Some(NumberType::Quantized(_) | NumberType::Int8)) && !self.skip_loss {
                progress.then("Measuring quantization error");
                losses.measure_unet(&parts, || self.written())?;
            }
            converted
        };
        drop(progress);
        self.report(&converted, &losses)
    }

    /// Checks the options before the work begins.
    fn check(&self, layout: Layout, source: &Path) -> Result<()> {
        let output = self.output.display();
        match layout {
            Layout::Safetensors | Layout::Gguf => check_writable("OUTPUT", &self.output)?,
            Layout::Folders if self.output.exists() => {
                bail!(
                    "OUTPUT {output}: is there already, expected a new directory or a file that ends with .safetensors or \
                     .gguf"
                );
            }
            Layout::Folders => {}
        }
        if let Some(dtype @ NumberType::Quantized(_)) = self.dtype {
            ensure!(
                layout != Layout::Safetensors,
                "--dtype {dtype}: only GGUF files hold quantized weights, expected an OUTPUT that ends with .gguf, or a directory, found \
                 {output}"
            );
        }
        ensure!(
            self.dtype != Some(NumberType::Int8) || layout != Layout::Gguf,
            "--dtype int8: only safetensors hold it, expected an OUTPUT that ends with .safetensors, or a directory, found \
             {output}"
        );
        ensure!(
            self.variant.is_none() || !source.is_file(),
            "--variant: is for a SOURCE in folders, found the file {}",
            self.source
        );
        Ok(())
    }

    /// The model that was written.
    fn written(&self) -> Result<ModelParts> {
        Ok(match Layout::of(&self.output) {
            Layout::Folders => ModelParts::in_folders(&ModelSource::directory(&self.output))?,
            Layout::Safetensors | Layout::Gguf => ModelParts::in_single_file(&self.output, None)?,
        })
    }

    fn parts(&self, source: &Path) -> Result<ModelParts> {
        let beside = self.config.as_deref().map(ModelSource::open).transpose().context("--config")?;
        if source.is_file() {
            return Ok(ModelParts::in_single_file(source, beside.as_ref())?);
        }
        ensure!(beside.is_none(), "--config: is for a SOURCE in one file, found {}", self.source);
        Ok(ModelParts::in_folders(&open_source(&self.source, None, self.variant.as_deref())?)?)
    }

    fn report(&self, converted: &Converted, losses: &Losses) -> Result<()> {
        if self.json {
            return print_json(&ConvertReport {
                path: self.output.display().to_string(),
                tensors: converted.tensors,
                left_out: &converted.left_out,
                fell_back: &converted.fell_back,
                losses: losses.of_unet(),
            });
        }
        let mut line = format!("{}: {} tensors", self.output.display(), converted.tensors);
        let left_out = &converted.left_out;
        if !left_out.is_empty() {
            let named: Vec<&str> = left_out.iter().take(MOST_LISTED).map(String::as_str).collect();
            let more = if left_out.len() > MOST_LISTED { ", …" } else { "" };
            line += &format!(", {} others left out: {}{more}", left_out.len(), named.join(", "));
        }
        for (dtype, count) in &converted.fell_back {
            line += &format!(", {count} of them as {dtype} because their rows do not divide into blocks");
        }
        print_line(line)?;
        losses.print(&self.source)
    }
}
