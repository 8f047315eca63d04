//! Computes the gate of a GEGLU feed-forward, and its gradient.

use super::elementwise::{CHUNK, gelu, gelu_derivative};
use super::simd::vectorized;
use rayon::prelude::*;

/// GEGLU's gate: rows of `2 n` values to rows of `n`.
pub(crate) fn geglu(x: &[f32], n: usize) -> Vec<f32> {
    let mut out = vec![0f32; x.len() / 2];
    if n == 0 {
        return out;
    }
    out.par_chunks_mut(n).zip(x.par_chunks(2 * n)).with_min_len(CHUNK / n / 4 + 1).for_each(|(out, x)| {
        let (value, gate) = x.split_at(n);
        vectorized(
            #[inline(always)]
            || out.iter_mut().zip(value.iter().zip(gate)).for_each(|(out, (v, &g))| *out = v * gelu(g)),
        );
    });
    out
}

/// The gradient of [`geglu`]'s input.
pub(crate) fn geglu_gradient(x: &[f32], grad: &[f32], n: usize) -> Vec<f32> {
    let mut out = vec![0f32; x.len()];
    if n == 0 {
        return out;
    }
    out.par_chunks_mut(2 * n).zip(x.par_chunks(2 * n).zip(grad.par_chunks(n))).for_each(
        |(out, (x, grad))| {
            let (value, gate) = x.split_at(n);
            let (out_value, out_gate) = out.split_at_mut(n);
            vectorized(
                #[inline(always)]
                || {
                    for i in 0..n {
                        out_value[i] = grad[i] * gelu(gate[i]);
                        out_gate[i] = grad[i] * value[i] * gelu_derivative(gate[i]);
                    }
                },
            );
        },
    );
    out
}
