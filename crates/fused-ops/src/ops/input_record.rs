//! Records what a layer takes in, for choosing how its weight is rounded.

use crate::tensors::slices::with_slice;
use candle_core::{DType, Result, Tensor, Var};
use candle_nn::VarBuilder;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The name, beside a layer's `weight`, of a place for what the layer takes in: on the CPU, an f32 variable (1 + rows,
/// in). Its first row becomes the largest absolute value of each channel, and the others become rows of the input,
/// spread over the last eight forward passes. It must start with zeros.
pub const INPUT_RECORD: &str = "weight.input_record";
/// The forward passes whose rows are kept.
const PASSES: usize = 8;

/// The place for a layer's input.
#[derive(Debug)]
pub(super) struct InputRecord {
    place: Var,
    /// The rows written so far.
    written: AtomicUsize,
}

impl InputRecord {
    /// Finds the place, if `vb` has one for a layer with this many input channels.
    pub(super) fn read(vb: &VarBuilder, channels: usize) -> Result<Option<Self>> {
        if !vb.device().is_cpu() || !vb.contains_tensor(INPUT_RECORD) {
            return Ok(None);
        }
        // A variable stays the same one, which the caller reads later.
        let place = Var::from_tensor(&vb.get_unchecked_dtype(INPUT_RECORD, DType::F32)?)?;
        match place.dims() {
            [rows, columns] if *rows > 1 && *columns == channels && channels > 0 => {}
            found => candle_core::bail!("{INPUT_RECORD}: expected rows of {channels}, found {found:?}"),
        }
        Ok(Some(Self { place, written: AtomicUsize::new(0) }))
    }

    /// Records an input, (…, in).
    pub(super) fn add(&self, input: &Tensor) -> Result<()> {
        let (rows, channels) = self.place.dims2()?;
        let capacity = rows - 1;
        let mut record = self.place.flatten_all()?.to_vec1::<f32>()?;
        let (largest, kept) = record.split_at_mut(channels);
        with_slice(input, |input| {
            for row in input.chunks_exact(channels) {
                largest.iter_mut().zip(row).for_each(|(largest, value)| *largest = largest.max(value.abs()));
            }
            let count = input.len() / channels;
            let share = count.min(capacity.div_ceil(PASSES));
            for index in 0..share {
                let from = index * count / share * channels;
                let to = self.written.fetch_add(1, Ordering::Relaxed) % capacity * channels;
                kept[to..][..channels].copy_from_slice(&input[from..][..channels]);
            }
            Ok(())
        })?;
        self.place.set(&Tensor::from_vec(record, (rows, channels), self.place.device())?)
    }
}
