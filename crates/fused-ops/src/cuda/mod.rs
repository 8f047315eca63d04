//! The CUDA side of the operations: which kernel runs for which shape, and its launch on candle tensors.
//!
//! `launches` turns shapes and addresses into launches, and knows nothing of a device, so that tests can run the same ones
//! without one. The other files bring those and tensors together. A function gives `None` where no kernel covers what it is
//! asked, an event says why, and the caller takes the reference path; the same where somebody wants gradients.

mod attention;
mod choice;
mod conv2d;
mod cudnn;
mod device;
mod graph;
mod launches;
mod layers;
mod normalization;
mod open;
mod product;
mod readback;
mod step;

pub(crate) use attention::{attention, packed_attention};
pub(crate) use conv2d::{ConvolutionWeights, conv2d, lay_out_weight, phases};
pub(crate) use graph::Graph;
pub(crate) use layers::{epilogue, geglu, linear, linear_geglu};
pub(crate) use normalization::{covers_layer_norm, group_norm, layer_norm};
pub(crate) use open::cuda_device;
pub(crate) use readback::Pinned;
pub(crate) use step::{linear_step, timestep_embedding, to_bytes};

use candle_core::{DType, Device, Result, Tensor};
use device::{Kernels, Reading, Writing};
use launches::launch::{Address, Element, NotCovered};

/// Why a launch was not made, or that it was.
type Launched = std::result::Result<Result<()>, NotCovered>;

/// The type of tensors that kernels can take: f16 or bf16, all the same, on one GPU, and nobody wants gradients.
fn element<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> std::result::Result<Element, NotCovered> {
    let mut element = None;
    for tensor in tensors {
        let this = element_of(tensor.dtype())?;
        if tensor.track_op() {
            return Err(NotCovered("gradients are wanted"));
        }
        if *element.get_or_insert(this) != this {
            return Err(NotCovered("tensors of different types"));
        }
    }
    element.ok_or(NotCovered("no tensors"))
}

fn element_of(dtype: DType) -> std::result::Result<Element, NotCovered> {
    match dtype {
        DType::F16 => Ok(Element::F16),
        DType::BF16 => Ok(Element::Bf16),
        _ => Err(NotCovered("a type other than f16 and bf16")),
    }
}

/// The address of what may be missing.
fn optional(address: Address) -> Option<Address> {
    (address != 0).then_some(address)
}

/// Says why an operation takes the reference path.
fn no_kernel<T>(operation: &'static str, NotCovered(reason): NotCovered) -> Result<Option<T>> {
    tracing::debug!(operation, reason, "no CUDA kernel: the reference runs");
    Ok(None)
}

/// Runs an operation of values of this type, on tensors of which some may be missing. `launch` gets the address of each,
/// 0 for those that are missing, and those of the results, which get these shapes and types.
fn run<const N: usize, const M: usize>(
    operation: &'static str,
    element: std::result::Result<Element, NotCovered>,
    inputs: [Option<&Tensor>; N],
    results: [(&[usize], DType); M],
    launch: impl FnOnce(&Kernels, Element, [Address; N], [Address; M]) -> Launched,
) -> Result<Option<[Tensor; M]>> {
    let Some(Device::Cuda(device)) = inputs.iter().flatten().map(|first| first.device()).next() else {
        return Ok(None);
    };
    let element = match element {
        Ok(element) => element,
        Err(reason) => return no_kernel(operation, reason),
    };
    let kernels = Kernels::of(device)?;
    let reading = inputs.map(|input| input.map(Reading::new));
    let mut writing = Vec::with_capacity(M);
    for (shape, dtype) in results {
        writing.push(Writing::new(device, shape, dtype)?);
    }
    let launched = {
        // Until these are dropped, after the launch, no other stream may touch the tensors.
        let mut guards = Vec::with_capacity(N + M);
        let (mut from, mut to) = ([0; N], [0; M]);
        for (address, reading) in from.iter_mut().zip(&reading) {
            if let Some(reading) = reading {
                let (found, guard) = reading.address(kernels.stream())?;
                *address = found;
                guards.push(guard);
            }
        }
        for (address, writing) in to.iter_mut().zip(&mut writing) {
            let (found, guard) = writing.address(kernels.stream())?;
            *address = found;
            guards.push(guard);
        }
        launch(&kernels, element, from, to)
    };
    match launched {
        Ok(launched) => {
            launched?;
            let tensors =
                writing.into_iter().zip(results).map(|(written, (shape, _))| written.into_tensor(shape));
            Ok(tensors.collect::<Vec<_>>().try_into().ok())
        }
        Err(reason) => no_kernel(operation, reason),
    }
}

/// The only result of an operation.
fn only(results: Option<[Tensor; 1]>) -> Option<Tensor> {
    results.map(|[result]| result)
}
