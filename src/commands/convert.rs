//! `altdiffusion convert`: a model from one layout and number type to another.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use altclip_encoder::checkpoint::Checkpoint;
use altclip_encoder::source::ModelSource;
use altdiffusion_pipeline::{Converted, ModelParts, convert_weights};
use anyhow::{Context, Result, bail, ensure};
use candle_core::DType;
use clap::Args;

use crate::interrupt::Interrupt;
use crate::model::open_source;
use crate::option_values;
use crate::output::check_writable;
use crate::progress::{Progress, announce};

const SAFETENSORS: &str = "safetensors";

/// Tensors that were left out and are named before the rest is only counted.
const MOST_LISTED: usize = 3;

/// Write a model in another layout, or with numbers of another type.
///
/// A model is a directory in the layout of diffusers, or one file in that of latent diffusion: the older tools know the
/// one, the newer the other. What is written are always safetensors; pickles, .bin and .ckpt, are read and never run.
/// The tensors of a model that is converted there and back have the same bytes.
///
/// The output is there whole or not at all: a conversion that fails or is interrupted leaves nothing.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Convert {
    /// The model: a directory, a repository on the Hugging Face hub, or one file, .safetensors or .ckpt.
    ///
    /// A file that is no whole model, such as pytorch_model.bin, keeps the names of its tensors.
    #[arg(value_name = "SOURCE")]
    source: String,

    /// Where to write it: a file whose name ends with .safetensors, or a directory that is not there yet.
    #[arg(value_name = "OUTPUT")]
    output: PathBuf,

    /// The type of the numbers that are written: f32, f16 or bf16. By default, as they are.
    ///
    /// Only numbers with a fraction are converted; ids and the like stay as they are. A number that is too large for f16
    /// is an error.
    #[arg(long, value_name = "TYPE", value_parser = option_values::dtype)]
    dtype: Option<DType>,

    /// Where the tokenizer of a source in one file is, and its configurations: a directory, or a repository on the hub.
    ///
    /// Needed to write a directory. Where there is no configuration, the shapes of the tensors tell it.
    #[arg(long, value_name = "DIR_OR_HUB_ID")]
    config: Option<String>,

    /// Which of several weights to read, as `variant` in diffusers: fp16 for model.fp16.safetensors and the like.
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  All of a published model in one file of half the size:
      altdiffusion convert BAAI/AltDiffusion-m9 m9.safetensors --dtype f16

  And drawing with it:
      altdiffusion generate 一只猫 --model m9.safetensors --config BAAI/AltDiffusion-m9

  A checkpoint of older tools to the layout of diffusers:
      altdiffusion convert model.ckpt my-model --config BAAI/AltDiffusion-m9";

impl Convert {
    pub fn run(self) -> Result<()> {
        let to_file = self.output.extension().is_some_and(|ending| ending == SAFETENSORS);
        // What can be wrong with the output comes out before the work begins.
        if to_file {
            check_writable("OUTPUT", &self.output)?;
        } else if self.output.exists() {
            bail!(
                "OUTPUT {}: is there already, expected a new directory or a file that ends with .{SAFETENSORS}",
                self.output.display()
            );
        }

        let source = Path::new(&self.source);
        ensure!(
            self.variant.is_none() || !source.is_file(),
            "--variant: is for a SOURCE in folders, found the file {}",
            self.source
        );
        let interrupt = Interrupt::watch()?;
        announce(&format!("Reading {}", self.source));
        let progress = Progress::start("Converting");
        let mut on_tensor = |done: usize, total: usize| {
            progress.steps("Converting", done, total);
            if interrupt.is_pressed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let converted = if source.is_file() && !ModelParts::are_in(source)? {
            ensure!(
                to_file,
                "OUTPUT {}: expected a file that ends with .{SAFETENSORS}, since {} holds only a part of a model",
                self.output.display(),
                self.source
            );
            convert_weights(&Checkpoint::from_file(source)?, &self.output, self.dtype, &mut on_tensor)?
        } else {
            let parts = self.parts(source)?;
            if to_file {
                parts.write_single_file(&self.output, self.dtype, &mut on_tensor)?
            } else {
                ensure!(
                    self.config.is_some() || !source.is_file(),
                    "SOURCE {}: one file holds no tokenizer, name a model that has it with --config DIR_OR_HUB_ID, such \
                     as --config BAAI/AltDiffusion-m9",
                    self.source
                );
                parts.write_folders(&self.output, self.dtype, &mut on_tensor)?
            }
        };
        drop(progress);
        if let Err(error) = self.report(&converted) {
            // The model is there, and that nobody reads where takes nothing from it.
            tracing::debug!("standard output: {error}");
        }
        Ok(())
    }

    fn parts(&self, source: &Path) -> Result<ModelParts> {
        let beside = self.config.as_deref().map(ModelSource::open).transpose().context("--config")?;
        if source.is_file() {
            return Ok(ModelParts::in_single_file(source, beside.as_ref())?);
        }
        ensure!(beside.is_none(), "--config: is for a SOURCE in one file, found {}", self.source);
        Ok(ModelParts::in_folders(&open_source(&self.source, self.variant.as_deref())?)?)
    }

    fn report(&self, converted: &Converted) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        write!(stdout, "{}: {} tensors", self.output.display(), converted.tensors)?;
        let left_out = &converted.left_out;
        if !left_out.is_empty() {
            let named: Vec<&str> = left_out.iter().take(MOST_LISTED).map(String::as_str).collect();
            let more = if left_out.len() > MOST_LISTED { ", …" } else { "" };
            write!(stdout, ", {} others left out: {}{more}", left_out.len(), named.join(", "))?;
        }
        writeln!(stdout)
    }
}
