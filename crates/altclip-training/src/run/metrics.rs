//! Writes what a run reports of its steps to files: one JSON object per line, TensorBoard's events, and a plot.

use model_files::write_whole;

use crate::error::{Error, Result};
use crate::png_file::save_png;
use crate::run::events::EventFile;
use crate::run::plot;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// One JSON object per step.
const METRICS_FILE: &str = "metrics.jsonl";
const PLOT_FILE: &str = "loss.png";

/// What a stage reports of one step, for people and for plots.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The number of the step, from 0.
    pub step: usize,
    /// The mean loss over its batches.
    pub loss: f64,
    /// The norm of all gradients together, before clipping.
    pub gradient_norm: f64,
    /// The learning rate that the step was taken with.
    pub learning_rate: f64,
}

/// The files of a run's metrics, open at their ends.
pub(super) struct MetricsFiles {
    folder: PathBuf,
    lines: File,
    events: EventFile,
    losses: Vec<f64>,
}

impl MetricsFiles {
    /// Opens the files, cut back to the steps before `step`, which is where the run goes on.
    pub(super) fn open(folder: &Path, step: usize) -> Result<Self> {
        let path = folder.join(METRICS_FILE);
        let mut kept = Vec::new();
        let mut losses = Vec::new();
        if let Ok(file) = File::open(&path) {
            for line in BufReader::new(file).lines().take(step) {
                let line = line.map_err(Error::io(&path))?;
                // The last line of a killed process may be half a line; its step comes again.
                let Ok(metrics) = serde_json::from_str::<Metrics>(&line) else { break };
                losses.push(metrics.loss);
                kept.extend_from_slice(line.as_bytes());
                kept.push(b'\n');
            }
        }
        write_whole(&path, |temporary| fs::write(temporary, &kept))?;
        let lines = OpenOptions::new().append(true).open(&path).map_err(Error::io(&path))?;
        Ok(Self { folder: folder.to_owned(), lines, events: EventFile::open(folder, step)?, losses })
    }

    /// Appends one step.
    pub(super) fn add(&mut self, metrics: &Metrics) -> Result<()> {
        let path = self.folder.join(METRICS_FILE);
        let mut line = serde_json::to_vec(metrics).map_err(|e| Error::format(&path, e))?;
        line.push(b'\n');
        self.lines.write_all(&line).map_err(Error::io(&path))?;
        self.losses.push(metrics.loss);
        let Metrics { step, loss, gradient_norm, learning_rate } = *metrics;
        let scalars = [("loss", loss), ("gradient_norm", gradient_norm), ("learning_rate", learning_rate)];
        self.events.add(step, &scalars)
    }

    /// Puts everything on the disk, and draws the plot.
    pub(super) fn flush(&mut self) -> Result<()> {
        let path = self.folder.join(METRICS_FILE);
        self.lines.sync_data().map_err(Error::io(&path))?;
        save_png(&self.folder.join(PLOT_FILE), plot::losses(&self.losses)?.image())
    }
}
