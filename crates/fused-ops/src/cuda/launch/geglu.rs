//! Launches the gate of a gated feed-forward.

use super::description::{Address, Element, Launch, NotCovered, size};
use super::epilogue::{THREADS, grid};

/// As in `kernels/geglu.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct GegluParams {
    pub x: Address,
    pub bias: Address,
    pub out: Address,
    pub rows: i32,
    pub columns: i32,
}

/// The gate of a gated feed-forward, (rows, 2 · columns) to (rows, columns), as in [`crate::geglu()`].
#[derive(Debug, Clone, Copy)]
pub struct GegluOperands {
    pub element: Element,
    pub rows: usize,
    pub columns: usize,
    pub x: Address,
    /// (2 · columns)
    pub bias: Option<Address>,
    pub out: Address,
}

impl GegluOperands {
    /// The launch.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub fn launch(&self) -> Result<Launch<GegluParams>, NotCovered> {
        let Self { x, bias, out, rows, columns, .. } = *self;
        Ok(Launch {
            kernel: format!("geglu_{}", self.element),
            grid: grid(rows, columns, &[Some(x), bias, Some(out)])?,
            threads: THREADS as u32,
            shared_bytes: 0,
            params: GegluParams {
                x,
                bias: bias.unwrap_or(0),
                out,
                rows: size(rows)?,
                columns: size(columns)?,
            },
        })
    }
}
