//! Many tensors in few exchanges.

use super::Communicator;
use crate::error::Result;
use candle_core::Tensor;

/// Values that travel together: 32 MiB, after which an exchange takes as long as its bytes and no longer. A larger tensor
/// travels alone.
const BUCKET: usize = 8 << 20;

/// The means of tensors over all ranks, in their order. No more than a bucket is copied at a time.
pub(super) fn means(
    communicator: &(dyn Communicator + '_),
    tensors: impl IntoIterator<Item = Result<Tensor>>,
) -> Result<Vec<Tensor>> {
    let (mut means, mut bucket, mut values) = (Vec::new(), Vec::new(), 0);
    for tensor in tensors {
        let tensor = tensor?;
        values += tensor.elem_count();
        bucket.push(tensor);
        if values >= BUCKET {
            means.extend(means_of(communicator, &bucket)?);
            bucket.clear();
            values = 0;
        }
    }
    means.extend(means_of(communicator, &bucket)?);
    Ok(means)
}

fn means_of(communicator: &(dyn Communicator + '_), bucket: &[Tensor]) -> Result<Vec<Tensor>> {
    if bucket.is_empty() {
        return Ok(Vec::new());
    }
    let flat = bucket.iter().map(Tensor::flatten_all).collect::<candle_core::Result<Vec<_>>>()?;
    let sum = communicator.sum(&Tensor::cat(&flat, 0)?)?; // (values of all)
    let mean = (sum / communicator.ranks() as f64)?;
    let mut first = 0;
    let parts = bucket.iter().map(|tensor| {
        let part = mean.narrow(0, first, tensor.elem_count())?.reshape(tensor.shape());
        first += tensor.elem_count();
        Ok(part?)
    });
    parts.collect()
}
