//! Trains a model in several processes, each with a complete copy (data parallelism).
//!
//! Every process has a rank. In each step every rank computes the gradients of its own batches, and all take the same
//! step along their mean: R ranks that accumulate A batches do what one process does with A · R, up to the order of
//! summation. Only rank 0 locks the folder and writes checkpoints, metrics, samples and the model. The others read
//! the newest checkpoint, and the run fails unless all start with the same weights. What is computed once and cached
//! in a file ([`Cache`](crate::Cache)) is rank 0's work, while the others wait. So all of them need the same file
//! system, or the same files.
//!
//! With a [`Secret`], ranks prove to each other that they know it, and sign their messages; without one they meet on one
//! machine only, unless [`insecure`](Rendezvous::insecure) is set. Other connections neither end nor delay a run.
//!
//! A run ends for all ranks when it ends for one. If a rank is lost, the others fail with an error that names it, and
//! the last checkpoint stays as it was.

// Its numbers come from files and networks: none may be cut.
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]

mod communicator;
mod greeting;
#[cfg(feature = "nccl")]
mod nccl;
mod reception;
mod rendezvous;
mod secret;
mod sockets;

pub use communicator::{Alone, Communicator};
#[cfg(feature = "nccl")]
pub use nccl::Nccl;
pub use rendezvous::{Rendezvous, join};
pub use secret::Secret;
pub use sockets::Sockets;
