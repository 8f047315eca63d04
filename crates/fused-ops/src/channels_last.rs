//! The weight of a convolution with its memory as a GPU's kernel reads it.

use candle_core::{Result, Tensor};

/// Values that the kernel reads at once.
const PIECE: usize = 8;

/// Channels as they are stored.
pub(crate) fn stored_channels(channels: usize) -> usize {
    channels.next_multiple_of(PIECE)
}

/// The same weight, (out, in, kernel, kernel), over memory (out, kernel, kernel, channels): the channels of `in`, and zeros
/// behind them up to a multiple of 8.
pub(crate) fn channels_last(weight: &Tensor) -> Result<Tensor> {
    let channels = weight.dim(1)?;
    let rows = weight.permute((0, 2, 3, 1))?.contiguous()?;
    rows.pad_with_zeros(3, 0, stored_channels(channels) - channels)?
        .narrow(3, 0, channels)?
        .permute((0, 3, 1, 2))
}

/// Whether the memory of a weight is laid out so.
pub(crate) fn is_channels_last(weight: &Tensor) -> bool {
    let &[_, channels, kernel, _] = weight.dims() else { return false };
    let stored = stored_channels(channels);
    let strides = [kernel * kernel * stored, 1, kernel * stored, stored];
    // Where there is only one of something, its stride says nothing, and candle leaves there what was before.
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
    use candle_core::{Device, Storage};

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
    fn a_weight_as_a_checkpoint_has_it_is_recognised() -> Result<()> {
        let weight = Tensor::randn(0f32, 1., (4, 16, 3, 3), &Device::Cpu)?;
        assert!(!is_channels_last(&weight));
        // Rows of four channels without the zeros behind them.
        let narrow = Tensor::randn(0f32, 1., (4, 3, 3, 4), &Device::Cpu)?.permute((0, 3, 1, 2))?;
        assert!(!is_channels_last(&narrow));
        Ok(())
    }
}
