//! Denoises large images in overlapping windows, so that they do not repeat themselves.

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Overlapping windows of a large image. The UNet sees each as an image of its own, and in every step the predictions
/// are averaged where windows overlap (MultiDiffusion, Bar-Tal et al. 2023, <https://arxiv.org/abs/2302.08113>).
///
/// A window's weight rises from its edges over the length of the overlap, so that no edge shows. The reference weighs
/// a window uniformly, and so needs more windows, closer together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[must_use]
pub struct DenoisingWindows {
    /// The side of a window, in latents.
    pub side: usize,
    /// The least number of latents that neighbouring windows share.
    pub overlap: usize,
}

/// A window along one axis.
struct Span {
    start: usize,
    /// The weight of each position.
    weights: Vec<f32>,
}

impl DenoisingWindows {
    /// Windows of `side` × `side` latents, overlapping by half.
    pub fn of_side(side: usize) -> Self {
        Self { side, overlap: side / 2 }
    }

    /// Sets the least number of latents that neighbouring windows share.
    pub fn overlap(self, overlap: usize) -> Self {
        Self { overlap, ..self }
    }

    /// Checks the sizes.
    ///
    /// # Errors
    /// If they are empty, or no larger than their overlap.
    pub(crate) fn check(&self) -> Result<()> {
        if self.side == 0 || self.overlap >= self.side {
            let problem = format!(
                "{} latents that overlap by {}, expected windows larger than their overlap",
                self.side, self.overlap
            );
            return Err(Error::option("denoising windows", problem));
        }
        Ok(())
    }

    /// Merges the predictions of every window of `sample`, (batch, channels, height, width), into (batch, other
    /// channels, height, width).
    pub(crate) fn predict(
        &self,
        sample: &Tensor,
        mut predict: impl FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (_, _, height, width) = sample.dims4()?;
        let (rows, columns) = (self.spans(height), self.spans(width));
        if let ([_], [_]) = (rows.as_slice(), columns.as_slice()) {
            return predict(sample);
        }
        let mut sum: Option<Tensor> = None;
        for row in &rows {
            for column in &columns {
                let (high, wide) = (row.weights.len(), column.weights.len());
                let window =
                    sample.narrow(2, row.start, high)?.narrow(3, column.start, wide)?.contiguous()?;
                let weights = row.weights.iter().flat_map(|y| column.weights.iter().map(move |x| y * x));
                let weights = Tensor::from_iter(weights, sample.device())?.reshape((1, 1, high, wide))?;
                let part = predict(&window)?.to_dtype(DType::F32)?.broadcast_mul(&weights)?;
                let part = part.pad_with_zeros(2, row.start, height - row.start - high)?.pad_with_zeros(
                    3,
                    column.start,
                    width - column.start - wide,
                )?;
                sum = Some(match sum {
                    Some(sum) => (sum + part)?,
                    None => part,
                });
            }
        }
        // There is always one window.
        let sum = sum.ok_or_else(|| Error::option("denoising windows", "none, expected at least one"))?;
        Ok(sum.to_dtype(sample.dtype())?)
    }

    /// Splits `length` into evenly spread windows whose weights add up to 1 everywhere.
    fn spans(&self, length: usize) -> Vec<Span> {
        let side = self.side.min(length);
        let step = side.saturating_sub(self.overlap).max(1);
        let last = length - side;
        let steps = last.div_ceil(step);
        let starts: Vec<usize> = (0..=steps).map(|index| last * index / steps.max(1)).collect();
        let ramp = |place: usize| (place.min(side - 1 - place) + 1).min(self.overlap + 1) as f32;
        let mut sums = vec![0f32; length];
        for start in &starts {
            let places = sums.iter_mut().skip(*start).take(side);
            places.enumerate().for_each(|(place, sum)| *sum += ramp(place));
        }
        let span = |start: usize| {
            let sums = sums.iter().skip(start).take(side);
            Span { start, weights: sums.enumerate().map(|(place, sum)| ramp(place) / sum).collect() }
        };
        starts.into_iter().map(span).collect()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn spans(side: usize, overlap: usize, length: usize) -> Vec<Span> {
        DenoisingWindows::of_side(side).overlap(overlap).spans(length)
    }

    #[test]
    fn windows_cover_every_place_once() {
        for (side, overlap, length) in
            [(8, 4, 8), (8, 4, 9), (8, 4, 40), (8, 7, 21), (8, 0, 20), (1, 0, 3), (8, 4, 3), (64, 32, 129)]
        {
            let mut sums = vec![0f32; length];
            let spans = spans(side, overlap, length);
            for span in &spans {
                assert!(span.start + span.weights.len() <= length);
                span.weights.iter().zip(&mut sums[span.start..]).for_each(|(weight, sum)| *sum += weight);
            }
            assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-6), "{side} {overlap} {length}: {sums:?}");
            let shared = spans.windows(2).map(|pair| pair[0].start + pair[0].weights.len() - pair[1].start);
            assert!(shared.into_iter().all(|shared| shared >= overlap));
        }
    }

    /// Between windows that predict 0 and 1, the result rises linearly.
    #[test]
    fn no_edge_of_a_window_shows() -> Result<()> {
        let sample = Tensor::zeros((1, 1, 8, 12), DType::F32, &Device::Cpu)?;
        let mut count = -1.0;
        let found = DenoisingWindows::of_side(8).predict(&sample, |window| {
            count += 1.0;
            Ok((window.ones_like()? * count)?)
        })?;
        let row = found.flatten_all()?.to_vec1::<f32>()?[..12].to_vec();
        assert_eq!((row[0], row[11]), (0.0, 1.0));
        let largest = row.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f32::max);
        assert!(row.is_sorted() && largest <= 0.25, "{row:?}");
        Ok(())
    }

    #[test]
    fn an_image_of_one_window_is_not_changed() -> Result<()> {
        let sample = Tensor::rand(-1f32, 1., (2, 3, 7, 8), &Device::Cpu)?;
        let found = DenoisingWindows::of_side(8).predict(&sample, |window| Ok(window.clone()))?;
        assert_eq!(found.flatten_all()?.to_vec1::<f32>()?, sample.flatten_all()?.to_vec1::<f32>()?);
        assert!(DenoisingWindows::of_side(0).check().is_err());
        assert!(DenoisingWindows::of_side(4).overlap(4).check().is_err());
        Ok(())
    }
}
