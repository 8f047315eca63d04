//! Launches images as bytes.

use super::description::{Address, Element, Launch, NotCovered, elementwise};

/// As in `kernels/to_bytes.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ToBytesParams {
    pub x: Address,
    pub out: Address,
    pub count: i64,
}

/// Values from −1 to 1 as bytes.
#[derive(Debug, Clone, Copy)]
pub struct ToBytesOperands {
    pub element: Element,
    pub count: usize,
    pub x: Address,
    pub out: Address,
}

impl ToBytesOperands {
    /// The launch.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub fn launch(&self) -> Result<Launch<ToBytesParams>, NotCovered> {
        if !self.x.is_multiple_of(16) || !self.out.is_multiple_of(8) {
            return Err(NotCovered("pixels that do not begin at a multiple of 16 bytes"));
        }
        let params = ToBytesParams { x: self.x, out: self.out, count: self.count as i64 };
        elementwise("to_bytes", self.element, self.count.div_ceil(8), params)
    }
}
