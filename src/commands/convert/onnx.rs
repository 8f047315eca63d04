//! `altdiffusion convert --to onnx`: writes a dual encoder as ONNX.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use altclip_encoder::onnx::{ExportOptions, Exported, Precision, export};
use altdiffusion_pipeline::Converted;
use anyhow::{Result, bail, ensure};
use model_files::checkpoint::NumberType;

use super::Convert;
use super::losses::Losses;
use crate::exit_status::Cancelled;
use crate::interrupt::Interrupt;
use crate::model::open_source;
use crate::progress::{ProgressLine, announce};
use crate::standard_streams::print_line;

impl Convert {
    pub(super) fn write_onnx(&self) -> Result<()> {
        let precision = self.check_onnx()?;
        let source = open_source(&self.source, None, self.variant.as_deref())?;
        let interrupt = Interrupt::watch_for("this tensor is written");
        announce(&format!("Reading {}", self.source));
        let progress = ProgressLine::start("Converting");
        let (mut step, mut steps) = (0, 0);
        let mut on_tensor = |done: usize, total: usize| {
            (step, steps) = (done, total);
            progress.steps("Converting", done, total);
            if interrupt.is_pressed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let options = ExportOptions { precision, ..ExportOptions::default() };
        let exported = export(&source, &self.output, &options, &mut on_tensor)?;
        drop(progress);
        let Some(Exported { tensors, projection_dim, image_size, context_length, .. }) = exported else {
            return Err(Cancelled { step, steps }.into());
        };
        self.report(
            &Converted { tensors, left_out: Vec::new(), fell_back: BTreeMap::new() },
            &Losses::default(),
        )?;
        if !self.json {
            print_line(format!(
                "texts of {context_length} tokens and images of {image_size}×{image_size} pixels become vectors of \
                 {projection_dim} values"
            ))?;
        }
        Ok(())
    }

    /// Checks the options before the work begins.
    fn check_onnx(&self) -> Result<Precision> {
        let output = self.output.display();
        ensure!(!self.output.exists(), "OUTPUT {output}: is there already, expected a new directory");
        ensure!(
            !Path::new(&self.source).is_file(),
            "SOURCE {}: one file holds no tokenizer, expected the directory or the repository of a dual encoder",
            self.source
        );
        ensure!(self.config.is_none(), "--config: is for a SOURCE in one file, found {}", self.source);
        Ok(match self.dtype {
            None | Some(NumberType::F32) => Precision::F32,
            Some(NumberType::F16) => Precision::F16,
            Some(other) => bail!("--dtype {other}: expected f32 or f16 with --to onnx"),
        })
    }
}
