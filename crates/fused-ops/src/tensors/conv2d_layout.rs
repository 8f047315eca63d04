//! Arranges a convolution's weight in the GPU kernel's memory layout.

use candle_core::{DType, Result, Tensor};

/// Values that the kernel reads at once.
const PIECE: usize = 8;

/// Channels as stored.
pub(crate) fn stored_channels(channels: usize) -> usize {
    channels.next_multiple_of(PIECE)
}

/// The same weight, (out, in, kernel, kernel), over memory (out, kernel, kernel, channels): the channels of `in`,
/// zero-padded to a multiple of 8.
pub(crate) fn channels_last(weight: &Tensor) -> Result<Tensor> {
    let channels = weight.dim(1)?;
    let rows = weight.permute((0, 2, 3, 1))?.contiguous()?;
    rows.pad_with_zeros(3, 0, stored_channels(channels) - channels)?
        .narrow(3, 0, channels)?
        .permute((0, 3, 1, 2))
}

/// Splits a kernel of 3 × 3 taps, (out, in, 3, 3), over an image doubled by nearest neighbour into four kernels of 2
/// × 2 taps over the original image, one per phase of the result: (4, out, 2, 2, channels), with channels stored as
/// in [`channels_last`]. Even rows read the previous pixel with the first tap and their own with the sum of the other
/// two; odd rows read their own with the sum of the first two, and the next with the last.
pub(crate) fn phases(weight: &Tensor) -> Result<Tensor> {
    let channels = weight.dim(1)?;
    let sums = |weight: &Tensor, dim: usize| {
        let tap = |tap: usize| weight.narrow(dim, tap, 1);
        let (first, middle, last) = (tap(0)?, tap(1)?, tap(2)?);
        let (even, odd) = ((&middle + &last)?, (&first + &middle)?);
        Result::Ok([Tensor::cat(&[first, even], dim)?, Tensor::cat(&[odd, last], dim)?])
    };
    // Sums of f16 weights are rounded once.
    let wide = weight.to_dtype(DType::F32)?.contiguous()?;
    let mut phases = Vec::with_capacity(4);
    for rows in sums(&wide, 2)? {
        for phase in sums(&rows, 3)? {
            phases.push(phase.permute((0, 2, 3, 1))?.contiguous()?);
        }
    }
    Tensor::stack(&phases, 0)?
        .to_dtype(weight.dtype())?
        .pad_with_zeros(4, 0, stored_channels(channels) - channels)?
        .contiguous()
}

/// Whether a weight's memory has this layout.
pub(crate) fn is_channels_last(weight: &Tensor) -> bool {
    let &[_, channels, kernel, _] = weight.dims() else { return false };
    let stored = stored_channels(channels);
    let strides = [kernel * kernel * stored, 1, kernel * stored, stored];
    // For a dimension of size 1 the stride is meaningless, and candle leaves an old value there.
    weight
        .dims()
        .iter()
        .zip(weight.stride())
        .zip(strides)
        .all(|((&n, &found), stride)| n == 1 || found == stride)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::Padding;
    use candle_core::{Device, Storage};

    /// Convolves channels-last with candle.
    fn convolve(x: &Tensor, weight: &Tensor, padding: Padding) -> Result<Tensor> {
        let x = x.permute((0, 3, 1, 2))?;
        let x = x.pad_with_zeros(2, padding.top, padding.bottom)?;
        let x = x.pad_with_zeros(3, padding.left, padding.right)?.contiguous()?;
        x.conv2d(weight, 0, 1, 1, 1)?.permute((0, 2, 3, 1))?.contiguous()
    }

    #[test]
    fn weights_keep_their_values_and_lie_channels_last() -> Result<()> {
        for [out, channels, kernel] in [[5, 4, 3], [2, 16, 3], [24, 40, 1], [3, 4, 1], [1, 8, 1], [6, 1, 3]] {
            let weight = Tensor::randn(0f32, 1., (out, channels, kernel, kernel), &Device::Cpu)?;
            let laid_out = channels_last(&weight)?;
            assert!(is_channels_last(&laid_out), "{:?} {:?}", laid_out.dims(), laid_out.stride());
            let values = weight.flatten_all()?.to_vec1::<f32>()?;
            assert_eq!(laid_out.flatten_all()?.to_vec1::<f32>()?, values);

            let (storage, layout) = laid_out.storage_and_layout();
            let Storage::Cpu(storage) = &*storage else { panic!("a tensor on the CPU") };
            let stored = stored_channels(channels);
            let memory = &storage.as_slice::<f32>()?[layout.start_offset()..];
            assert_eq!(memory.len(), out * kernel * kernel * stored);
            for (place, pixel) in memory.chunks(stored).enumerate() {
                let (row, tap) = (place / (kernel * kernel), place % (kernel * kernel));
                for (channel, &value) in pixel.iter().enumerate() {
                    let index = (row * channels + channel) * kernel * kernel + tap;
                    assert_eq!(value, if channel < channels { values[index] } else { 0. });
                }
            }
        }
        Ok(())
    }

    #[test]
    fn phases_are_the_convolution_of_a_doubled_image() -> Result<()> {
        let (channels, out) = (12, 5);
        let weight = Tensor::randn(0f32, 1., (out, channels, 3, 3), &Device::Cpu)?;
        let x = Tensor::randn(0f32, 1., (2, 4, 3, channels), &Device::Cpu)?;
        let doubled = x.permute((0, 3, 1, 2))?.contiguous()?.upsample_nearest2d(8, 6)?;
        let expected = convolve(&doubled.permute((0, 2, 3, 1))?, &weight, Padding::same(1))?;
        let phases = phases(&weight)?;
        assert_eq!(phases.dims(), [4, out, 2, 2, 16]);
        for (phase, [top, left]) in [[1, 1], [1, 0], [0, 1], [0, 0]].into_iter().enumerate() {
            let weight = phases.get(phase)?.permute((0, 3, 1, 2))?;
            let padding = Padding { top, left, bottom: 1 - top, right: 1 - left };
            let x = x.pad_with_zeros(3, 0, 4)?;
            let found = convolve(&x, &weight.contiguous()?, padding)?;
            // (batch, height, row parity, width, column parity, out)
            let of_phase =
                expected.reshape((2, 4, 2, 3, 2, out))?.narrow(2, 1 - top, 1)?.narrow(4, 1 - left, 1)?;
            let difference =
                (found - of_phase.reshape((2, 4, 3, out))?)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(difference < 1e-4, "phase {phase}: {difference}");
        }
        Ok(())
    }

    #[test]
    fn a_weight_as_a_checkpoint_has_it_is_recognised() -> Result<()> {
        let weight = Tensor::randn(0f32, 1., (4, 16, 3, 3), &Device::Cpu)?;
        assert!(!is_channels_last(&weight));
        // Rows of four channels without padding.
        let narrow = Tensor::randn(0f32, 1., (4, 3, 3, 4), &Device::Cpu)?.permute((0, 3, 1, 2))?;
        assert!(!is_channels_last(&narrow));
        Ok(())
    }
}
