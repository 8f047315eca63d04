//! Reads layers' weights, in the layout of the kernel that will use them.

use super::int8;
use crate::cpu::bf16::{self, Bf16Weight};
use crate::cpu::int8::engine;
use crate::cpu::microkernel::Stored;
use crate::cpu::pack::{FactorSize, Panels};
use crate::cpu::packed_weight::PackedWeight;
use crate::cpu::quantized::QuantizedWeight;
use crate::shapes::BlockType;
use crate::tensors::slices::{on_cpu, with_slice};
use candle_core::{CpuStorage, DType, Result, Shape, Tensor};
use candle_nn::{Init, VarBuilder, init};
use std::sync::Arc;

/// The weight of a linear layer or a convolution.
#[derive(Debug, Clone)]
pub(crate) enum Weight {
    /// As in the checkpoint: on a GPU, or during training.
    Plain(Tensor),
    /// Packed once for the CPU kernel.
    Packed(Arc<PackedWeight>),
}

/// Packs a weight of any type.
pub(crate) trait Pack {
    fn size(&self) -> FactorSize;

    fn pack<T: Stored>(&self, weight: &[T]) -> Panels<T>;
}

impl Weight {
    /// Reads `weight` in this shape from `vb`, quantized or in int8 if it is and the CPU kernel will use it.
    pub(crate) fn read(vb: &VarBuilder, shape: impl Into<Shape>, layout: &impl Pack) -> Result<Self> {
        const NAME: &str = "weight";
        if let Some(weight) = int8::read(vb, layout.size())? {
            return Ok(Self::Packed(Arc::new(PackedWeight::InInt8(engine(), weight))));
        }
        if let Some(weight) = read_quantized(vb, NAME, layout.size())? {
            return Ok(Self::Packed(Arc::new(PackedWeight::Quantized(weight))));
        }
        Self::new(vb.get_with_hints(shape, NAME, init::DEFAULT_KAIMING_UNIFORM)?, layout)
    }

    /// Packs the weight if the CPU kernel will use it and it is not trained.
    pub(crate) fn new(weight: Tensor, layout: &impl Pack) -> Result<Self> {
        if !on_cpu(&weight) || weight.track_op() {
            return Ok(Self::Plain(weight));
        }
        let weight = weight.contiguous()?;
        let (storage, stored) = weight.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else {
            candle_core::bail!("the CPU kernels need tensors on the CPU")
        };
        let Some((start, end)) = stored.contiguous_offsets() else {
            candle_core::bail!("the CPU kernels need contiguous tensors")
        };
        let packed = match storage {
            CpuStorage::F16(values) if values[start..end].iter().all(|value| value.is_finite()) => {
                PackedWeight::F16(layout.pack(&values[start..end]))
            }
            CpuStorage::BF16(values) => {
                let panels = layout.pack(&values[start..end]);
                match bf16::engine() {
                    Some(engine) => PackedWeight::InBf16(engine, Bf16Weight::new(&panels)),
                    None => PackedWeight::Bf16(panels),
                }
            }
            _ => PackedWeight::F32(with_slice(&weight, |weight| Ok(layout.pack(weight)))?),
        };
        Ok(Self::Packed(Arc::new(packed)))
    }
}

/// The bias of a layer whose weight is packed.
pub(crate) fn packed_bias(bias: Option<&Tensor>) -> Result<Option<Arc<[f32]>>> {
    bias.map(|bias| with_slice(bias, |bias| Ok(bias.into()))).transpose()
}

/// Reads the quantized weight called `name`, if the checkpoint has one and the CPU kernels can use it. On other
/// devices a layer reads it unpacked, in its compute dtype, since GPU kernels take f16.
pub(super) fn read_quantized(
    vb: &VarBuilder,
    name: &str,
    size: FactorSize,
) -> Result<Option<QuantizedWeight>> {
    let row = size.taps * size.depth;
    let is_there = |kind: &BlockType| vb.contains_tensor(&kind.blocks_name(name));
    let Some(kind) = BlockType::ALL.into_iter().find(is_there).filter(|_| vb.device().is_cpu()) else {
        return Ok(None);
    };
    let Some(row_bytes) = kind.bytes_of(row) else {
        candle_core::bail!("{name}: rows of {row} numbers do not divide into blocks of {}", kind.name())
    };
    let shape = (size.columns, row_bytes);
    let bytes = vb.get_with_hints_dtype(shape, &kind.blocks_name(name), Init::Const(0.), DType::U8)?;
    QuantizedWeight::new(kind, &bytes.flatten_all()?.to_vec1::<u8>()?, size).map(Some)
}
