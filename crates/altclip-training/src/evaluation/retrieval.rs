//! Measures recall of text-to-image and image-to-text retrieval, as in the papers on CLIP and related models.

use candle_core::{Device, Tensor};
use serde::Serialize;

use crate::error::{Error, Result};

/// The ranks at which recall is measured.
pub const RECALLS: [usize; 3] = [1, 5, 10];

/// Queries scored at a time.
const QUERIES_AT_A_TIME: usize = 1024;

/// The shares of queries with a correct result among the first 1, 5 and 10.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RetrievalScores {
    /// From each text to its image.
    pub text_to_image: [f64; RECALLS.len()],
    /// From each image to any of its texts.
    pub image_to_text: [f64; RECALLS.len()],
}

impl RetrievalScores {
    /// The mean of all six ("MR").
    pub fn mean_recall(&self) -> f64 {
        let all = self.text_to_image.iter().chain(&self.image_to_text);
        all.sum::<f64>() / (2 * RECALLS.len()) as f64
    }
}

/// Retrieves images by `texts` and texts by `images`.
///
/// * `images` (images, width) and `texts` (texts, width), unit vectors
/// * `owners`: for each text, the index of its image
///
/// Ties go to the earlier one. An image without texts is a candidate, but not a query.
///
/// # Errors
/// If the shapes do not fit, an index is out of range, a vector holds NaN, or there is nothing to retrieve.
pub fn retrieval(images: &Tensor, texts: &Tensor, owners: &[usize]) -> Result<RetrievalScores> {
    let count = images.dim(0)?;
    if texts.dim(0)? != owners.len() || owners.iter().any(|&owner| owner >= count) || owners.is_empty() {
        let problem = format!(
            "retrieval: expected the number of an image below {count} for each of {} texts, at least one",
            texts.dim(0)?
        );
        return Err(Error::Setting(problem));
    }
    let mut own_texts = vec![Vec::new(); count];
    for (text, &owner) in owners.iter().enumerate() {
        own_texts.get_mut(owner).into_iter().for_each(|texts| texts.push(text));
    }
    let own_images: Vec<Vec<usize>> = owners.iter().map(|&owner| vec![owner]).collect();
    Ok(RetrievalScores {
        text_to_image: shares(&best_ranks(texts, images, &own_images)?),
        image_to_text: shares(&best_ranks(images, texts, &own_texts)?),
    })
}

/// For each of `queries` with a correct result among `keys`, how many others rank above the best of those.
fn best_ranks(queries: &Tensor, keys: &Tensor, right: &[Vec<usize>]) -> Result<Vec<usize>> {
    let keys = keys.to_device(&Device::Cpu)?.t()?.contiguous()?;
    let mut ranks = Vec::with_capacity(right.len());
    for (chunk, right) in right.chunks(QUERIES_AT_A_TIME).enumerate() {
        let queries = queries.narrow(0, chunk * QUERIES_AT_A_TIME, right.len())?.to_device(&Device::Cpu)?;
        for (scores, right) in queries.matmul(&keys)?.to_vec2::<f32>()?.iter().zip(right) {
            if scores.iter().any(|score| score.is_nan()) {
                return Err(Error::Setting("retrieval: a vector holds NaN or infinity".to_owned()));
            }
            ranks.extend(right.iter().map(|&place| before(scores, place)).min());
        }
    }
    Ok(ranks)
}

/// How many scores rank above that at `place`.
fn before(scores: &[f32], place: usize) -> usize {
    let own = scores.get(place).copied().unwrap_or(f32::NEG_INFINITY);
    let is_before = |&(other, &score): &(usize, &f32)| score > own || (score == own && other < place);
    scores.iter().enumerate().filter(is_before).count()
}

/// The shares of ranks below each of [`RECALLS`].
fn shares(ranks: &[usize]) -> [f64; RECALLS.len()] {
    RECALLS.map(|k| ranks.iter().filter(|&&rank| rank < k).count() as f64 / ranks.len().max(1) as f64)
}
