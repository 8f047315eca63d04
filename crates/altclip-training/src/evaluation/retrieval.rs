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
    let own = Owners::new(images.dim(0)?, texts.dim(0)?, owners)?;
    Ok(RetrievalScores {
        text_to_image: shares(&best_ranks(texts, images, &own.images, cosine_ranks)?),
        image_to_text: shares(&best_ranks(images, texts, &own.texts, cosine_ranks)?),
    })
}

/// Like [`retrieval`], by similarities of any kind.
///
/// * `text_to_image` and `image_to_text`, (images, texts): by which images are found, and texts
///
/// # Errors
/// Like [`retrieval`].
pub fn retrieval_by_scores(
    text_to_image: &Tensor,
    image_to_text: &Tensor,
    owners: &[usize],
) -> Result<RetrievalScores> {
    let own = Owners::new(image_to_text.dim(0)?, image_to_text.dim(1)?, owners)?;
    let ranks = |scores: &Tensor, right: &[Vec<usize>]| -> Result<Vec<usize>> {
        let mut ranks = Vec::with_capacity(right.len());
        rank_all(0, scores.to_vec2()?, right, cosine_ranks, &mut ranks)?;
        Ok(ranks)
    };
    Ok(RetrievalScores {
        text_to_image: shares(&ranks(&text_to_image.t()?, &own.images)?),
        image_to_text: shares(&ranks(image_to_text, &own.texts)?),
    })
}

/// Like [`retrieval`], in two steps: the `top` nearest are ranked again by the sum of their cosine and `score`, which
/// gets pairs (image, text) and returns a number for each; the others follow in their order. So does the evaluation of
/// R2D2, <https://arxiv.org/abs/2205.03860>, with `top` 64.
///
/// # Errors
/// Like [`retrieval`]; also if `score` fails.
pub fn reranked_retrieval<E: From<Error>>(
    images: &Tensor,
    texts: &Tensor,
    owners: &[usize],
    top: usize,
    mut score: impl FnMut(&[(usize, usize)]) -> Result<Vec<f32>, E>,
) -> Result<RetrievalScores, E> {
    let own = Owners::new(images.dim(0).map_err(Error::from)?, texts.dim(0).map_err(Error::from)?, owners)?;
    let mut ranked = |query: usize,
                      cosines: &[f32],
                      right: &[usize],
                      pair: fn(usize, usize) -> (usize, usize)|
     -> Result<usize, E> {
        let mut nearest: Vec<usize> = (0..cosines.len()).collect();
        nearest.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]));
        let chosen = top.min(nearest.len());
        let pairs: Vec<_> = nearest[..chosen].iter().map(|&key| pair(query, key)).collect();
        let scores = score(&pairs)?;
        // The sort is stable, so that ties keep the order of the cosines.
        let sums: Vec<f32> = nearest.iter().zip(scores).map(|(&key, score)| cosines[key] + score).collect();
        let mut order: Vec<usize> = (0..sums.len()).collect();
        order.sort_by(|&a, &b| sums[b].total_cmp(&sums[a]));
        let again: Vec<usize> = order.into_iter().map(|place| nearest[place]).collect();
        nearest[..again.len()].copy_from_slice(&again);
        Ok(nearest.iter().position(|key| right.contains(key)).unwrap_or(nearest.len()))
    };
    Ok(RetrievalScores {
        text_to_image: shares(&best_ranks(texts, images, &own.images, |query, cosines, right| {
            ranked(query, cosines, right, |text, image| (image, text))
        })?),
        image_to_text: shares(&best_ranks(images, texts, &own.texts, |query, cosines, right| {
            ranked(query, cosines, right, |image, text| (image, text))
        })?),
    })
}

/// Which texts belong to which images.
struct Owners {
    /// Of each text.
    images: Vec<Vec<usize>>,
    /// Of each image.
    texts: Vec<Vec<usize>>,
}

impl Owners {
    fn new(count: usize, texts: usize, owners: &[usize]) -> Result<Self> {
        if texts != owners.len() || owners.iter().any(|&owner| owner >= count) || owners.is_empty() {
            let problem = format!(
                "retrieval: expected the number of an image below {count} for each of {texts} texts, at least one"
            );
            return Err(Error::Setting(problem));
        }
        let mut own_texts = vec![Vec::new(); count];
        for (text, &owner) in owners.iter().enumerate() {
            own_texts.get_mut(owner).into_iter().for_each(|texts| texts.push(text));
        }
        let own_images: Vec<Vec<usize>> = owners.iter().map(|&owner| vec![owner]).collect();
        Ok(Self { images: own_images, texts: own_texts })
    }
}

/// For each of `queries` with a correct result among `keys`, how many others rank above the best of those; `rank` says
/// so from the query's number, its cosines and the correct results.
fn best_ranks<E: From<Error>>(
    queries: &Tensor,
    keys: &Tensor,
    right: &[Vec<usize>],
    mut rank: impl FnMut(usize, &[f32], &[usize]) -> Result<usize, E>,
) -> Result<Vec<usize>, E> {
    let keys = keys.to_device(&Device::Cpu).and_then(|keys| keys.t()?.contiguous()).map_err(Error::from)?;
    let mut ranks = Vec::with_capacity(right.len());
    for (chunk, right) in right.chunks(QUERIES_AT_A_TIME).enumerate() {
        let first = chunk * QUERIES_AT_A_TIME;
        let cosines =
            || queries.narrow(0, first, right.len())?.to_device(&Device::Cpu)?.matmul(&keys)?.to_vec2();
        rank_all(first, cosines().map_err(Error::from)?, right, &mut rank, &mut ranks)?;
    }
    Ok(ranks)
}

/// Adds the ranks of the queries from `first` on, those with a correct result, to `ranks`.
fn rank_all<E: From<Error>>(
    first: usize,
    scores: Vec<Vec<f32>>,
    right: &[Vec<usize>],
    mut rank: impl FnMut(usize, &[f32], &[usize]) -> Result<usize, E>,
    ranks: &mut Vec<usize>,
) -> Result<(), E> {
    for ((query, scores), right) in (first..).zip(scores).zip(right) {
        if scores.iter().any(|score| score.is_nan()) {
            return Err(Error::Setting("retrieval: a vector holds NaN or infinity".to_owned()).into());
        }
        if !right.is_empty() {
            ranks.push(rank(query, &scores, right)?);
        }
    }
    Ok(())
}

/// By the cosines alone.
fn cosine_ranks(_: usize, cosines: &[f32], right: &[usize]) -> Result<usize> {
    Ok(right.iter().map(|&place| before(cosines, place)).min().unwrap_or(cosines.len()))
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
