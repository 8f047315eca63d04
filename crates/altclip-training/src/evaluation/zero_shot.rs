//! Measures zero-shot classification accuracy.

use candle_core::{Device, Tensor};
use serde::Serialize;

use crate::error::{Error, Result};

/// With fewer classes than this there is no top-5.
const TOP: usize = 5;

/// The shares of images classified correctly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ZeroShotScores {
    /// The nearest class is correct.
    pub top1: f64,
    /// The correct class is among the five nearest; `None` with fewer than five classes.
    pub top5: Option<f64>,
    /// The mean of each class's `top1`, over classes with images.
    pub mean_per_class: f64,
}

/// Classifies images by their nearest class.
///
/// * `images` (images, width) and `classes` (classes, width), unit vectors
/// * `targets`: for each image, the index of its class
///
/// # Errors
/// If the shapes do not fit, an index is out of range, a vector holds NaN, or there are no images.
pub fn zero_shot(images: &Tensor, classes: &Tensor, targets: &[usize]) -> Result<ZeroShotScores> {
    let scores = images.to_device(&Device::Cpu)?.matmul(&classes.to_device(&Device::Cpu)?.t()?)?;
    zero_shot_by_scores(&scores, targets)
}

/// Like [`zero_shot`], by `scores` of any kind, (images, classes).
///
/// # Errors
/// Like [`zero_shot`].
pub fn zero_shot_by_scores(scores: &Tensor, targets: &[usize]) -> Result<ZeroShotScores> {
    let (images, count) = scores.dims2()?;
    if images != targets.len() || targets.iter().any(|&target| target >= count) || targets.is_empty() {
        let problem = format!(
            "zero-shot classification: expected the number of a class below {count} for each of {images} images, at least one"
        );
        return Err(Error::Setting(problem));
    }
    let mut ranks = Vec::with_capacity(targets.len());
    for (scores, &target) in scores.to_vec2::<f32>()?.iter().zip(targets) {
        let own = scores.get(target).copied().unwrap_or(f32::NAN);
        if scores.iter().any(|score| score.is_nan()) {
            return Err(Error::Setting(
                "zero-shot classification: a vector holds NaN or infinity".to_owned(),
            ));
        }
        // Ties go to the earlier class.
        let is_before = |&(class, score): &(usize, &f32)| *score > own || (*score == own && class < target);
        ranks.push(scores.iter().enumerate().filter(is_before).count());
    }
    let share = |k: usize| ranks.iter().filter(|&&rank| rank < k).count() as f64 / ranks.len() as f64;
    let mut per_class = vec![(0usize, 0usize); count];
    for (&target, &rank) in targets.iter().zip(&ranks) {
        if let Some((right, all)) = per_class.get_mut(target) {
            *right += usize::from(rank == 0);
            *all += 1;
        }
    }
    let recalls: Vec<f64> =
        per_class.iter().filter(|(_, all)| *all > 0).map(|&(right, all)| right as f64 / all as f64).collect();
    Ok(ZeroShotScores {
        top1: share(1),
        top5: (count >= TOP).then(|| share(TOP)),
        mean_per_class: recalls.iter().sum::<f64>() / recalls.len() as f64,
    })
}
