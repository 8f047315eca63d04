//! One training run in several processes, each of which has the whole model: data parallelism.
//!
//! Every process has a rank. In each step every rank computes the gradients of batches of its own, and all take the same
//! step along their mean: R ranks that accumulate A batches do what one process does that accumulates A · R of them, up to
//! the order of sums. Nothing else is shared. Rank 0 alone takes the folder's lock and writes checkpoints, metrics, samples
//! and the model; the others read the newest checkpoint, and the run ends with an error where they do not all begin with
//! the same weights. What is computed once and kept in a file ([`Cache`](crate::Cache)) is rank 0's work, while the others
//! wait. All of them therefore need the same file system, or the same files.
//!
//! A run ends for all ranks when it ends for one. Where a rank is lost, the others end with an error that names it, and the
//! last checkpoint stays as it was.

mod buckets;
#[cfg(feature = "nccl")]
mod nccl;
mod rendezvous;
mod sockets;

#[cfg(feature = "nccl")]
pub use nccl::Nccl;
pub use rendezvous::{Rendezvous, join};
pub use sockets::Sockets;

use crate::error::{Error, Result};
use candle_core::Tensor;
use std::fmt::Debug;

/// The processes of a run, seen from one of them.
///
/// All ranks must call the same methods in the same order. What they are given back has the same bits on every rank.
pub trait Communicator: Debug {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// How many there are, at least one.
    fn ranks(&self) -> usize;

    /// The sum over all ranks of f32 tensors of one shape.
    ///
    /// # Errors
    /// If a rank is lost, or does something else.
    fn sum(&self, values: &Tensor) -> Result<Tensor>;

    /// What every rank says, in their order.
    ///
    /// # Errors
    /// If a rank is lost, or does something else.
    fn gather(&self, word: u64) -> Result<Vec<u64>>;
}

/// What follows from the few things that a communicator can do.
impl dyn Communicator + '_ {
    /// Whether this is rank 0, which alone writes files.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Waits for all ranks.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub fn barrier(&self) -> Result<()> {
        self.gather(0).map(drop)
    }

    /// Whether it is so on any rank.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub fn any(&self, is_so: bool) -> Result<bool> {
        Ok(self.gather(u64::from(is_so))?.into_iter().any(|word| word != 0))
    }

    /// The mean of a number over all ranks.
    ///
    /// # Errors
    /// As [`Communicator::gather`].
    pub fn mean(&self, value: f64) -> Result<f64> {
        let values = self.gather(value.to_bits())?.into_iter().map(f64::from_bits);
        Ok(values.sum::<f64>() / self.ranks() as f64)
    }

    /// The means of f32 tensors over all ranks, each in the shape that it has. They travel together: many small exchanges
    /// would take longer than a few large ones.
    ///
    /// # Errors
    /// Those of `tensors`, and as [`Communicator::sum`].
    pub fn means(&self, tensors: impl IntoIterator<Item = Result<Tensor>>) -> Result<Vec<Tensor>> {
        buckets::means(self, tensors)
    }

    /// Refuses to go on where a rank says something else than rank 0 about `what`.
    ///
    /// # Errors
    /// That of the first such rank, and as [`Communicator::gather`].
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

    /// Does `work` on rank 0, and then on the others: what the first leaves in a file, they find there.
    ///
    /// # Errors
    /// Those of `work`, and as [`Communicator::gather`].
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

/// A run of one process.
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
