//! Looks up rows in an embedding table.

use super::weight::read_quantized;
use crate::cpu::pack::FactorSize;
use crate::cpu::quantized::QuantizedWeight;
use crate::tensors::compute_dtype::for_computing;
use candle_core::{Device, Result, Tensor};
use candle_nn::{Init, VarBuilder};
use std::sync::Arc;

/// A table (rows, width), such as word embeddings.
#[derive(Debug, Clone)]
pub struct Embedding {
    table: Table,
    width: usize,
}

/// The table as in the checkpoint: only few rows of a large one are ever used.
#[derive(Debug, Clone)]
enum Table {
    Plain(Tensor),
    Quantized { weight: Arc<QuantizedWeight>, rows: usize },
}

impl Embedding {
    /// Reads `weight` (rows, width) from `vb`. On the CPU a [quantized](crate::BlockType) table stays quantized.
    ///
    /// # Errors
    /// If the tensor is missing or has another shape.
    pub fn new(rows: usize, width: usize, init: Init, vb: VarBuilder) -> Result<Self> {
        let size = FactorSize { taps: 1, depth: width, columns: rows };
        let table = match read_quantized(&vb, "weight", size)? {
            Some(weight) => Table::Quantized { weight: Arc::new(weight), rows },
            None => Table::Plain(vb.get_with_hints((rows, width), "weight", init)?),
        };
        Ok(Self { table, width })
    }

    /// The table's device.
    pub fn device(&self) -> &Device {
        match &self.table {
            Table::Plain(table) => table.device(),
            Table::Quantized { .. } => &Device::Cpu,
        }
    }

    /// Looks up `ids` (n), u32, on the table's device: (n, width), in [`compute_dtype`](crate::compute_dtype).
    ///
    /// # Errors
    /// If an id has no row.
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        match &self.table {
            Table::Plain(table) => for_computing(table.index_select(ids, 0)?),
            Table::Quantized { weight, rows } => {
                let ids = ids.to_vec1::<u32>()?;
                let mut values = vec![0f32; ids.len() * self.width];
                for (id, values) in ids.iter().zip(values.chunks_exact_mut(self.width.max(1))) {
                    if *id as usize >= *rows {
                        candle_core::bail!("row {id} is outside a table of {rows}")
                    }
                    weight.column(*id as usize, values);
                }
                Tensor::from_vec(values, (ids.len(), self.width), &Device::Cpu)
            }
        }
    }
}
