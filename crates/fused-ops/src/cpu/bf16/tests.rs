//! Compares every kernel that this processor supports with products in f64.

use super::engine::{PORTABLE, supported};
use super::line::{Line, Pair};
use super::matrices::{self, Matrices};
use super::{Bf16Weight, attention};
use crate::cpu::conv2d::Geometry;
use crate::cpu::elementwise::gelu;
use crate::cpu::epilogue::{Shift, SliceEpilogue};
use crate::cpu::lines::kernel::Multiply;
use crate::cpu::lines::{Group, Kernel, Products, Rows, linear_geglu, product, two_products};
use crate::cpu::pack::{Panels, Strides};
use crate::cpu::window::Window;
use crate::settings::Instructions;
use crate::shapes::{Activation, Conv2dOptions, Heads, Padding, Span};
use half::bf16;
use test_support::{Random, assert_each_close};

/// Numbers in bf16, for a weight (columns, depth, taps).
fn bf16_values(random: &mut Random, count: usize) -> Vec<bf16> {
    random.values(count).into_iter().map(bf16::from_f32).collect()
}

#[cfg(target_arch = "x86_64")]
static INTERPRETED: Kernel<Pair> = crate::cpu::lines::amx::interpreter::kernel();

static SMALL_MATRICES: Kernel<Pair> = Kernel {
    name: "small matrices",
    instructions: Instructions::Portable,
    is_supported: || true,
    multiply: Multiply::Rows(in_small_matrices),
    operations: None,
};

/// # Safety
/// As for [`Rows`].
unsafe fn in_small_matrices(rows: &Rows<Pair>, right: &[&[Line]], out: &mut [Products<Pair>], stride: usize) {
    // SAFETY: the caller guarantees the rows.
    unsafe { matrices::multiply::<SmallMatrices>(rows, right, out, stride) };
}

/// What Arm's instructions do.
struct SmallMatrices;

impl Matrices for SmallMatrices {
    type Factor = [Pair; 4];
    type Sums = [f32; 4];

    unsafe fn zeros() -> [f32; 4] {
        [0.; 4]
    }

    unsafe fn rows(rows: [*const Pair; 2]) -> [Pair; 4] {
        // SAFETY: the caller guarantees two pairs of each.
        let [[a, b], [c, d]] = rows.map(|row| unsafe { *row.cast::<[Pair; 2]>() });
        [a, b, c, d]
    }

    unsafe fn columns(lines: [*const Pair; 2]) -> [[Pair; 4]; 2] {
        // SAFETY: the caller guarantees four pairs of each.
        let [first, second] = lines.map(|line| unsafe { *line.cast::<[Pair; 4]>() });
        [[first[0], second[0], first[1], second[1]], [first[2], second[2], first[3], second[3]]]
    }

    unsafe fn multiply_add(sums: &mut [f32; 4], left: [Pair; 4], right: [Pair; 4]) {
        for (i, sum) in sums.iter_mut().enumerate() {
            let (row, column) = (&left[i / 2 * 2..][..2], &right[i % 2 * 2..][..2]);
            let pairs = row.iter().zip(column);
            *sum = pairs.fold(*sum, |sum, (left, right)| Pair::multiply_add(sum, *left, *right));
        }
    }

    unsafe fn store([first, second]: [[f32; 4]; 2], [upper, lower]: [*mut f32; 2]) {
        // SAFETY: the caller guarantees four values of each row.
        unsafe {
            *upper.cast::<[f32; 4]>() = [first[0], first[1], second[0], second[1]];
            *lower.cast::<[f32; 4]>() = [first[2], first[3], second[2], second[3]];
        }
    }
}

/// Returns all kernels of this processor and those that tests stand in for, and prints their names.
fn kernels() -> Vec<&'static Kernel<Pair>> {
    let mut kernels: Vec<_> = supported().map(|(kernel, _)| kernel).collect();
    kernels.extend([&PORTABLE, &SMALL_MATRICES]);
    #[cfg(target_arch = "x86_64")]
    kernels.push(&INTERPRETED);
    println!("bf16 kernels that run on this processor: {kernels:?}");
    kernels
}

/// Computes the direct convolution, or with one tap the product, in f64, of `x` rounded to bf16.
fn reference(x: &[f32], rows: usize, window: &Window, weight: &[bf16], size: [usize; 3]) -> Vec<f64> {
    let [taps, depth, columns] = size;
    let mut seen = Vec::new();
    window.gather(0..rows, |row| seen.push(row));
    let mut out = vec![0f64; rows * columns];
    for (row, out) in out.chunks_exact_mut(columns).enumerate() {
        for (tap, place) in seen[row * taps..][..taps].iter().enumerate() {
            let Some(place) = place else { continue };
            for (k, value) in x[place * depth..][..depth].iter().enumerate() {
                let value = bf16::from_f32(*value).to_f64();
                for (column, out) in out.iter_mut().enumerate() {
                    *out += value * weight[(column * depth + k) * taps + tap].to_f64();
                }
            }
        }
    }
    out
}

/// Products of values below 1 are summed in f32, in any order: n partial sums of at most n each have an error of at
/// most 2⁻²⁴ of it, and far less if signs differ.
fn rounding(terms: usize) -> f64 {
    terms as f64 * 2f64.powi(-22) + 1e-6
}

#[test]
fn products_of_any_shape_are_right() {
    let mut random = Random::new(11);
    for [rows, depth, columns] in [
        [1, 1, 1],
        [1, 32, 16],
        [3, 31, 17],
        [13, 33, 33],
        [16, 64, 32],
        [17, 40, 48],
        [32, 512, 16],
        [33, 96, 100],
        [47, 7, 65],
        [100, 320, 64],
        [193, 66, 40],
    ] {
        let (x, weight) = (random.values(rows * depth), bf16_values(&mut random, depth * columns));
        let strides = Strides { tap: 0, depth: 1, column: depth };
        let packed = Bf16Weight::new(&Panels::pack(&weight, 1, depth, columns, strides));
        let expected = reference(&x, rows, &Window::Same, &weight, [1, depth, columns]);
        for kernel in kernels() {
            let found = product(kernel, &x, rows, &Window::Same, &packed, &SliceEpilogue::default());
            assert_each_close(
                &format!("{}: {rows}, {depth}, {columns}", kernel.name),
                &found,
                &expected,
                rounding(depth),
            );
        }
        let unpacked = packed.unpack();
        let is_kept =
            (0..depth * columns).all(|i| unpacked[i] == weight[i % columns * depth + i / columns].to_f32());
        assert!(is_kept, "{depth}, {columns}");
    }
}

#[test]
fn convolutions_of_any_shape_are_right() {
    let mut random = Random::new(11);
    let options = |stride, upsample| Conv2dOptions { stride, padding: Padding::same(1), upsample };
    for (batch, height, width, in_channels, out_channels, options) in [
        (1, 1, 1, 1, 1, options(1, false)),
        (1, 5, 7, 4, 32, options(1, false)),
        (2, 9, 8, 33, 20, options(2, false)),
        (1, 6, 5, 40, 17, options(1, true)),
        (2, 8, 8, 64, 48, options(1, false)),
    ] {
        let geometry = Geometry { batch, height, width, in_channels, out_channels, kernel: 3, options };
        let x = random.values(batch * height * width * in_channels);
        let weight = bf16_values(&mut random, 9 * in_channels * out_channels);
        let packed = Bf16Weight::new(&geometry.pack(&weight));
        let (rows, window) = (geometry.out_pixels(), geometry.source());
        let expected = reference(&x, rows, &window, &weight, [9, in_channels, out_channels]);
        for kernel in kernels() {
            let found = product(kernel, &x, rows, &window, &packed, &SliceEpilogue::default());
            let what = format!("{}: {batch}, {height} × {width}, {in_channels}", kernel.name);
            assert_each_close(&what, &found, &expected, rounding(9 * in_channels));
        }
    }
}

#[test]
fn what_follows_a_product_is_applied_to_it() {
    let mut random = Random::new(11);
    let [rows, depth, columns] = [38, 50, 35];
    let (x, weight) = (random.values(rows * depth), bf16_values(&mut random, depth * columns));
    let (bias, shift, residual) =
        (random.values(columns), random.values(2 * columns), random.values(rows * columns));
    let strides = Strides { tap: 0, depth: 1, column: depth };
    let packed = Bf16Weight::new(&Panels::pack(&weight, 1, depth, columns, strides));
    let epilogue = SliceEpilogue {
        bias: Some(&bias),
        shift: Some(Shift { values: &shift, rows_per_image: rows / 2 }),
        residual: Some(&residual),
        activation: Some(Activation::Silu),
    };
    let mut expected = reference(&x, rows, &Window::Same, &weight, [1, depth, columns]);
    for (place, value) in expected.iter_mut().enumerate() {
        let (row, column) = (place / columns, place % columns);
        let shift = shift[row / (rows / 2) * columns + column];
        *value += f64::from(bias[column] + shift + residual[place]);
        *value /= 1. + (-*value).exp();
    }
    for kernel in kernels() {
        let found = product(kernel, &x, rows, &Window::Same, &packed, &epilogue);
        assert_each_close(kernel.name, &found, &expected, rounding(depth));
    }
}

#[test]
fn two_products_give_the_bits_that_they_give_apart() {
    let mut random = Random::new(11);
    for [rows, depth, inner, columns] in [[1, 1, 1, 1], [37, 48, 70, 40], [100, 33, 512, 17]] {
        let (x, residual) = (random.values(rows * depth), random.values(rows * columns));
        let (bias, next_bias) = (random.values(inner), random.values(columns));
        let mut packed = |depth: usize, columns: usize| {
            let weight = bf16_values(&mut random, depth * columns);
            let strides = Strides { tap: 0, depth: 1, column: depth };
            Bf16Weight::new(&Panels::pack(&weight, 1, depth, columns, strides))
        };
        let (weight, next) = (packed(depth, inner), packed(inner, columns));
        let epilogue =
            SliceEpilogue { activation: Some(Activation::Gelu), ..SliceEpilogue::bias(Some(&bias)) };
        let next_epilogue =
            SliceEpilogue { residual: Some(&residual), ..SliceEpilogue::bias(Some(&next_bias)) };
        for kernel in kernels() {
            let between = product(kernel, &x, rows, &Window::Same, &weight, &epilogue);
            let expected = product(kernel, &between, rows, &Window::Same, &next, &next_epilogue);
            let found = two_products(kernel, &x, rows, (&weight, &epilogue), (&next, &next_epilogue));
            assert!(found == expected, "{}: {rows}, {depth}, {inner}, {columns}", kernel.name);
        }
    }
}

#[test]
fn gates_are_those_of_the_second_half() {
    let mut random = Random::new(11);
    let [rows, depth, columns] = [37, 48, 64];
    let (x, weight, bias) = (
        random.values(rows * depth),
        bf16_values(&mut random, 2 * columns * depth),
        random.values(2 * columns),
    );
    let strides = Strides { tap: 0, depth: 1, column: depth };
    let packed = Bf16Weight::new(&Panels::pack(&weight, 1, depth, 2 * columns, strides));
    let both = reference(&x, rows, &Window::Same, &weight, [1, depth, 2 * columns]);
    let expected: Vec<f64> = both
        .chunks_exact(2 * columns)
        .flat_map(|row| {
            let at = |column: usize| row[column] + f64::from(bias[column]);
            (0..columns)
                .map(move |column| at(column) * f64::from(gelu(at(columns + column) as f32)))
                .collect::<Vec<_>>()
        })
        .collect();
    for kernel in kernels() {
        let found = linear_geglu(kernel, &x, rows, &packed, Some(&bias));
        // Values up to 10 multiply the error of their gate.
        assert_each_close(kernel.name, &found, &expected, rounding(20 * depth));
    }
}

/// Computes attention in f64, of query, key and value rounded to bf16: (queries, width).
fn attended(
    [query, key, value]: [&[f32]; 3],
    bias: Option<&[f32]>,
    heads: Heads,
    spans: &[Span],
) -> Vec<f64> {
    let (width, scale) = (heads.width(), 1. / (heads.dim as f64).sqrt());
    let at = |values: &[f32], row: usize, head: usize, i: usize| {
        bf16::from_f32(values[row * width + head * heads.dim + i]).to_f64()
    };
    let mut out = vec![0f64; query.len()];
    for span in spans {
        for (row, head) in (0..span.queries).flat_map(|row| (0..heads.count).map(move |head| (row, head))) {
            let seen = heads.seen_keys(span.keys, row);
            let weight = |k: usize| {
                let key_row = span.first_key + k;
                let score: f64 = (0..heads.dim)
                    .map(|i| at(query, span.first_query + row, head, i) * at(key, key_row, head, i))
                    .sum();
                (score * scale + bias.map_or(0., |bias| f64::from(bias[key_row]))).exp()
            };
            let weights: Vec<f64> = (0..seen).map(weight).collect();
            let total: f64 = weights.iter().sum();
            for i in 0..heads.dim {
                let values = weights.iter().enumerate();
                let sum: f64 =
                    values.map(|(k, weight)| weight * at(value, span.first_key + k, head, i)).sum();
                out[(span.first_query + row) * width + head * heads.dim + i] = sum / total;
            }
        }
    }
    out
}

/// A result is a mean of values below 1 whose weights have a relative error of 2⁻⁹ each, so its error is at most 2⁻⁹.
#[test]
fn attention_is_right() {
    let mut random = Random::new(11);
    for (count, dim, causal, lengths) in [
        (1, 8, false, [1, 1]),
        (2, 40, false, [7, 200]),
        (3, 64, true, [130, 130]),
        (1, 80, false, [97, 257]),
        (2, 33, true, [5, 5]),
        (1, 160, false, [40, 64]),
    ] {
        let heads = Heads { count, dim, causal };
        let [queries, keys] = lengths;
        let spans = Span::batch(2, queries, keys);
        let query = random.values(2 * queries * heads.width());
        let (key, value) = (random.values(2 * keys * heads.width()), random.values(2 * keys * heads.width()));
        let biases: Vec<f32> = random
            .values(2 * keys)
            .into_iter()
            .enumerate()
            .map(|(k, bias)| if k % keys == 1 { f32::NEG_INFINITY } else { bias })
            .collect();
        for bias in [None, Some(biases.as_slice())] {
            let expected = attended([&query, &key, &value], bias, heads, &spans);
            for kernel in kernels() {
                let found = attention(kernel, [&query, &key, &value], bias, heads, &spans);
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(&expected) {
                    let difference = (f64::from(*found) - expected).abs();
                    assert!(
                        difference < 1. / 512. + 1e-5,
                        "{}: {heads:?}, {lengths:?}: {found}, expected {expected}",
                        kernel.name
                    );
                }
            }
        }
    }
}
