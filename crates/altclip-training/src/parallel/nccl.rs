//! Connects ranks with NVIDIA GPUs, exchanging gradients between GPUs through NCCL.

use super::communicator::Communicator;
use super::sockets::Sockets;
use crate::error::{Error, Result};
use candle_core::backend::BackendStorage;
use candle_core::cuda::CudaStorage;
use candle_core::cuda::cudarc::nccl::result::NcclError;
use candle_core::cuda::cudarc::nccl::{Comm, Id, ReduceOp};
use candle_core::{CpuStorage, CudaDevice, CustomOp1, Layout, Shape, Tensor};
use std::ffi::c_char;

/// Bytes of the identifier that rank 0 creates.
const ID_BYTES: usize = 128;

/// Ranks that sum tensors with NCCL, each on its own GPU, and exchange the rest over sockets.
///
/// A rank lost between two exchanges is an error, as with [`Sockets`]. If one is lost while NCCL sums, the others
/// wait forever, as is usual with NCCL.
#[derive(Debug)]
pub struct Nccl {
    sockets: Sockets,
    comm: Comm,
}

impl Nccl {
    /// Connects the GPUs of ranks that have met.
    ///
    /// # Errors
    /// If a rank is lost, or NCCL cannot connect the GPUs, for example because two ranks share one.
    pub fn new(sockets: Sockets, device: &CudaDevice) -> Result<Self> {
        let (rank, ranks) = (sockets.rank(), sockets.ranks());
        let mut id = if rank == 0 { *Id::new().map_err(failed)?.internal() } else { [0; ID_BYTES] };
        for byte in &mut id {
            // All use rank 0's value.
            let first = sockets.gather(u64::from(byte.to_ne_bytes()[0]))?.first().copied();
            *byte =
                c_char::from_ne_bytes([first.and_then(|value| u8::try_from(value).ok()).unwrap_or_default()]);
        }
        let comm = Comm::from_rank(device.cuda_stream(), rank, ranks, Id::uninit(id)).map_err(failed)?;
        Ok(Self { sockets, comm })
    }
}

fn failed(error: NcclError) -> Error {
    Error::Setting(format!("NCCL: {:?}; the variable NCCL_DEBUG=INFO makes it say more", error.0))
}

impl Communicator for Nccl {
    fn rank(&self) -> usize {
        self.sockets.rank()
    }

    fn ranks(&self) -> usize {
        self.sockets.ranks()
    }

    fn sum(&self, values: &Tensor) -> Result<Tensor> {
        Ok(values.apply_op1_no_bwd(&AllReduce(&self.comm))?)
    }

    fn gather(&self, word: u64) -> Result<Vec<u64>> {
        self.sockets.gather(word)
    }
}

/// A sum over all ranks, received by all.
struct AllReduce<'a>(&'a Comm);

impl CustomOp1 for AllReduce<'_> {
    fn name(&self) -> &'static str {
        "all-reduce"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        candle_core::bail!("NCCL sums tensors on a GPU, found one on the CPU")
    }

    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("NCCL sums contiguous tensors, found {layout:?}")
        };
        let Some(values) = storage.as_cuda_slice::<f32>()?.try_slice(start..end) else {
            candle_core::bail!("a tensor of {layout:?} is larger than its memory")
        };
        let device = storage.device();
        let mut sum = device.alloc_zeros::<f32>(end - start)?;
        self.0
            .all_reduce(&values, &mut sum, &ReduceOp::Sum)
            .map_err(|error| candle_core::Error::wrap(failed(error)))?;
        Ok((CudaStorage::wrap_cuda_slice(sum, device.clone()), layout.shape().clone()))
    }
}
