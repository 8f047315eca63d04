//! Launches the conversion of images to bytes.

use super::description::{Address, Element, Launch, NotCovered, elementwise};

/// As in `kernels/to_bytes.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct ToBytesParams {
    pub(crate) x: Address,
    pub(crate) out: Address,
    pub(crate) count: i64,
}

/// Values from −1 to 1 as bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToBytesOperands {
    pub(crate) element: Element,
    pub(crate) count: usize,
    pub(crate) x: Address,
    pub(crate) out: Address,
}

impl ToBytesOperands {
    /// The launch.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub(crate) fn launch(&self) -> Result<Launch<ToBytesParams>, NotCovered> {
        if !self.x.is_multiple_of(16) || !self.out.is_multiple_of(8) {
            return Err(NotCovered("pixels that do not begin at a multiple of 16 bytes"));
        }
        let params = ToBytesParams { x: self.x, out: self.out, count: self.count as i64 };
        elementwise("to_bytes", self.element, self.count.div_ceil(8), params)
    }
}
