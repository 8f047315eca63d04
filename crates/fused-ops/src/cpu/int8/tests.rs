//! Compares every kernel that this processor supports with products of integers, bit by bit, and with products in f64
//! within what rounding may cost.

use super::engine::{PORTABLE, supported};
use super::{Int8Weight, Quad, quantize_row};
use crate::cpu::conv2d::Geometry;
use crate::cpu::elementwise::gelu;
use crate::cpu::epilogue::SliceEpilogue;
use crate::cpu::lines::{Kernel, linear_geglu, product};
use crate::cpu::pack::{Factor, FactorPart};
use crate::cpu::window::Window;
use crate::shapes::{Activation, Conv2dOptions, Padding};
use test_support::{Random, assert_each_close};

/// Rows, depth and columns: of one, around whole lines and tiles, and beyond.
const SHAPES: [[usize; 3]; 11] = [
    [1, 1, 1],
    [1, 64, 16],
    [3, 63, 17],
    [13, 65, 33],
    [16, 128, 32],
    [17, 40, 48],
    [32, 1024, 16],
    [33, 96, 100],
    [47, 7, 65],
    [100, 320, 64],
    [193, 130, 40],
];

/// Numbers in int8, with a scale for each row.
struct Rounded {
    values: Vec<i8>,
    scales: Vec<f32>,
}

impl Rounded {
    fn new(values: &[f32], depth: usize, factors: Option<&[f32]>) -> Self {
        let factors = factors.map_or_else(|| vec![1.; depth], <[f32]>::to_vec);
        let mut bytes = vec![0; values.len()];
        let rows = bytes.chunks_exact_mut(depth).zip(values.chunks_exact(depth));
        let scales = rows.map(|(out, values)| {
            let values: Vec<f32> =
                values.iter().zip(&factors).map(|(value, factor)| value * factor).collect();
            quantize_row(&values, out)
        });
        let scales = scales.collect();
        Self { values: bytes.into_iter().map(u8::cast_signed).collect(), scales }
    }
}

#[cfg(target_arch = "x86_64")]
static INTERPRETED: Kernel<Quad> = crate::cpu::lines::amx::interpreter::kernel();

/// Returns all kernels of this processor and an interpreted one, and prints their names.
fn kernels() -> Vec<&'static Kernel<Quad>> {
    #[cfg(target_arch = "x86_64")]
    let interpreted = Some(&INTERPRETED);
    #[cfg(not(target_arch = "x86_64"))]
    let interpreted = None;
    let kernels: Vec<_> = supported().chain(interpreted).collect();
    println!("int8 kernels that run on this processor: {kernels:?}");
    kernels
}

fn packed(weight: &[f32], factors: Option<&[f32]>, size: [usize; 2]) -> (Rounded, Int8Weight) {
    let inverse: Option<Vec<f32>> = factors.map(|factors| factors.iter().map(|factor| 1. / factor).collect());
    let rounded = Rounded::new(weight, size[1], inverse.as_deref());
    let packed = Int8Weight::new(&rounded.values, rounded.scales.clone(), factors.map(<[f32]>::to_vec), size);
    (rounded, packed)
}

/// The integers' product, (rows, columns), scaled in the order of the kernels.
fn integer_products(left: &Rounded, right: &Rounded, depth: usize) -> Vec<f32> {
    let rows = left.values.chunks_exact(depth).zip(&left.scales);
    rows.flat_map(|(row, row_scale)| {
        right.values.chunks_exact(depth).zip(&right.scales).map(move |(column, scale)| {
            let products = row.iter().zip(column).map(|(a, b)| i32::from(*a) * i32::from(*b));
            products.sum::<i32>() as f32 * (row_scale * scale)
        })
    })
    .collect()
}

#[test]
fn products_of_any_shape_are_exact() {
    let mut random = Random::new(11);
    for [rows, depth, columns] in SHAPES {
        let (x, weight) = (random.values(rows * depth), random.values(depth * columns));
        let factors: Vec<f32> = random.values(depth).into_iter().map(|value| 0.5 + value.abs()).collect();
        for factors in [None, Some(factors.as_slice())] {
            let left = Rounded::new(&x, depth, factors);
            let (right, packed) = packed(&weight, factors, [columns, depth]);
            let expected = integer_products(&left, &right, depth);
            for kernel in kernels() {
                let found = product(kernel, &x, rows, &Window::Same, &packed, &SliceEpilogue::default());
                let what = format!("{}: {rows}, {depth}, {columns}", kernel.name);
                assert!(found == expected, "{what}");
            }
        }
    }
}

#[test]
fn the_largest_integers_do_not_saturate() {
    let [rows, depth, columns] = [14, 4096, 33];
    for (x, weight) in [(1f32, 1f32), (1., -1.), (-1., 1.), (-1., -1.)] {
        let (_, packed) = packed(&vec![weight; depth * columns], None, [columns, depth]);
        let expected =
            vec![x * weight * (127 * 127 * depth) as f32 * (1f32 / 127. * (1. / 127.)); rows * columns];
        for kernel in kernels() {
            let x = vec![x; rows * depth];
            let found = product(kernel, &x, rows, &Window::Same, &packed, &SliceEpilogue::default());
            assert_eq!(found, expected, "{}: {weight}", kernel.name);
        }
    }
}

/// A value is at most half a step from its integer, so a product differs by at most half a step of the weight for each
/// value of `x`, and half a step of `x` for each of the rounded weight.
#[test]
fn rounding_costs_no_more_than_half_a_step() {
    let mut random = Random::new(11);
    for [rows, depth, columns] in SHAPES {
        let (x, weight) = (random.values(rows * depth), random.values(depth * columns));
        let left = Rounded::new(&x, depth, None);
        let (right, packed) = packed(&weight, None, [columns, depth]);
        let found = product(&PORTABLE, &x, rows, &Window::Same, &packed, &SliceEpilogue::default());
        for (place, found) in found.iter().enumerate() {
            let (row, column) = (place / columns, place % columns);
            let (x, weight) = (&x[row * depth..][..depth], &weight[column * depth..][..depth]);
            let expected: f64 = x.iter().zip(weight).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let step_of = [left.scales[row], right.scales[column]].map(|scale| f64::from(scale) / 2.);
            let rounded = right.values[column * depth..][..depth].iter();
            let of_weight: f64 = rounded.map(|value| f64::from(*value).abs()).sum();
            let bound = step_of[1] * x.iter().map(|value| f64::from(*value).abs()).sum::<f64>()
                + step_of[0] * of_weight * f64::from(right.scales[column]);
            // f32 rounds the scales and the integers that are halfway between.
            let difference = (f64::from(*found) - expected).abs();
            assert!(difference <= bound * 1.0001 + 1e-6, "{rows}, {depth}, {columns}: {difference}, {bound}");
        }
    }
}

#[test]
fn what_follows_a_product_is_applied_to_it() {
    let mut random = Random::new(11);
    let [rows, depth, columns] = [38, 50, 35];
    let (x, weight) = (random.values(rows * depth), random.values(depth * columns));
    let (bias, residual) = (random.values(columns), random.values(rows * columns));
    let (_, packed) = packed(&weight, None, [columns, depth]);
    let plain = product(&PORTABLE, &x, rows, &Window::Same, &packed, &SliceEpilogue::default());
    let epilogue = SliceEpilogue {
        bias: Some(&bias),
        shift: None,
        residual: Some(&residual),
        activation: Some(Activation::Gelu),
    };
    let expected: Vec<f32> = plain
        .iter()
        .enumerate()
        .map(|(place, value)| gelu(value + bias[place % columns] + residual[place]))
        .collect();
    for kernel in kernels() {
        let found = product(kernel, &x, rows, &Window::Same, &packed, &epilogue);
        assert_each_close(kernel.name, &found, &expected, 1e-6);
    }
}

#[test]
fn gates_are_those_of_the_second_half() {
    let mut random = Random::new(11);
    let [rows, depth, columns] = [37, 48, 64];
    let (x, weight, bias) =
        (random.values(rows * depth), random.values(2 * columns * depth), random.values(2 * columns));
    let (_, packed) = packed(&weight, None, [2 * columns, depth]);
    let both = product(&PORTABLE, &x, rows, &Window::Same, &packed, &SliceEpilogue::bias(Some(&bias)));
    let expected: Vec<f32> = both
        .chunks_exact(2 * columns)
        .flat_map(|row| (0..columns).map(|column| row[column] * gelu(row[columns + column])))
        .collect();
    for kernel in kernels() {
        let found = linear_geglu(kernel, &x, rows, &packed, Some(&bias));
        assert_each_close(kernel.name, &found, &expected, 1e-5);
    }
}

#[test]
fn a_convolution_reads_zeros_outside_of_its_image() {
    let mut random = Random::new(11);
    let (in_channels, out_channels) = (40, 20);
    let options = Conv2dOptions { stride: 2, padding: Padding::same(1), upsample: false };
    let geometry = Geometry { batch: 2, height: 5, width: 7, in_channels, out_channels, kernel: 1, options };
    let x = random.values(2 * 5 * 7 * in_channels);
    let (right, packed) =
        packed(&random.values(in_channels * out_channels), None, [out_channels, in_channels]);
    let (rows, window) = (geometry.out_pixels(), geometry.source());
    let mut seen = Vec::new();
    window.gather(0..rows, |row| match row {
        Some(row) => seen.extend(&x[row * in_channels..][..in_channels]),
        None => seen.extend([0f32; 40]),
    });
    let expected = integer_products(&Rounded::new(&seen, in_channels, None), &right, in_channels);
    assert!(expected.chunks_exact(out_channels).any(|row| row.iter().all(|value| *value == 0.)));
    for kernel in kernels() {
        let found = product(kernel, &x, rows, &window, &packed, &SliceEpilogue::default());
        assert!(found == expected, "{}", kernel.name);
    }
}

#[test]
fn a_row_with_what_is_not_finite_is_not_a_number() {
    let (rows, depth, columns) = (3, 70, 5);
    let (_, packed) = packed(&vec![0.5; depth * columns], None, [columns, depth]);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = vec![1f32; rows * depth];
        x[depth + 69] = value;
        for kernel in kernels() {
            let found = product(kernel, &x, rows, &Window::Same, &packed, &SliceEpilogue::default());
            for (row, found) in found.chunks_exact(columns).enumerate() {
                assert!(found.iter().all(|value| value.is_nan() == (row == 1)), "{}: {found:?}", kernel.name);
            }
        }
    }
}

#[test]
fn rows_of_any_size_keep_their_scale() {
    for size in [0., f32::MIN_POSITIVE, 1e-31, 1e-29, 1., 1e30, f32::MAX] {
        let mut out = [0u8; 3];
        let scale = quantize_row(&[size, -size, size / 4.], &mut out);
        let out = out.map(u8::cast_signed);
        if size < 1e-30 {
            assert_eq!((scale, out), (0., [0; 3]), "{size}");
        } else {
            assert_eq!(out, [127, -127, 32], "{size}");
            assert!((scale / size * 127. - 1.).abs() < 1e-6, "{size}");
        }
    }
}

#[test]
fn other_operations_read_the_same_weight() {
    let mut random = Random::new(11);
    let [depth, columns] = [70, 35];
    let factors: Vec<f32> = random.values(depth).into_iter().map(|value| 0.5 + value.abs()).collect();
    let (right, packed) = packed(&random.values(depth * columns), Some(&factors), [columns, depth]);
    let unpacked = packed.unpack();
    for (place, value) in unpacked.iter().enumerate() {
        let (k, column) = (place / columns, place % columns);
        let integer = f32::from(right.values[column * depth + k]);
        assert_eq!(*value, integer * right.scales[column] * factors[k]);
    }
    let mut scratch = Vec::new();
    let FactorPart { data, panel_stride, .. } = packed.part(&[1, 2], 3..9, &mut scratch);
    for (panel, k) in [(1, 3), (1, 8), (2, 5)] {
        for lane in (0..16).filter(|lane| panel * 16 + lane < columns) {
            let found = data[(panel - 1) * panel_stride + (k - 3) * 16 + lane];
            assert_eq!(found, unpacked[k * columns + panel * 16 + lane]);
        }
    }
}
