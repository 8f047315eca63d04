//! Describes the rows of a tensor, which may be some columns of a wider one.

use super::super::launch::attention::RowLayout;
use super::super::launch::description::{Address, NotCovered};
use candle_core::Tensor;

/// The layout of a tensor's rows, (rows, width) or (batch, rows, width), whose first value is at `address`.
pub(super) fn rows(x: &Tensor, address: Address) -> Result<RowLayout, NotCovered> {
    match *x.stride() {
        [row_stride, 1] => Ok(RowLayout { address, batch_stride: 0, row_stride }),
        [batch_stride, row_stride, 1] => Ok(RowLayout { address, batch_stride, row_stride }),
        _ => Err(NotCovered("rows whose values do not lie side by side")),
    }
}
