//! Draws, and shows the progress.

use std::ops::ControlFlow;

use altdiffusion_pipeline::{
    AltDiffusion, ContactSheet, GenerateOptions, Generated, Progress as Stage, Timings,
};
use anyhow::{Context, Result, anyhow};
use candle_core::Tensor;
use image::RgbImage;

use crate::animation::Animation;
use crate::interrupt::Interrupt;
use crate::progress::{ProgressLine, warn};

/// Draws the runs, shows the progress, and keeps previews of the steps.
pub fn draw(
    pipeline: &AltDiffusion,
    runs: &[GenerateOptions],
    sheet: &ContactSheet,
    animation: Option<&mut Animation>,
    interrupt: &Interrupt,
) -> Result<Generated> {
    let preview = animation.is_some().then(|| pipeline.latent_preview()).transpose()?;
    interrupt.set_stage("while the text was read");
    let progress = ProgressLine::start("Reading the text");
    tracing::debug!("{runs:?}");
    let several = runs.len() > 1;
    // Small, for each step of each run.
    let mut previews: Vec<Vec<Vec<RgbImage>>> = Vec::new();
    let mut drawn = Vec::with_capacity(runs.len());
    for (run, options) in runs.iter().enumerate() {
        previews.push(Vec::new());
        let mut failure = None;
        let at = |done: usize, steps: usize| {
            // All runs have the same number of steps.
            let (done, total) = (run * steps + done, runs.len() * steps);
            match several {
                true => progress.steps("Drawing", done, total),
                false => progress.drawing(done, total),
            }
            interrupt.set_stage(format!("in step {} of {total}", (done + 1).min(total)));
        };
        let generated = pipeline.generate_observed(options, |stage| {
            match stage {
                Stage::Denoising { steps } => at(0, steps),
                Stage::Step(step) => {
                    at(step.index + 1, step.total);
                    if let (Some(preview), Some(previews)) = (&preview, previews.last_mut()) {
                        match preview.images(step.latents) {
                            Ok(small) => previews.push(small),
                            Err(error) => failure = Some(error),
                        }
                    }
                }
                Stage::Decoding { image, images } => {
                    if !several {
                        progress.decoding(image, images);
                    }
                    interrupt.set_stage("while the images were decoded");
                }
            }
            if failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if let Some(error) = failure {
            return Err(error).context("--save-steps");
        }
        drawn.push(generated?);
    }
    if let Some(animation) = animation {
        for step in 0..previews.first().map_or(0, Vec::len) {
            let small: Vec<_> = previews.iter().filter_map(|run| run.get(step)).flatten().cloned().collect();
            animation.push(sheet.draw(&small).context("--save-steps")?);
        }
    }
    joined(drawn)
}

/// Combines the results of several runs.
fn joined(mut drawn: Vec<Generated>) -> Result<Generated> {
    let last = drawn.pop().ok_or_else(|| anyhow!("nothing was drawn"))?;
    if drawn.is_empty() {
        return Ok(last);
    }
    drawn.push(last);
    let latents: Vec<&Tensor> = drawn.iter().map(|run| &run.latents).collect();
    let timings = drawn.iter().map(|run| &run.timings);
    Ok(Generated {
        latents: Tensor::cat(&latents, 0)?,
        timings: Timings {
            text: timings.clone().map(|timings| timings.text).sum(),
            steps: timings.clone().flat_map(|timings| timings.steps.clone()).collect(),
            decode: timings.clone().map(|timings| timings.decode).sum(),
            total: timings.map(|timings| timings.total).sum(),
        },
        flagged: drawn
            .iter()
            .map(|run| run.flagged.clone())
            .collect::<Option<Vec<_>>>()
            .map(|all| all.concat()),
        images: drawn.into_iter().flat_map(|run| run.images).collect(),
    })
}

/// Explains why images are black.
pub fn warn_of_black_images(flagged: &[bool]) {
    let numbers: Vec<String> = flagged
        .iter()
        .zip(1..)
        .filter(|(flagged, _)| **flagged)
        .map(|(_, number): (_, usize)| number.to_string())
        .collect();
    if !numbers.is_empty() {
        warn(&format!(
            "image {} of {} may not be safe to show, and is black: try another prompt or seed",
            numbers.join(", "),
            flagged.len()
        ));
    }
}
