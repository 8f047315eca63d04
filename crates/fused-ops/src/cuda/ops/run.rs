//! Runs an operation on tensors: finds their addresses, allocates the results, and keeps both alive until the launch.

use super::super::launch::description::{Address, Element, NotCovered};
use super::super::runtime::storage::{Reading, Writing};
use super::super::tune::dispatch::Dispatch;
use super::super::tune::launched::Launched;
use candle_core::{DType, Device, Result, Tensor};

/// The element type of tensors that kernels can take: all f16 or all bf16, on one GPU, without gradients.
pub(super) fn element<'a>(
    tensors: impl IntoIterator<Item = &'a Tensor>,
) -> std::result::Result<Element, NotCovered> {
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

pub(super) fn element_of(dtype: DType) -> std::result::Result<Element, NotCovered> {
    match dtype {
        DType::F16 => Ok(Element::F16),
        DType::BF16 => Ok(Element::Bf16),
        _ => Err(NotCovered("a type other than f16 and bf16")),
    }
}

/// The address of an optional tensor.
pub(super) fn optional(address: Address) -> Option<Address> {
    (address != 0).then_some(address)
}

/// Logs why an operation takes the reference path.
pub(super) fn no_kernel<T>(operation: &'static str, NotCovered(reason): NotCovered) -> Result<Option<T>> {
    tracing::debug!(operation, reason, "no CUDA kernel: the reference runs");
    Ok(None)
}

/// Runs an operation on optional tensors of this type. `launch` gets the address of each, 0 for missing ones, and
/// those of the results, which are allocated with these shapes and types. All memory is kept until `launch` returns.
///
/// # Safety
/// If `launch` reports a launch, it writes all values of the results.
pub(super) unsafe fn run<const N: usize, const M: usize>(
    operation: &'static str,
    element: std::result::Result<Element, NotCovered>,
    inputs: [Option<&Tensor>; N],
    results: [(&[usize], DType); M],
    launch: impl FnOnce(&Dispatch, Element, [Address; N], [Address; M]) -> Launched,
) -> Result<Option<[Tensor; M]>> {
    let Some(Device::Cuda(device)) = inputs.iter().flatten().map(|first| first.device()).next() else {
        return Ok(None);
    };
    let element = match element {
        Ok(element) => element,
        Err(reason) => return no_kernel(operation, reason),
    };
    let dispatch = Dispatch::of(device)?;
    let stream = dispatch.kernels().stream();
    let reading = inputs.map(|input| input.map(Reading::new));
    let mut writing = Vec::with_capacity(M);
    for (shape, dtype) in results {
        writing.push(Writing::new(device, shape, dtype)?);
    }
    let launched = {
        // Until these guards are dropped, after the launch, no other stream may touch the tensors.
        let mut guards = Vec::with_capacity(N + M);
        let (mut from, mut to) = ([0; N], [0; M]);
        for (address, reading) in from.iter_mut().zip(&reading) {
            if let Some(reading) = reading {
                let (found, guard) = reading.address(stream)?;
                *address = found;
                guards.push(guard);
            }
        }
        for (address, writing) in to.iter_mut().zip(&mut writing) {
            let (found, guard) = writing.address(stream)?;
            *address = found;
            guards.push(guard);
        }
        launch(&dispatch, element, from, to)
    };
    match launched {
        Ok(launched) => {
            launched?;
            let tensors = writing
                .into_iter()
                .zip(results)
                // SAFETY: the caller guarantees that the launch writes them.
                .map(|(written, (shape, _))| unsafe { written.into_tensor(shape) });
            Ok(tensors.collect::<Vec<_>>().try_into().ok())
        }
        Err(reason) => no_kernel(operation, reason),
    }
}

/// The only result of an operation.
pub(super) fn only(results: Option<[Tensor; 1]>) -> Option<Tensor> {
    results.map(|[result]| result)
}
