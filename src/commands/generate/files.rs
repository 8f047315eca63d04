//! Checks a run's output files before the work.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use altdiffusion_pipeline::image_metadata::ImageFileFormat;
use altdiffusion_pipeline::{ContactSheet, Timings};
use anyhow::{Result, anyhow, ensure};
use serde::Serialize;

use super::options::Generate;
use crate::animation::Animation;
use crate::image_file::is_standard_output;
use crate::output_files::{check_writable, numbered};
use crate::standard_streams;

/// The files of the images.
pub struct ImageFiles {
    pub format: ImageFileFormat,
    pub paths: Vec<PathBuf>,
}

impl Generate {
    /// The files for this many images, after checking that each can be written.
    pub fn outputs(&self, images: usize) -> Result<ImageFiles> {
        let files = if self.grid { 1 } else { images };
        let is_piped = is_standard_output(&self.output);
        if is_piped {
            self.check_standard_output(files)?;
        }
        let format = match is_piped {
            true => ImageFileFormat::Png,
            false => ImageFileFormat::from_path(&self.output).map_err(|error| anyhow!("--output {error}"))?,
        };
        let paths = numbered(&self.output, files);
        if let Some(path) = &self.save_steps {
            Animation::check_name("--save-steps", path)?;
        }
        let others = [
            ("--save-steps", &self.save_steps),
            ("--save-latents", &self.save_latents),
            ("--timings", &self.timings),
        ];
        let others = others.into_iter().filter_map(|(option, path)| Some((option, path.as_deref()?)));
        let mut seen: Vec<(&str, &Path)> = Vec::new();
        let images = paths.iter().filter(|_| !is_piped).map(|path| ("--output", path.as_path()));
        for (option, path) in images.chain(others) {
            check_writable(option, path)?;
            let same = seen.iter().find(|(_, other)| *other == path);
            ensure!(
                same.is_none(),
                "{option} {}: expected another file than {}",
                path.display(),
                same.map_or("", |(option, _)| option)
            );
            seen.push((option, path));
        }
        Ok(ImageFiles { format, paths })
    }

    /// Standard output takes a single image, and must be neither closed nor a terminal.
    fn check_standard_output(&self, images: usize) -> Result<()> {
        ensure!(
            images == 1,
            "--output -: {images} images, of which standard output takes one; expected a file, or --grid"
        );
        ensure!(
            !self.json,
            "--output -: the image has standard output for itself, expected a file beside --json"
        );
        standard_streams::check(standard_streams::check_open())?;
        ensure!(
            !io::stdout().is_terminal(),
            "--output -: standard output is a terminal, expected a file or a pipe"
        );
        Ok(())
    }

    /// Checks that the images fit the formats of the files.
    ///
    /// # Errors
    /// If a side exceeds a format's limit.
    pub fn check_sizes(&self, files: &ImageFiles, sheet: &ContactSheet) -> Result<()> {
        let (width, height) = if self.grid { sheet.size() } else { sheet.cell() };
        let largest = files.format.largest_side();
        ensure!(
            width.max(height) <= largest,
            "--output {}: {width} × {height} pixels, of which the format holds at most {largest} on a side; .png holds more",
            self.output.display()
        );
        if let Some(path) = &self.save_steps {
            let (width, height) = sheet.size();
            ensure!(
                width.max(height) <= Animation::LARGEST_SIDE,
                "--save-steps {}: {width} × {height} pixels, of which .gif holds at most {} on a side",
                path.display(),
                Animation::LARGEST_SIDE
            );
        }
        Ok(())
    }
}

/// Timings, in seconds.
#[derive(Serialize)]
pub struct GenerateSeconds {
    load_s: f64,
    text_s: f64,
    steps_s: Vec<f64>,
    decode_s: f64,
    total_s: f64,
}

impl GenerateSeconds {
    pub fn new(load: Duration, timings: &Timings, total: Duration) -> Self {
        Self {
            load_s: load.as_secs_f64(),
            text_s: timings.text.as_secs_f64(),
            steps_s: timings.steps.iter().map(Duration::as_secs_f64).collect(),
            decode_s: timings.decode.as_secs_f64(),
            total_s: total.as_secs_f64(),
        }
    }
}
