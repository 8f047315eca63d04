//! Normalizes groups of channels, reading once for the statistics and once for the values, and computes the
//! gradients.

use super::elementwise::{silu, silu_derivative};
use super::output::written;
use super::simd::vectorized;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Pixels per statistics task: they fit the L1 cache at these models' channel counts.
const PIXELS_PER_TASK: usize = 32;

/// Mean and reciprocal standard deviation per group and image.
pub(crate) struct Statistics {
    /// (batch, groups)
    pub(crate) mean: Vec<f32>,
    pub(crate) inverse_deviation: Vec<f32>,
}

/// The shape of a group normalisation over (batch, pixels, channels).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups {
    pub(crate) pixels: usize,
    pub(crate) channels: usize,
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    pub(crate) silu: bool,
}

impl Groups {
    /// Takes sums and centred squares per channel over a few pixels and merges them in f64 (Chan et al.), so that a
    /// mean far from zero does not cost precision.
    pub(crate) fn statistics(&self, x: &[f32]) -> Statistics {
        let (channels, size) = (self.channels, self.channels / self.groups);
        let image = self.pixels * channels;
        let part = |pixels: &[f32]| -> Vec<(f64, f64, f64)> {
            let count = (pixels.len() / channels) as f32;
            let mut means = vec![0f32; channels];
            let mut squares = vec![0f32; channels];
            vectorized(
                #[inline(always)]
                || {
                    for pixel in pixels.chunks_exact(channels) {
                        means.iter_mut().zip(pixel).for_each(|(sum, x)| *sum += x);
                    }
                    means.iter_mut().for_each(|sum| *sum /= count);
                    for pixel in pixels.chunks_exact(channels) {
                        for ((square, x), mean) in squares.iter_mut().zip(pixel).zip(&means) {
                            *square += (x - mean) * (x - mean);
                        }
                    }
                },
            );
            let groups = means.chunks_exact(size).zip(squares.chunks_exact(size));
            groups
                .map(|(means, squares)| {
                    let parts = means.iter().zip(squares);
                    merge(
                        parts.map(|(&mean, &square)| (f64::from(count), f64::from(mean), f64::from(square))),
                    )
                })
                .collect()
        };
        let per_image: Vec<Vec<(f64, f64)>> = x
            .par_chunks(image)
            .map(|image| {
                let parts: Vec<_> = image.par_chunks(PIXELS_PER_TASK * channels).map(part).collect();
                (0..self.groups)
                    .map(|group| {
                        let (count, mean, square) = merge(parts.iter().map(|part| part[group]));
                        (mean, 1. / (square / count + self.eps).sqrt())
                    })
                    .collect()
            })
            .collect();
        let all = per_image.iter().flatten();
        Statistics {
            mean: all.clone().map(|s| s.0 as f32).collect(),
            inverse_deviation: all.map(|s| s.1 as f32).collect(),
        }
    }

    /// Factor and offset for each channel of one image that normalise and scale it.
    fn affine(
        &self,
        statistics: &Statistics,
        image: usize,
        weight: &[f32],
        bias: &[f32],
    ) -> (Vec<f32>, Vec<f32>) {
        let size = self.channels / self.groups;
        (0..self.channels)
            .map(|channel| {
                let group = image * self.groups + channel / size;
                let factor = statistics.inverse_deviation[group] * weight[channel];
                (factor, bias[channel] - statistics.mean[group] * factor)
            })
            .unzip()
    }

    pub(crate) fn forward(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        if x.is_empty() {
            return Vec::new();
        }
        let statistics = self.statistics(x);
        let channels = self.channels;
        let image = self.pixels * channels;
        assert!(x.len().is_multiple_of(image));
        let write = |out: &mut [MaybeUninit<f32>]| {
            out.par_chunks_mut(image).zip(x.par_chunks(image)).enumerate().for_each(|(i, (out, x))| {
                let (factor, summand) = self.affine(&statistics, i, weight, bias);
                let task = PIXELS_PER_TASK * channels;
                out.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(out, x)| {
                    vectorized(
                        #[inline(always)]
                        || {
                            for (out, x) in out.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                                let affine = factor.iter().zip(&summand);
                                if self.silu {
                                    for ((out, x), (f, s)) in out.iter_mut().zip(x).zip(affine) {
                                        out.write(silu(x * f + s));
                                    }
                                } else {
                                    for ((out, x), (f, s)) in out.iter_mut().zip(x).zip(affine) {
                                        out.write(x * f + s);
                                    }
                                }
                            }
                        },
                    );
                });
            });
        };
        // SAFETY: whole pixels, for whose channels `affine` has as many values, are written.
        unsafe { written(x.len(), write) }
    }

    /// The gradients of input, weight and bias.
    ///
    /// With the normalised value `x̂` and `g = grad · weight`, the input's gradient is
    /// `(g − mean(g) − x̂ · mean(g · x̂)) / deviation`, with means over the group.
    pub(crate) fn backward(
        &self,
        x: &[f32],
        weight: &[f32],
        bias: &[f32],
        grad: &[f32],
    ) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let mut out = vec![0f32; x.len()];
        let (channels, size) = (self.channels, self.channels / self.groups);
        if x.is_empty() {
            return (out, vec![0.; channels], vec![0.; channels]);
        }
        let statistics = self.statistics(x);
        let image = self.pixels * channels;
        let jobs = out.par_chunks_mut(image).zip(x.par_chunks(image).zip(grad.par_chunks(image))).enumerate();
        let parts: Vec<(Vec<f32>, Vec<f32>)> = jobs
            .map(|(i, (out, (x, grad)))| {
                let (factor, summand) = self.affine(&statistics, i, weight, bias);
                let group = |channel: usize| i * self.groups + channel / size;
                let mean: Vec<f32> = (0..channels).map(|c| statistics.mean[group(c)]).collect();
                let inverse: Vec<f32> =
                    (0..channels).map(|c| statistics.inverse_deviation[group(c)]).collect();
                let mut grad_weight = vec![0f32; channels];
                let mut grad_bias = vec![0f32; channels];
                vectorized(
                    #[inline(always)]
                    || {
                        // `out` first holds the gradient before the activation.
                        let rows = out.chunks_exact_mut(channels).zip(x.chunks_exact(channels));
                        for ((out, x), grad) in rows.zip(grad.chunks_exact(channels)) {
                            // Separate loops over few slices: a single one would not vectorize.
                            out.copy_from_slice(grad);
                            if self.silu {
                                let affine = factor.iter().zip(&summand);
                                for ((out, x), (f, s)) in out.iter_mut().zip(x).zip(affine) {
                                    *out *= silu_derivative(x * f + s);
                                }
                            }
                            grad_bias.iter_mut().zip(&*out).for_each(|(sum, g)| *sum += g);
                            let terms = out.iter().zip(x).zip(&mean);
                            for (sum, ((g, x), mean)) in grad_weight.iter_mut().zip(terms) {
                                *sum += g * (x - mean);
                            }
                        }
                        grad_weight.iter_mut().zip(&inverse).for_each(|(sum, inverse)| *sum *= inverse);
                    },
                );
                let count = (self.pixels * size) as f32;
                let mut mean_g = vec![0f32; channels];
                let mut mean_gx = vec![0f32; channels];
                for first in (0..channels).step_by(size) {
                    let range = first..first + size;
                    let sum = |values: &[f32]| -> f32 {
                        range.clone().map(|c| values[c] * weight[c]).sum::<f32>() / count
                    };
                    let (g, gx) = (sum(&grad_bias), sum(&grad_weight));
                    mean_g[range.clone()].fill(g);
                    mean_gx[range].fill(gx);
                }
                vectorized(
                    #[inline(always)]
                    || {
                        // inverse · (g · weight − mean_g − (x − mean) · inverse · mean_gx) = g · a − x · b − c
                        let channel = |c: usize| {
                            let slope = inverse[c] * inverse[c] * mean_gx[c];
                            (inverse[c] * weight[c], slope, inverse[c] * mean_g[c] - mean[c] * slope)
                        };
                        let a: Vec<f32> = (0..channels).map(|c| channel(c).0).collect();
                        let b: Vec<f32> = (0..channels).map(|c| channel(c).1).collect();
                        let c: Vec<f32> = (0..channels).map(|c| channel(c).2).collect();
                        for (out, x) in out.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                            let factors = a.iter().zip(&b).zip(&c);
                            for ((out, x), ((a, b), c)) in out.iter_mut().zip(x).zip(factors) {
                                *out = *out * a - x * b - c;
                            }
                        }
                    },
                );
                (grad_weight, grad_bias)
            })
            .collect();
        let (mut grad_weight, mut grad_bias) = (vec![0f32; channels], vec![0f32; channels]);
        for (weight, bias) in parts {
            grad_weight.iter_mut().zip(weight).for_each(|(sum, x)| *sum += x);
            grad_bias.iter_mut().zip(bias).for_each(|(sum, x)| *sum += x);
        }
        (out, grad_weight, grad_bias)
    }
}

/// Merges (count, mean, sum of centred squares) of disjoint samples.
fn merge(parts: impl Iterator<Item = (f64, f64, f64)>) -> (f64, f64, f64) {
    parts.fold((0., 0., 0.), |(n, mean, square), (m, other, other_square)| {
        let delta = other - mean;
        let total = n + m;
        (total, mean + delta * m / total, square + other_square + delta * delta * n * m / total)
    })
}
