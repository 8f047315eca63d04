//! Launches the gate of a GEGLU feed-forward.

use super::description::{Address, Element, Launch, NotCovered, size};
use super::epilogue::{THREADS, grid};

/// As in `kernels/geglu.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct GegluParams {
    pub(crate) x: Address,
    pub(crate) bias: Address,
    pub(crate) out: Address,
    pub(crate) rows: i32,
    pub(crate) columns: i32,
}

/// GEGLU's gate, (rows, 2 · columns) to (rows, columns), as in [`crate::geglu()`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct GegluOperands {
    pub(crate) element: Element,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) x: Address,
    /// (2 · columns)
    pub(crate) bias: Option<Address>,
    pub(crate) out: Address,
}

impl GegluOperands {
    /// The launch.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub(crate) fn launch(&self) -> Result<Launch<GegluParams>, NotCovered> {
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
