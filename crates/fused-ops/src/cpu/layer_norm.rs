//! Normalises rows, with the gradients.

use super::output::written;
use super::simd::vectorized;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Rows per task.
const ROWS_PER_TASK: usize = 16;

/// Mean and reciprocal deviation of a row.
#[inline(always)]
fn row_statistics(row: &[f32], eps: f64) -> (f32, f32) {
    let n = row.len() as f32;
    let mean = lane_sum(row, |x| x) / n;
    let variance = lane_sum(row, |x| (x - mean) * (x - mean)) / n;
    (mean, (1. / (f64::from(variance) + eps).sqrt()) as f32)
}

/// A sum in sixteen independent lanes, which vectorizes and is more precise than one running sum.
#[inline(always)]
fn lane_sum(row: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    let chunks = row.chunks_exact(16);
    let rest: f32 = chunks.remainder().iter().map(|&x| f(x)).sum();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// [`lane_sum`] over pairs of values.
#[inline(always)]
fn lane_sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0f32; 16];
    let (a_chunks, b_chunks) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    let rest: f32 = rest.map(|(&a, &b)| f(a, b)).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += f(a, b);
        }
    }
    lanes.iter().sum::<f32>() + rest
}

/// Layer normalisation of every row of `weight.len()` values.
pub(crate) fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f64) -> Vec<f32> {
    let size = weight.len();
    assert!(bias.len() == size && x.len().is_multiple_of(size.max(1)));
    let task = (ROWS_PER_TASK * size).max(1);
    let write = |out: &mut [MaybeUninit<f32>]| {
        out.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(out, x)| {
            vectorized(
                #[inline(always)]
                || {
                    for (out, x) in out.chunks_exact_mut(size).zip(x.chunks_exact(size)) {
                        let (mean, inverse) = row_statistics(x, eps);
                        for ((out, x), (w, b)) in out.iter_mut().zip(x).zip(weight.iter().zip(bias)) {
                            out.write((x - mean) * inverse * w + b);
                        }
                    }
                },
            );
        });
    };
    // SAFETY: whole rows, each as long as weight and bias, are written.
    unsafe { written(x.len(), write) }
}

/// The gradients of [`layer_norm`]'s input, weight and bias, by the formula of [`Groups::backward`](super::group_norm::Groups::backward).
pub(crate) fn layer_norm_gradient(
    x: &[f32],
    weight: &[f32],
    eps: f64,
    grad: &[f32],
) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
    let size = weight.len();
    let mut out = vec![0f32; x.len()];
    let task = (ROWS_PER_TASK * size).max(1);
    let jobs = out.par_chunks_mut(task).zip(x.par_chunks(task).zip(grad.par_chunks(task)));
    let parts: Vec<(Vec<f32>, Vec<f32>)> = jobs
        .map(|(out, (x, grad))| {
            let mut grad_weight = vec![0f32; size];
            let mut grad_bias = vec![0f32; size];
            vectorized(
                #[inline(always)]
                || {
                    let rows = out.chunks_exact_mut(size).zip(x.chunks_exact(size));
                    for ((out, x), grad) in rows.zip(grad.chunks_exact(size)) {
                        let (mean, inverse) = row_statistics(x, eps);
                        // Separate loops over few slices: a single one would not vectorize.
                        grad_bias.iter_mut().zip(grad).for_each(|(sum, g)| *sum += g);
                        for (sum, (g, x)) in grad_weight.iter_mut().zip(grad.iter().zip(x)) {
                            *sum += g * (x - mean) * inverse;
                        }
                        out.iter_mut().zip(grad.iter().zip(weight)).for_each(|(out, (g, w))| *out = g * w);
                        let mean_g = lane_sum(out, |g| g) / size as f32;
                        let mean_gx = lane_sum2(out, x, |g, x| g * (x - mean) * inverse) / size as f32;
                        for (out, x) in out.iter_mut().zip(x) {
                            *out = inverse * (*out - mean_g - (x - mean) * inverse * mean_gx);
                        }
                    }
                },
            );
            (grad_weight, grad_bias)
        })
        .collect();
    let (mut grad_weight, mut grad_bias) = (vec![0f32; size], vec![0f32; size]);
    for (weight, bias) in parts {
        grad_weight.iter_mut().zip(weight).for_each(|(sum, x)| *sum += x);
        grad_bias.iter_mut().zip(bias).for_each(|(sum, x)| *sum += x);
    }
    (out, grad_weight, grad_bias)
}
