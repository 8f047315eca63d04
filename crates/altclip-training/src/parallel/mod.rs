//! Trains one model in several processes, each of which has the whole model: data parallelism.
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

mod communicator;
#[cfg(feature = "nccl")]
mod nccl;
mod rendezvous;
mod sockets;

pub use communicator::{Alone, Communicator};
#[cfg(feature = "nccl")]
pub use nccl::Nccl;
pub use rendezvous::{Rendezvous, join};
pub use sockets::Sockets;
