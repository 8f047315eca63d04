//! Caches which cuBLASLt algorithm to use for a shape.

use super::super::launch::description::NotCovered;
use super::super::runtime::cublaslt::{Algorithm, CublasLt, Description, LinearOperands, LinearShape};
use super::super::runtime::kernels::Kernels;
use super::launched::Launched;
use candle_core::Result;
use std::collections::HashMap;

/// The most algorithms cached. Texts come in ever new numbers of rows, and a choice takes microseconds.
const MAX_ALGORITHMS: usize = 4096;

/// cuBLASLt on a device, and its choices.
pub(super) struct LinearTuner {
    handle: CublasLt,
    algorithms: HashMap<LinearShape, Option<Algorithm>>,
}

impl LinearTuner {
    /// For the current context's device.
    pub(super) fn new() -> Result<Self> {
        Ok(Self { handle: CublasLt::new()?, algorithms: HashMap::new() })
    }

    /// Queues a product on the stream of `kernels`.
    ///
    /// # Safety
    /// The addresses are those of tensors of the product's sizes, valid until the launch is queued.
    pub(super) unsafe fn launch(&mut self, kernels: &Kernels, product: &LinearOperands) -> Launched {
        let shape = product.shape()?;
        let description = match Description::new(product, &shape) {
            Ok(description) => description,
            Err(error) => return Ok(Err(candle_core::Error::wrap(error))),
        };
        if self.algorithms.len() >= MAX_ALGORITHMS {
            self.algorithms.clear();
        }
        let handle = &self.handle;
        let algorithm =
            *self.algorithms.entry(shape).or_insert_with(|| description.algorithm(handle, &shape).ok());
        let algorithm = algorithm.ok_or(NotCovered("a product that cuBLASLt has no algorithm for"))?;
        // SAFETY: the caller guarantees the addresses.
        if let Err(error) = unsafe { description.run(handle, &algorithm, product, kernels) } {
            tracing::debug!(%error, ?shape, "cuBLASLt's algorithm failed");
            self.algorithms.insert(shape, None);
            return Err(NotCovered("a product that cuBLASLt fails to make"));
        }
        Ok(Ok(()))
    }
}
