//! How the operations after a product are launched: biases, shifts, residuals, activations, and the gated feed-forward.

use super::launch::{Address, Element, Launch, NotCovered, blocks, size};

/// As in `kernels/epilogue.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct EpilogueParams {
    pub x: Address,
    pub bias: Address,
    pub shift: Address,
    pub residual: Address,
    pub out: Address,
    pub rows: i32,
    pub columns: i32,
    pub rows_per_picture: i32,
    pub activation: i32,
}

/// As in `kernels/epilogue.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct GegluParams {
    pub x: Address,
    pub bias: Address,
    pub out: Address,
    pub rows: i32,
    pub columns: i32,
}

/// What comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Activation {
    None = 0,
    Gelu = 1,
    QuickGelu = 2,
    Silu = 3,
}

/// `activation(x + bias + shift + residual)` of (rows, columns), as in [`crate::Epilogue`].
#[derive(Debug, Clone, Copy)]
pub struct Epilogue {
    pub element: Element,
    pub rows: usize,
    pub columns: usize,
    pub x: Address,
    /// (columns)
    pub bias: Option<Address>,
    /// (rows / `rows_per_picture`, columns)
    pub shift: Option<Address>,
    pub rows_per_picture: usize,
    /// (rows, columns)
    pub residual: Option<Address>,
    pub activation: Activation,
    pub out: Address,
}

/// The gate of a gated feed-forward, (rows, 2 · columns) to (rows, columns), as in [`crate::geglu()`].
#[derive(Debug, Clone, Copy)]
pub struct Geglu {
    pub element: Element,
    pub rows: usize,
    pub columns: usize,
    pub x: Address,
    /// (2 · columns)
    pub bias: Option<Address>,
    pub out: Address,
}

const THREADS: usize = 256;

/// Threads have 8 neighbouring values each.
fn grid(rows: usize, columns: usize, addresses: &[Option<Address>]) -> Result<[u32; 3], NotCovered> {
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

impl Epilogue {
    /// The launch.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub fn launch(&self) -> Result<Launch<EpilogueParams>, NotCovered> {
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
                rows_per_picture: size(self.rows_per_picture.max(1))?,
                activation: self.activation as i32,
            },
        })
    }
}

impl Geglu {
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
