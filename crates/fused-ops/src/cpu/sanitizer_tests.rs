//! Tests for sanitizers: compares every kernel with naive loops, on shapes so small that an interpreter is fast enough.

use super::attention::attention;
use super::attention_gradient::{AttentionInputs, attention_gradients};
use super::conv2d::Geometry;
use super::elementwise::{gelu, map, map2, silu};
use super::epilogue::{Shift, SliceEpilogue};
use super::geglu::{geglu, geglu_gradient};
use super::group_norm::Groups;
use super::int8::{self, Int8Weight};
use super::layer_norm::{layer_norm, layer_norm_gradient};
use super::linear_geglu::linear_geglu;
use super::lines;
use super::matmul::gather_product;
use super::matmul_gradient::{column_sums, gather_gradient};
use super::pack::{FactorSize, Panels, Strides};
use super::packed_weight::PackedWeight;
use super::quantized::QuantizedWeight;
use super::shift_channels::shift_channels;
use super::window::Window;
use crate::shapes::{Activation, BlockType, Conv2dOptions, Heads, Padding, Span};
use std::sync::OnceLock;
use test_support::{Random, assert_each_close};

/// Sums of a few dozen products of order one, in another order.
const TOLERANCE: f64 = 1e-4;

#[track_caller]
fn assert_close(found: &[f32], expected: &[f32]) {
    assert_each_close("sums", found, expected, TOLERANCE);
}

/// `left · right` of (rows, depth) and (depth, columns).
fn product(left: &[f32], right: &[f32], depth: usize, columns: usize) -> Vec<f32> {
    let row = |row: &[f32]| -> Vec<f32> {
        let column = |column| (0..depth).map(|k| row[k] * right[k * columns + column]).sum();
        (0..columns).map(column).collect()
    };
    left.chunks_exact(depth).flat_map(row).collect()
}

fn by_rows(right: &[f32], depth: usize, columns: usize) -> Panels {
    Panels::pack(right, 1, depth, columns, Strides { tap: 0, depth: columns, column: 1 })
}

#[test]
fn products_with_what_follows() {
    let mut random = Random::new(1);
    for (rows, depth, columns) in [(1, 1, 1), (13, 5, 16), (7, 3, 37), (5, 512, 3)] {
        let (left, right) = (random.values(rows * depth), random.values(depth * columns));
        let (bias, residual) = (random.values(columns), random.values(rows * columns));
        let epilogue = SliceEpilogue {
            bias: Some(&bias),
            shift: Some(Shift { values: &bias, rows_per_image: rows }),
            residual: Some(&residual),
            activation: Some(Activation::Silu),
        };
        let panels = by_rows(&right, depth, columns);
        assert_close(&panels.unpack(), &right);
        let found = gather_product(&left, rows, &Window::Same, &panels, &epilogue);
        let expected: Vec<f32> = product(&left, &right, depth, columns)
            .iter()
            .enumerate()
            .map(|(i, value)| silu(value + 2. * bias[i % columns] + residual[i]))
            .collect();
        assert_close(&found, &expected);
    }
}

#[test]
fn gated_products() {
    let mut random = Random::new(2);
    let (rows, depth, columns) = (7, 5, 32);
    let (left, right) = (random.values(rows * depth), random.values(depth * 2 * columns));
    let bias = random.values(2 * columns);
    let panels = by_rows(&right, depth, 2 * columns);
    let found = linear_geglu(&left, rows, &panels, Some(&bias));
    let both: Vec<f32> = product(&left, &right, depth, 2 * columns)
        .iter()
        .enumerate()
        .map(|(i, value)| value + bias[i % (2 * columns)])
        .collect();
    let gated = geglu(&both, columns);
    assert_close(&found, &gated);
    let expected: Vec<f32> = both
        .chunks_exact(2 * columns)
        .flat_map(|row| (0..columns).map(|i| row[i] * gelu(row[columns + i])).collect::<Vec<_>>())
        .collect();
    assert_close(&gated, &expected);
    assert_eq!(geglu_gradient(&both, &gated, columns).len(), both.len());
}

#[test]
fn gradients_of_weights_and_biases() {
    let mut random = Random::new(3);
    for (rows, depth, columns) in [(1, 1, 1), (5, 3, 7), (131, 50, 17)] {
        let (left, grad) = (random.values(rows * depth), random.values(rows * columns));
        let mut found = vec![0f32; depth * columns];
        gather_gradient(&left, depth, 1, &Window::Same, &grad, columns, &mut found);
        let transposed: Vec<f32> =
            (0..depth).flat_map(|k| (0..rows).map(|row| left[row * depth + k]).collect::<Vec<_>>()).collect();
        assert_close(&found, &product(&transposed, &grad, rows, columns));
        assert_close(&column_sums(&grad, columns), &product(&vec![1.; rows], &grad, rows, columns));
    }
}

/// The attention weights of one query of a head.
fn weights(query: &[f32], keys: &[&[f32]], bias: &[f32], seen: usize) -> Vec<f32> {
    let scale = 1. / (query.len() as f32).sqrt();
    let score = |(i, key): (usize, &&[f32])| {
        let product: f32 = query.iter().zip(*key).map(|(a, b)| a * b).sum();
        if i < seen { (product * scale + bias[i]).exp() } else { 0. }
    };
    let exponentials: Vec<f32> = keys.iter().enumerate().map(score).collect();
    let sum: f32 = exponentials.iter().sum();
    exponentials.iter().map(|value| value / sum).collect()
}

#[test]
fn attention_and_its_gradients() {
    let mut random = Random::new(4);
    for (queries, keys, dim, causal) in [(1, 1, 1, false), (3, 5, 4, false), (5, 5, 3, true)] {
        let heads = Heads { count: 2, dim, causal };
        let width = heads.width();
        let (query, key, value) = (
            random.values(2 * queries * width),
            random.values(2 * keys * width),
            random.values(2 * keys * width),
        );
        let bias = random.values(2 * keys);
        let spans = Span::batch(2, queries, keys);
        let found = attention(&query, &key, &value, Some(&bias), heads, &spans);
        let mut expected = vec![0f32; found.len()];
        for (image, head, row) in
            (0..2).flat_map(|i| (0..2).flat_map(move |h| (0..queries).map(move |row| (i, h, row))))
        {
            let part =
                |x: &'_ [f32], row: usize| -> Vec<f32> { x[row * width + head * dim..][..dim].to_vec() };
            let all_keys: Vec<Vec<f32>> = (0..keys).map(|k| part(&key, image * keys + k)).collect();
            let all_keys: Vec<&[f32]> = all_keys.iter().map(Vec::as_slice).collect();
            let seen = if causal { row + 1 } else { keys };
            let query = part(&query, image * queries + row);
            let weights = weights(&query, &all_keys, &bias[image * keys..][..keys], seen);
            for (k, weight) in weights.iter().enumerate() {
                for (i, value) in part(&value, image * keys + k).iter().enumerate() {
                    expected[(image * queries + row) * width + head * dim + i] += weight * value;
                }
            }
        }
        assert_close(&found, &expected);

        // Against difference quotients of the randomly weighted sum of all results.
        let grad = random.values(found.len());
        let inputs = AttentionInputs {
            query: &query,
            key: &key,
            value: &value,
            bias: Some(&bias),
            out: &found,
            grad: &grad,
        };
        let [grad_query, grad_key, grad_value] = attention_gradients(inputs, heads, &spans);
        let sum = |query: &[f32], key: &[f32], value: &[f32]| -> f32 {
            let out = attention(query, key, value, Some(&bias), heads, &spans);
            out.iter().zip(&grad).map(|(out, grad)| out * grad).sum()
        };
        const STEP: f32 = 1e-2;
        // Under Miri each quotient takes a second.
        const EACH: usize = if cfg!(miri) { 11 } else { 1 };
        let moved = |x: &[f32], i: usize, by: f32| -> Vec<f32> {
            let mut x = x.to_vec();
            x[i] += by;
            x
        };
        let close = |found: f32, above: f32, below: f32| {
            // The difference quotient's own error: the third derivative times 1e-4, and rounding of small sums over
            // 2e-2.
            let difference = (above - below) / (2. * STEP);
            assert!((found - difference).abs() < 2e-3, "{found}, expected {difference}");
        };
        for (i, &found) in grad_query.iter().enumerate().step_by(EACH) {
            close(
                found,
                sum(&moved(&query, i, STEP), &key, &value),
                sum(&moved(&query, i, -STEP), &key, &value),
            );
        }
        for (i, &found) in grad_key.iter().enumerate().step_by(EACH) {
            close(
                found,
                sum(&query, &moved(&key, i, STEP), &value),
                sum(&query, &moved(&key, i, -STEP), &value),
            );
        }
        for (i, &found) in grad_value.iter().enumerate().step_by(EACH) {
            close(
                found,
                sum(&query, &key, &moved(&value, i, STEP)),
                sum(&query, &key, &moved(&value, i, -STEP)),
            );
        }
    }
}

/// The convolution of (height, width, inputs) by (outputs, inputs, 3, 3) with zero padding.
fn convolution(x: &[f32], weight: &[f32], [height, width, inputs, outputs]: [usize; 4]) -> Vec<f32> {
    let mut out = Vec::new();
    for (y, x_out, output) in
        (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..outputs).map(move |o| (y, x, o))))
    {
        let mut sum = 0.;
        for (input, tap) in (0..inputs).flat_map(|i| (0..9).map(move |tap| (i, tap))) {
            let (row, column) = (y + tap / 3, x_out + tap % 3);
            if (1..=height).contains(&row) && (1..=width).contains(&column) {
                sum += x[((row - 1) * width + column - 1) * inputs + input]
                    * weight[(output * inputs + input) * 9 + tap];
            }
        }
        out.push(sum);
    }
    out
}

#[test]
fn convolutions_and_their_gradients() {
    let mut random = Random::new(5);
    for [height, width, inputs, outputs] in [[1, 1, 1, 1], [3, 5, 3, 2], [4, 4, 2, 17]] {
        let options = Conv2dOptions { stride: 1, padding: Padding::same(1), upsample: false };
        let (in_channels, out_channels) = (inputs, outputs);
        let geometry = Geometry { batch: 1, height, width, in_channels, out_channels, kernel: 3, options };
        let (x, weight) = (random.values(height * width * inputs), random.values(9 * inputs * outputs));
        let panels = geometry.pack(&weight);
        let expected = convolution(&x, &weight, [height, width, inputs, outputs]);
        let nothing = SliceEpilogue::default();
        let packed = PackedWeight::F32(panels);
        assert_close(&geometry.forward(&x, &packed, &nothing), &expected);
        assert_close(&geometry.forward_fast(&x, &packed, &OnceLock::new(), &nothing), &expected);
        // Convolution is linear: its inner product with any gradient equals that of the input with the input's
        // gradient.
        let grad = random.values(expected.len());
        let inner = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
        let of_input = geometry.input_gradient(&weight, &grad);
        let (of_weight, of_bias) = geometry.weight_gradient(&x, &grad);
        let whole = inner(&expected, &grad);
        assert_close(&[inner(&x, &of_input), inner(&weight, &of_weight)], &[whole, whole]);
        assert_close(&of_bias, &column_sums(&grad, outputs));
    }
}

#[test]
fn products_in_int8() {
    let (rows, depth, columns) = (5, 70, 19);
    let values: Vec<i8> = (0..depth * columns).map(|i| (i % 255) as i8).collect();
    let weight = Int8Weight::new(&values, vec![1.; columns], None, [columns, depth]);
    // Integers up to 127 are kept as they are.
    let left: Vec<f32> =
        (0..rows * depth).map(|i| if i % depth == 0 { 127. } else { (i % 9) as f32 }).collect();
    let expected: Vec<f32> = left
        .chunks_exact(depth)
        .flat_map(|row| {
            values
                .chunks_exact(depth)
                .map(|column| row.iter().zip(column).map(|(a, b)| a * f32::from(*b)).sum())
        })
        .collect();
    let found =
        lines::product(int8::engine(), &left, rows, &Window::Same, &weight, &SliceEpilogue::default());
    assert_close(&found, &expected);
}

#[test]
fn normalisations_and_their_gradients() {
    let mut random = Random::new(6);
    let (pixels, channels, groups) = (3, 4, 2);
    let (x, weight, bias) =
        (random.values(2 * pixels * channels), random.values(channels), random.values(channels));
    let norm = Groups { pixels, channels, groups, eps: 1e-5, silu: false };
    let found = norm.forward(&x, &weight, &bias);
    let mut expected = vec![0f32; x.len()];
    for (image, group) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let places: Vec<usize> = (0..pixels)
            .flat_map(|p| [0, 1].map(|c| (image * pixels + p) * channels + 2 * group + c))
            .collect();
        let count = places.len() as f32;
        let mean = places.iter().map(|&i| x[i]).sum::<f32>() / count;
        let variance = places.iter().map(|&i| (x[i] - mean).powi(2)).sum::<f32>() / count;
        for &i in &places {
            expected[i] =
                (x[i] - mean) / (variance + 1e-5).sqrt() * weight[i % channels] + bias[i % channels];
        }
    }
    assert_close(&found, &expected);
    let with_silu = Groups { silu: true, ..norm };
    let activated: Vec<f32> = expected.iter().map(|&value| silu(value)).collect();
    assert_close(&with_silu.forward(&x, &weight, &bias), &activated);
    // Adding a constant to a group changes nothing, so its gradients sum to zero.
    let (grad_x, grad_weight, grad_bias) = norm.backward(&x, &weight, &bias, &expected);
    assert_close(&[grad_x.iter().sum()], &[0.]);
    assert_eq!((grad_weight.len(), grad_bias.len()), (channels, channels));

    let rows = layer_norm(&x, &weight, &bias, 1e-5);
    for (row, x) in rows.chunks_exact(channels).zip(x.chunks_exact(channels)) {
        let mean = x.iter().sum::<f32>() / 4.;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 4.;
        let expected: Vec<f32> =
            (0..channels).map(|c| (x[c] - mean) / (variance + 1e-5).sqrt() * weight[c] + bias[c]).collect();
        assert_close(row, &expected);
    }
    let (grad_x, grad_weight, grad_bias) = layer_norm_gradient(&x, &weight, 1e-5, &rows);
    assert_close(&[grad_x.iter().sum()], &[0.]);
    assert_eq!((grad_weight.len(), grad_bias.len()), (channels, channels));
}

#[test]
fn maps_and_shifts() {
    let mut random = Random::new(7);
    let (a, b) = (random.values(33), random.values(33));
    assert_close(&map(&a, silu), &a.iter().map(|&a| silu(a)).collect::<Vec<_>>());
    assert_close(&map2(&a, &b, |a, b| a * b), &a.iter().zip(&b).map(|(a, b)| a * b).collect::<Vec<_>>());
    let shifted: Vec<f32> = (0..33).map(|i| a[i] + b[i / 11]).collect();
    assert_close(&shift_channels(&a, &b[..3], 1), &shifted);
    assert!(shift_channels(&[], &[], 1).is_empty());
}

#[test]
fn quantized_weights() -> candle_core::Result<()> {
    let mut random = Random::new(8);
    let (rows, depth, columns) = (5, 64, 3);
    for kind in [BlockType::Q8_0, BlockType::Q4_0] {
        // Zero scales give zeros, and a block may have any bytes.
        let bytes = vec![0u8; kind.bytes_of(depth).unwrap_or(0) * columns];
        let weight = QuantizedWeight::new(kind, &bytes, FactorSize { taps: 1, depth, columns })?;
        assert_close(&weight.unpack(), &vec![0.; depth * columns]);
        let left = random.values(rows * depth);
        let found = gather_product(&left, rows, &Window::Same, &weight, &SliceEpilogue::default());
        assert_close(&found, &vec![0.; rows * columns]);
    }
    Ok(())
}
