//! Launches what follows a product: bias, shift, residual and activation.

use super::description::{Address, Element, Launch, NotCovered, blocks, size};
use crate::shapes::Activation;

/// As in `kernels/epilogue.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct EpilogueParams {
    pub(crate) x: Address,
    pub(crate) bias: Address,
    pub(crate) shift: Address,
    pub(crate) residual: Address,
    pub(crate) out: Address,
    pub(crate) rows: i32,
    pub(crate) columns: i32,
    pub(crate) rows_per_image: i32,
    pub(crate) activation: i32,
}

/// `activation(x + bias + shift + residual)` of (rows, columns), as in [`crate::Epilogue`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct EpilogueOperands {
    pub(crate) element: Element,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) x: Address,
    /// (columns)
    pub(crate) bias: Option<Address>,
    /// (rows / `rows_per_image`, columns)
    pub(crate) shift: Option<Address>,
    pub(crate) rows_per_image: usize,
    /// (rows, columns)
    pub(crate) residual: Option<Address>,
    pub(crate) activation: Option<Activation>,
    pub(crate) out: Address,
}

pub(super) const THREADS: usize = 256;

/// The codes in `kernels/epilogue.cuh`.
pub(super) fn activation_code(activation: Option<Activation>) -> i32 {
    match activation {
        None => 0,
        Some(Activation::Gelu) => 1,
        Some(Activation::QuickGelu) => 2,
        Some(Activation::Silu) => 3,
        Some(Activation::GeluTanh) => 4,
    }
}

/// Each thread has 8 neighbouring values.
pub(super) fn grid(
    rows: usize,
    columns: usize,
    addresses: &[Option<Address>],
) -> Result<[u32; 3], NotCovered> {
    if !columns.is_multiple_of(8) {
        return Err(NotCovered("a number of columns that is no multiple of 8"));
    }
    if !addresses.iter().flatten().all(|address| address.is_multiple_of(16)) {
        return Err(NotCovered("rows that do not begin at a multiple of 16 bytes"));
    }
    // Counted in 32 bits.
    size(rows * (columns / 8))?;
    Ok([blocks(rows * (columns / 8), THREADS)?, 1, 1])
}

impl EpilogueOperands {
    /// The launch.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub(crate) fn launch(&self) -> Result<Launch<EpilogueParams>, NotCovered> {
        let Self { x, bias, shift, residual, out, .. } = *self;
        Ok(Launch {
            kernel: format!("epilogue_{}", self.element),
            grid: grid(self.rows, self.columns, &[Some(x), bias, shift, residual, Some(out)])?,
            threads: THREADS as u32,
            shared_bytes: 0,
            params: EpilogueParams {
                x,
                bias: bias.unwrap_or(0),
                shift: shift.unwrap_or(0),
                residual: residual.unwrap_or(0),
                out,
                rows: size(self.rows)?,
                columns: size(self.columns)?,
                rows_per_image: size(self.rows_per_image.max(1))?,
                activation: activation_code(self.activation),
            },
        })
    }
}
