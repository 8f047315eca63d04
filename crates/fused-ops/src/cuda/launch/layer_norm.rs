//! Launches layer normalisation.

use super::description::{Address, Element, Launch, NotCovered, blocks, size};

/// As in `kernels/layer_norm.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct LayerNormParams {
    pub(crate) x: Address,
    pub(crate) added: Address,
    pub(crate) residual: Address,
    pub(crate) weight: Address,
    pub(crate) bias: Address,
    pub(crate) sum: Address,
    pub(crate) out: Address,
    pub(crate) rows: i32,
    pub(crate) size: i32,
    pub(crate) eps: f32,
}

/// Layer normalisation of the rows of `x + added + residual`, (rows, size), as in [`crate::LayerNorm`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerNormOperands {
    pub(crate) element: Element,
    pub(crate) rows: usize,
    pub(crate) size: usize,
    pub(crate) eps: f64,
    pub(crate) x: Address,
    /// (size)
    pub(crate) added: Option<Address>,
    pub(crate) residual: Option<Address>,
    /// (size)
    pub(crate) weight: Address,
    pub(crate) bias: Address,
    /// Where to write `x + added + residual`, (rows, size), if wanted.
    pub(crate) sum: Option<Address>,
    pub(crate) out: Address,
}

const WARPS: usize = 4;

/// Whether the kernel takes rows of this size.
pub(crate) fn covers(size: usize) -> bool {
    size > 0 && size.is_multiple_of(8) && size <= 2048
}

impl LayerNormOperands {
    /// The launch.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub(crate) fn launch(&self) -> Result<Launch<LayerNormParams>, NotCovered> {
        if !covers(self.size) {
            return Err(NotCovered("rows whose size is no multiple of 8, or above 2048"));
        }
        let rows = [self.x, self.weight, self.bias, self.out].into_iter();
        let mut rows = rows.chain(self.added).chain(self.residual).chain(self.sum);
        if !rows.all(|address| address.is_multiple_of(16)) {
            return Err(NotCovered("rows that do not begin at a multiple of 16 bytes"));
        }
        Ok(Launch {
            kernel: format!("layer_norm_{}", self.element),
            grid: [blocks(self.rows, WARPS)?, 1, 1],
            threads: 32 * WARPS as u32,
            shared_bytes: 0,
            params: LayerNormParams {
                x: self.x,
                added: self.added.unwrap_or(0),
                residual: self.residual.unwrap_or(0),
                weight: self.weight,
                bias: self.bias,
                sum: self.sum.unwrap_or(0),
                out: self.out,
                rows: size(self.rows)?,
                size: size(self.size)?,
                eps: self.eps as f32,
            },
        })
    }
}
