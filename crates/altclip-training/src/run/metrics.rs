//! Writes the metrics of a run's steps: JSON lines, TensorBoard events, and a plot.

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

/// The metrics of a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The number of the step, from 0.
    pub step: usize,
    /// The mean loss over its batches.
    pub loss: f64,
    /// The norm of all gradients together, before clipping.
    pub gradient_norm: f64,
    /// The step's learning rate.
    pub learning_rate: f64,
}

/// The files of a run's metrics, open for appending.
pub(super) struct MetricsFiles {
    folder: PathBuf,
    lines: File,
    events: EventFile,
    losses: Vec<f64>,
}

impl MetricsFiles {
    /// Opens the files, truncated to the steps before `step`, where the run resumes.
    pub(super) fn open(folder: &Path, step: usize) -> Result<Self> {
        let path = folder.join(METRICS_FILE);
        let mut kept = Vec::new();
        let mut losses = Vec::new();
        if let Ok(file) = File::open(&path) {
            for line in BufReader::new(file).lines().take(step) {
                let line = line.map_err(Error::io(&path))?;
                // A killed process may leave half a line; its step will be repeated.
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

    /// Appends a step.
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

    /// Flushes everything to disk, and draws the plot.
    pub(super) fn flush(&mut self) -> Result<()> {
        let path = self.folder.join(METRICS_FILE);
        self.lines.sync_data().map_err(Error::io(&path))?;
        save_png(&self.folder.join(PLOT_FILE), plot::losses(&self.losses)?.image())
    }
}
