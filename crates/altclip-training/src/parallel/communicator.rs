//! Defines how the processes of a run communicate.

use crate::error::{Error, Result};
use candle_core::Tensor;
use std::fmt::Debug;

/// Values sent together: 32 MiB, beyond which an exchange is limited by bandwidth. A larger tensor is sent alone.
const BUCKET: usize = 8 << 20;

/// The processes of a run, as seen by one of them.
///
/// All ranks must call the same methods in the same order. Results are bit-identical on all ranks.
pub trait Communicator: Debug {
    /// The rank of this process, from 0.
    fn rank(&self) -> usize;

    /// The number of ranks, at least one.
    fn ranks(&self) -> usize;

    /// Sums f32 tensors of equal shape over all ranks.
    ///
    /// # Errors
    /// If a rank is lost, or out of step.
    fn sum(&self, values: &Tensor) -> Result<Tensor>;

    /// Gathers a word from every rank, in order.
    ///
    /// # Errors
    /// If a rank is lost, or out of step.
    fn gather(&self, word: u64) -> Result<Vec<u64>>;
}

/// Built on the few primitives of a communicator.
impl dyn Communicator + '_ {
    /// Whether this is rank 0, the only one that writes files.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Waits for all ranks.
    ///
    /// # Errors
    /// See [`Communicator::gather`].
    pub fn barrier(&self) -> Result<()> {
        self.gather(0).map(drop)
    }

    /// Whether `is_so` on any rank.
    ///
    /// # Errors
    /// See [`Communicator::gather`].
    pub fn any(&self, is_so: bool) -> Result<bool> {
        Ok(self.gather(u64::from(is_so))?.into_iter().any(|word| word != 0))
    }

    /// Averages a number over all ranks.
    ///
    /// # Errors
    /// See [`Communicator::gather`].
    pub fn mean(&self, value: f64) -> Result<f64> {
        let values = self.gather(value.to_bits())?.into_iter().map(f64::from_bits);
        Ok(values.sum::<f64>() / self.ranks() as f64)
    }

    /// Averages f32 tensors over all ranks, keeping their shapes. They are sent together: many small exchanges would
    /// take longer than a few large ones. No more than a bucket is copied at a time.
    ///
    /// # Errors
    /// The errors of `tensors`; see also [`Communicator::sum`].
    pub fn means(&self, tensors: impl IntoIterator<Item = Result<Tensor>>) -> Result<Vec<Tensor>> {
        let (mut means, mut bucket, mut values) = (Vec::new(), Vec::new(), 0);
        for tensor in tensors {
            let tensor = tensor?;
            values += tensor.elem_count();
            bucket.push(tensor);
            if values >= BUCKET {
                means.extend(means_of(self, &bucket)?);
                bucket.clear();
                values = 0;
            }
        }
        means.extend(means_of(self, &bucket)?);
        Ok(means)
    }

    /// Fails if a rank disagrees with rank 0 about `what`.
    ///
    /// # Errors
    /// Names the first such rank; see also [`Communicator::gather`].
    pub fn agree(&self, what: &str, word: u64) -> Result<()> {
        let words = self.gather(word)?;
        match words.iter().position(|word| Some(word) != words.first()) {
            Some(rank) => {
                let problem = format!("expected the same {what} as rank 0's, found another");
                Err(Error::Rank { rank, problem })
            }
            None => Ok(()),
        }
    }

    /// Runs `work` on rank 0, and then on the others, which find the files that it wrote.
    ///
    /// # Errors
    /// The errors of `work`; see also [`Communicator::gather`].
    pub fn after_first<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.is_first() {
            let done = work()?;
            self.barrier()?;
            return Ok(done);
        }
        self.barrier()?;
        work()
    }
}

/// A run with a single process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Communicator for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn ranks(&self) -> usize {
        1
    }

    fn sum(&self, values: &Tensor) -> Result<Tensor> {
        Ok(values.clone())
    }

    fn gather(&self, word: u64) -> Result<Vec<u64>> {
        Ok(vec![word])
    }
}

/// Averages a bucket of tensors.
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
