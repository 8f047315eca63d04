//! Convolves channels-last images by gathered matrix products, and computes the gradients.

use super::epilogue::SliceEpilogue;
use super::matmul::gather_product;
use super::matmul_gradient::{column_sums, gather_gradient};
use super::microkernel::Stored;
use super::pack::{Factor, Panels, Strides};
use super::packed_weight::{PackedWeight, with_panels};
use super::window::{Axis, Window};
use super::winograd::{self, Images, Transform};
use crate::shapes::{Conv2dOptions, Padding};
use std::sync::OnceLock;

/// The shapes of one convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    /// Of the stored input, before any upsampling.
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) kernel: usize,
    pub(crate) options: Conv2dOptions,
}

impl Geometry {
    fn scale(&self) -> usize {
        if self.options.upsample { 2 } else { 1 }
    }

    fn out_extent(&self, extent: usize, padding: usize) -> usize {
        (extent * self.scale() + padding).checked_sub(self.kernel).map_or(0, |n| n / self.options.stride + 1)
    }

    pub(crate) fn out_height(&self) -> usize {
        self.out_extent(self.height, self.options.padding.top + self.options.padding.bottom)
    }

    pub(crate) fn out_width(&self) -> usize {
        self.out_extent(self.width, self.options.padding.left + self.options.padding.right)
    }

    pub(crate) fn out_pixels(&self) -> usize {
        self.batch * self.out_height() * self.out_width()
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Maps output pixels to the stored pixels they read.
    pub(crate) fn source(&self) -> Window {
        let (stride, scale) = (self.options.stride, self.scale());
        let axis = |positions, extent, padding: usize| {
            Axis::new(self.kernel, positions, extent, |position, tap| {
                Some((position * stride + tap).checked_sub(padding)? / scale)
            })
        };
        Window::Grid {
            vertical: axis(self.out_height(), self.height, self.options.padding.top),
            horizontal: axis(self.out_width(), self.width, self.options.padding.left),
        }
    }

    /// Maps input pixels (after upsampling) to the output pixels whose gradients reach them.
    fn target(&self) -> Window {
        let (stride, scale) = (self.options.stride, self.scale());
        let axis = |positions, extent, padding: usize| {
            Axis::new(self.kernel, positions, extent, |position, tap| {
                let place = (position + padding).checked_sub(tap)?;
                place.is_multiple_of(stride).then_some(place / stride)
            })
        };
        Window::Grid {
            vertical: axis(self.height * scale, self.out_height(), self.options.padding.top),
            horizontal: axis(self.width * scale, self.out_width(), self.options.padding.left),
        }
    }

    /// Packs weights (out, in, kernel, kernel) as the right factor of the forward product.
    pub(crate) fn pack<T: Stored>(&self, weight: &[T]) -> Panels<T> {
        let taps = self.taps();
        let strides = Strides { tap: 1, depth: taps, column: taps * self.in_channels };
        Panels::pack(weight, taps, self.in_channels, self.out_channels, strides)
    }

    /// The direct convolution.
    pub(crate) fn forward(&self, x: &[f32], weight: &PackedWeight, epilogue: &SliceEpilogue) -> Vec<f32> {
        weight.product(x, self.out_pixels(), &self.source(), epilogue)
    }

    /// The convolution, by Winograd's algorithm where that is faster. `transformed` caches small transformed weights.
    pub(crate) fn forward_fast(
        &self,
        x: &[f32],
        weight: &PackedWeight,
        transformed: &OnceLock<Panels>,
        epilogue: &SliceEpilogue,
    ) -> Vec<f32> {
        let direct = match weight {
            PackedWeight::InBf16(engine, _) => engine.cost,
            _ => 1.,
        };
        with_panels!(weight, panels => match self.faster_transform(may_keep(panels), direct) {
            Some(transform) => self.by_winograd(transform, x, panels, transformed, epilogue),
            None => self.forward(x, weight, epilogue),
        })
    }

    /// Like [`Geometry::forward_fast`], for weights that change between calls, as in training.
    pub(crate) fn forward_once(&self, x: &[f32], weight: &Panels, epilogue: &SliceEpilogue) -> Vec<f32> {
        match self.faster_transform(false, 1.) {
            Some(transform) => self.by_winograd(transform, x, weight, &OnceLock::new(), epilogue),
            None => gather_product(x, self.out_pixels(), &self.source(), weight, epilogue),
        }
    }

    fn by_winograd<F: Factor>(
        &self,
        transform: Transform,
        x: &[f32],
        weight: &F,
        transformed: &OnceLock<Panels>,
        epilogue: &SliceEpilogue,
    ) -> Vec<f32> {
        winograd::convolution(transform, x, self.images(), &self.source(), weight, transformed, epilogue)
    }

    /// Whether the output is as large as the (upsampled) input, with 3 × 3 taps.
    fn keeps_size(&self) -> bool {
        self.kernel == 3 && self.options.stride == 1 && self.options.padding == Padding::same(1)
    }

    pub(crate) fn images(&self) -> Images {
        let (batch, doubled) = (self.batch, self.options.upsample);
        Images { batch, height: self.out_height(), width: self.out_width(), doubled }
    }

    /// How Winograd's algorithm is faster than the direct convolution, whose multiply-adds take `direct` times as long as
    /// its own; `None` where it is not.
    fn faster_transform(&self, may_keep: bool, direct: f32) -> Option<Transform> {
        if !self.keeps_size() {
            return None;
        }
        Transform::fastest(self.images(), self.in_channels, self.out_channels, may_keep, direct)
    }

    /// The gradient of the input from that of the output, with weights (out, in, kernel, kernel).
    pub(crate) fn input_gradient(&self, weight: &[f32], grad: &[f32]) -> Vec<f32> {
        if !self.keeps_size() {
            return self.input_gradient_of_panels(&self.pack_transposed(weight), grad);
        }
        // It is itself a convolution, by the rotated weights.
        let scale = self.scale();
        let turned = Self {
            height: self.height * scale,
            width: self.width * scale,
            in_channels: self.out_channels,
            out_channels: self.in_channels,
            options: Conv2dOptions { upsample: false, ..self.options },
            ..*self
        };
        let panels = Panels::pack_turned(weight, self.taps(), self.out_channels, self.in_channels);
        self.sum_copies(turned.forward_once(grad, &panels, &SliceEpilogue::default()))
    }

    /// Packs weights (out, in, kernel, kernel) as the right factor of the input's gradient.
    fn pack_transposed(&self, weight: &[f32]) -> Panels {
        let taps = self.taps();
        let strides = Strides { tap: 1, depth: taps * self.in_channels, column: taps };
        Panels::pack(weight, taps, self.out_channels, self.in_channels, strides)
    }

    /// Like [`Geometry::pack_transposed`], from weights packed for the forward product.
    pub(crate) fn pack_transposed_panels(&self, weight: &PackedWeight) -> Panels {
        let (taps, inputs, outputs) = (self.taps(), self.in_channels, self.out_channels);
        // (taps, in, out), the order in which the panels are read
        let strides = Strides { tap: inputs * outputs, depth: 1, column: outputs };
        Panels::pack(&weight.unpack(), taps, outputs, inputs, strides)
    }

    /// The gradient of the input from that of the output, with weights from [`Geometry::pack_transposed_panels`].
    pub(crate) fn input_gradient_of_panels(&self, panels: &Panels, grad: &[f32]) -> Vec<f32> {
        let scale = self.scale();
        let pixels = self.batch * self.height * self.width * scale * scale;
        self.sum_copies(gather_product(grad, pixels, &self.target(), panels, &SliceEpilogue::default()))
    }

    /// Sums the gradients of the four copies that upsampling made of each pixel, if it did.
    fn sum_copies(&self, upsampled: Vec<f32>) -> Vec<f32> {
        if !self.options.upsample {
            return upsampled;
        }
        let (channels, row) = (self.in_channels, 2 * self.width * self.in_channels);
        let mut out = vec![0f32; upsampled.len() / 4];
        for (rows, out) in upsampled.chunks_exact(2 * row).zip(out.chunks_exact_mut(row / 2)) {
            for row in rows.chunks_exact(row) {
                for (pair, out) in row.chunks_exact(2 * channels).zip(out.chunks_exact_mut(channels)) {
                    for copy in pair.chunks_exact(channels) {
                        out.iter_mut().zip(copy).for_each(|(sum, value)| *sum += value);
                    }
                }
            }
        }
        out
    }

    /// The gradients of the weights (out, in, kernel, kernel) and bias (out).
    pub(crate) fn weight_gradient(&self, x: &[f32], grad: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (taps, depth, columns) = (self.taps(), self.in_channels, self.out_channels);
        let mut by_tap = vec![0f32; taps * depth * columns];
        gather_gradient(x, depth, taps, &self.source(), grad, columns, &mut by_tap);
        let mut weight = vec![0f32; by_tap.len()];
        for (row, values) in by_tap.chunks_exact(columns).enumerate() {
            let (tap, input) = (row / depth, row % depth);
            for (output, &value) in values.iter().enumerate() {
                weight[(output * depth + input) * taps + tap] = value;
            }
        }
        (weight, column_sums(grad, columns))
    }
}

/// Whether a layer may keep what it makes of this factor in f32.
fn may_keep<F: Factor>(_: &F) -> bool {
    F::MAY_KEEP_FLOATS
}

#[cfg(test)]
mod tests {
    use super::*;
    use test_support::Random;

    /// The largest difference between Winograd's algorithm and the direct convolution, relative to the root mean
    /// square.
    fn error(batch: usize, height: usize, width: usize, channels: (usize, usize), upsample: bool) -> f32 {
        let mut random = Random::new(5);
        let options = Conv2dOptions { stride: 1, padding: Padding::same(1), upsample };
        let (in_channels, out_channels) = channels;
        let geometry = Geometry { batch, height, width, in_channels, out_channels, kernel: 3, options };
        let x = random.values(batch * height * width * in_channels);
        let weights = geometry.pack(&random.values(9 * in_channels * out_channels));
        let (bias, residual) =
            (random.values(out_channels), random.values(geometry.out_pixels() * out_channels));
        let epilogue = SliceEpilogue { residual: Some(&residual), ..SliceEpilogue::bias(Some(&bias)) };
        let expected = gather_product(&x, geometry.out_pixels(), &geometry.source(), &weights, &epilogue);
        let scale = (expected.iter().map(|v| v * v).sum::<f32>() / expected.len() as f32).sqrt();
        let images = geometry.images();
        let source = geometry.source();
        let mut worst = 0f32;
        for transform in [Transform::Once, Transform::SomePanels { panels: 2 }, Transform::InEachTask] {
            let kept = OnceLock::new();
            let found = winograd::convolution(transform, &x, images, &source, &weights, &kept, &epilogue);
            assert_eq!(found.len(), expected.len());
            for (expected, found) in expected.iter().zip(&found) {
                worst = worst.max((expected - found).abs() / scale);
            }
        }
        worst
    }

    /// The transforms' largest factors, 10² · 10² / 24² in a corner, multiply the rounding error of a sum, about 2⁻²⁴
    /// √n for n sequential terms; the largest of thousands of errors is a few times that.
    #[test]
    fn winograds_algorithm_gives_the_direct_convolution() {
        for (batch, height, width, channels, upsample) in [
            (1, 1, 1, (1, 1), false),
            (1, 4, 4, (16, 16), false),
            (2, 5, 3, (3, 7), false),
            (3, 13, 10, (33, 50), false),
            (1, 9, 8, (20, 65), true),
            (1, 1, 1, (1, 1), true),
            (2, 5, 3, (3, 7), true),
            (1, 8, 8, (150, 70), true),
            (2, 32, 31, (40, 32), false),
            (1, 8, 8, (150, 70), false),
        ] {
            let error = error(batch, height, width, channels, upsample);
            let tolerance = 5e-6 * (channels.0 as f32).sqrt();
            assert!(error < tolerance, "{batch}, {height} × {width}, {channels:?}: {error}");
        }
    }
}
