//! The CUDA side of the operations: which kernel runs for which shape, and its launch on candle tensors.
//!
//! A file for each operation turns a shape and addresses into a launch, and knows nothing of a device, so that tests can
//! run the same launches without one. Here those meet tensors. A function gives `None` where no kernel covers what it is
//! asked, an event says why, and the caller takes the reference path; the same where somebody wants gradients.

mod attention;
mod denoise;
mod device;
mod epilogue;
mod group_norm;
mod launch;
mod layer_norm;

use crate::activation::Activation;
use crate::custom::as_f32;
use crate::epilogue::Epilogue;
use crate::step::{LinearStep, MOST_HISTORY, Sinusoids, Stepped};
use attention::Rows;
use candle_core::{D, DType, Device, Result, Tensor};
use device::{Kernels, Reading, Writing};
use launch::{Address, Element, NotCovered};

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

/// As [`crate::attention()`] or [`crate::causal_attention()`], of shapes that fit together.
pub(crate) fn attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    key_bias: Option<&Tensor>,
    causal: bool,
) -> Result<Option<Tensor>> {
    let (batch, queries, width) = query.dims3()?;
    let keys = key.dim(1)?;
    let key_bias = key_bias.map(as_f32).transpose()?;
    let inputs = [Some(query), Some(key), Some(value), key_bias.as_ref()];
    let results = [(query.dims(), query.dtype())];
    run(
        "attention",
        element([query, key, value]),
        inputs,
        results,
        |kernels, element, [q, k, v, bias], [out]| {
            let op = attention::Attention {
                element,
                batch,
                queries,
                keys,
                heads,
                head_dim: width / heads,
                query: rows(query, q)?,
                key: rows(key, k)?,
                value: rows(value, v)?,
                out: Rows { address: out, batch_stride: queries * width, row_stride: width },
                key_bias: optional(bias),
                offsets: None,
                causal,
            };
            Ok(kernels.launch(&op.launch(kernels.multiprocessors())?))
        },
    )
    .map(only)
}

/// Where the rows of a tensor (batch, rows, width) lie, which may be a part of the columns of a wider one.
fn rows(x: &Tensor, address: Address) -> std::result::Result<Rows, NotCovered> {
    match *x.stride() {
        [batch_stride, row_stride, 1] => Ok(Rows { address, batch_stride, row_stride }),
        _ => Err(NotCovered("rows whose values do not lie side by side")),
    }
}

/// As [`crate::GroupNorm`], of `x + shift`.
pub(crate) fn group_norm(
    x: &Tensor,
    shift: Option<&Tensor>,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Result<Option<Tensor>> {
    let (batch, channels) = (x.dim(0)?, x.dim(D::Minus1)?);
    // The definition has the words for what does not fit.
    if weight.dims() != [channels] || bias.dims() != [channels] || !x.device().is_cuda() {
        return Ok(None);
    }
    let pixels = x.elem_count() / (batch * channels).max(1);
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    let shift = shift.map(Tensor::contiguous).transpose()?;
    let inputs = [Some(&x), Some(&weight), Some(&bias), shift.as_ref()];
    let element = element(inputs.into_iter().flatten());
    run("group_norm", element, inputs, [(x.dims(), x.dtype())], |kernels, element, from, [out]| {
        let [x, weight, bias, shift] = from;
        let shift = optional(shift);
        let op = group_norm::GroupNorm {
            element,
            batch,
            pixels,
            channels,
            groups,
            eps,
            silu,
            x,
            weight,
            bias,
            shift,
            out,
        };
        // Checked before memory is asked for; the address comes after.
        op.launches(0, kernels.multiprocessors())?;
        let partial = match kernels.scratch(op.partial_len(kernels.multiprocessors())) {
            Ok(partial) => partial,
            Err(error) => return Ok(Err(error)),
        };
        let (partial, _guard) = partial.address(kernels.stream());
        let launches = op.launches(partial, kernels.multiprocessors())?;
        Ok(launches.iter().try_for_each(|launch| kernels.launch(launch)))
    })
    .map(only)
}

/// As [`crate::LayerNorm::forward`].
pub(crate) fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Option<Tensor>> {
    let size = x.dim(D::Minus1)?;
    if weight.dims() != [size] || bias.dims() != [size] || !x.device().is_cuda() {
        return Ok(None);
    }
    let rows = x.elem_count() / size.max(1);
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    let inputs = [Some(&x), Some(&weight), Some(&bias)];
    let element = element(inputs.into_iter().flatten());
    run("layer_norm", element, inputs, [(x.dims(), x.dtype())], |kernels, element, from, [out]| {
        let [x, weight, bias] = from;
        let (residual, sum) = (None, None);
        let op = layer_norm::LayerNorm { element, rows, size, eps, x, residual, weight, bias, sum, out };
        Ok(kernels.launch(&op.launch()?))
    })
    .map(only)
}

/// As [`crate::LayerNorm::forward_residual`], of shapes that are the same.
pub(crate) fn layer_norm_residual(
    x: &Tensor,
    residual: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    eps: f64,
) -> Result<Option<[Tensor; 2]>> {
    let size = x.dim(D::Minus1)?;
    if weight.dims() != [size] || bias.dims() != [size] || !x.device().is_cuda() {
        return Ok(None);
    }
    let rows = x.elem_count() / size.max(1);
    let (x, residual) = (x.contiguous()?, residual.contiguous()?);
    let (weight, bias) = (weight.contiguous()?, bias.contiguous()?);
    let inputs = [Some(&x), Some(&residual), Some(&weight), Some(&bias)];
    let element = element(inputs.into_iter().flatten());
    let results = [(x.dims(), x.dtype()), (x.dims(), x.dtype())];
    run("layer_norm", element, inputs, results, |kernels, element, from, [sum, out]| {
        let [x, residual, weight, bias] = from;
        let (residual, sum) = (Some(residual), Some(sum));
        let op = layer_norm::LayerNorm { element, rows, size, eps, x, residual, weight, bias, sum, out };
        Ok(kernels.launch(&op.launch()?))
    })
}

/// As [`crate::geglu()`].
pub(crate) fn geglu(x: &Tensor) -> Result<Option<Tensor>> {
    let mut dims = x.dims().to_vec();
    let columns = match dims.last_mut() {
        Some(last) if last.is_multiple_of(2) => {
            *last /= 2;
            *last
        }
        _ => return Ok(None),
    };
    let rows = x.elem_count() / (2 * columns).max(1);
    let contiguous = x.contiguous()?;
    let results = [(&dims[..], x.dtype())];
    run("geglu", element([x]), [Some(&contiguous)], results, |kernels, element, [address], [out]| {
        let op = epilogue::Geglu { element, rows, columns, x: address, bias: None, out };
        Ok(kernels.launch(&op.launch()?))
    })
    .map(only)
}

/// As [`Epilogue`]: `activation(x + shift + residual)`.
pub(crate) fn epilogue(x: &Tensor, epilogue: &Epilogue) -> Result<Option<Tensor>> {
    let Epilogue { shift, residual, activation } = *epilogue;
    let nothing = shift.is_none() && residual.is_none() && activation.is_none();
    if nothing || !x.device().is_cuda() {
        return Ok(None);
    }
    let (pictures, columns) = (x.dim(0)?, x.dim(D::Minus1)?);
    let fits = shift.is_none_or(|shift| shift.dims() == [pictures, columns])
        && residual.is_none_or(|residual| residual.dims() == x.dims());
    // The definition has the words for what does not fit.
    if !fits {
        return Ok(None);
    }
    let rows = x.elem_count() / columns.max(1);
    let contiguous = x.contiguous()?;
    let (shift, residual) =
        (shift.map(Tensor::contiguous).transpose()?, residual.map(Tensor::contiguous).transpose()?);
    let inputs = [Some(&contiguous), shift.as_ref(), residual.as_ref()];
    let results = [(x.dims(), x.dtype())];
    run(
        "epilogue",
        element(inputs.into_iter().flatten()),
        inputs,
        results,
        |kernels, element, [address, shift_address, residual_address], [out]| {
            let op = epilogue::Epilogue {
                element,
                rows,
                columns,
                x: address,
                bias: None,
                shift: optional(shift_address),
                rows_per_picture: rows / pictures.max(1),
                residual: optional(residual_address),
                activation: match activation {
                    None => epilogue::Activation::None,
                    Some(Activation::Gelu) => epilogue::Activation::Gelu,
                    Some(Activation::QuickGelu) => epilogue::Activation::QuickGelu,
                    Some(Activation::Silu) => epilogue::Activation::Silu,
                },
                out,
            };
            Ok(kernels.launch(&op.launch()?))
        },
    )
    .map(only)
}

/// As [`crate::packed_attention()`], of shapes that fit together.
pub(crate) fn packed_attention(
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    heads: usize,
    lengths: &[usize],
) -> Result<Option<Tensor>> {
    if !query.device().is_cuda() {
        return Ok(None);
    }
    let (_, width) = query.dims2()?;
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let mut offsets = Vec::with_capacity(lengths.len() + 1);
    let mut end = 0i32;
    offsets.push(end);
    for &length in lengths {
        let sum = i32::try_from(length).ok().and_then(|length| end.checked_add(length));
        end = sum.ok_or_else(|| candle_core::Error::msg("packed attention over more than 2³¹ rows"))?;
        offsets.push(end);
    }
    let offsets = Tensor::new(offsets, query.device())?;
    let inputs = [Some(query), Some(key), Some(value), Some(&offsets)];
    let results = [(query.dims(), query.dtype())];
    run(
        "packed_attention",
        element([query, key, value]),
        inputs,
        results,
        |kernels, element, [q, k, v, offsets], [out]| {
            let rows = |x: &Tensor, address| match *x.stride() {
                [row_stride, 1] => Ok(Rows { address, batch_stride: 0, row_stride }),
                _ => Err(NotCovered("rows whose values do not lie side by side")),
            };
            let op = attention::Attention {
                element,
                batch: lengths.len(),
                queries: longest,
                keys: longest,
                heads,
                head_dim: width / heads,
                query: rows(query, q)?,
                key: rows(key, k)?,
                value: rows(value, v)?,
                out: Rows { address: out, batch_stride: 0, row_stride: width },
                key_bias: None,
                offsets: Some(offsets),
                causal: false,
            };
            Ok(kernels.launch(&op.launch(kernels.multiprocessors())?))
        },
    )
    .map(only)
}

/// As [`crate::timestep_embedding()`].
pub(crate) fn timestep_embedding(
    timesteps: &Tensor,
    sinusoids: Sinusoids,
    dtype: DType,
) -> Result<Option<Tensor>> {
    let batch = timesteps.dim(0)?;
    let timesteps = as_f32(timesteps)?;
    let results = [(&[batch, sinusoids.channels][..], dtype)];
    run(
        "timestep_embedding",
        element_of(dtype),
        [Some(&timesteps)],
        results,
        |kernels, element, [address], [out]| {
            let op = denoise::TimestepEmbedding {
                element,
                batch,
                channels: sinusoids.channels,
                cosines_first: sinusoids.flip_sin_to_cos,
                freq_shift: sinusoids.freq_shift,
                timesteps: address,
                out,
            };
            Ok(kernels.launch(&op.launch()?))
        },
    )
    .map(only)
}

/// As [`LinearStep::apply`], of shapes that fit together.
pub(crate) fn linear_step(step: &LinearStep, output: &Tensor, sample: &Tensor) -> Result<Option<Stepped>> {
    if !output.device().is_cuda() {
        return Ok(None);
    }
    let (batch, channels, height, width) = sample.dims4()?;
    let output = output.contiguous()?;
    let (sample, coefficients) = (as_f32(sample)?, as_f32(step.coefficients)?);
    let history = step.history.iter().map(|earlier| as_f32(earlier)).collect::<Result<Vec<_>>>()?;
    let earlier: [Option<&Tensor>; MOST_HISTORY] = std::array::from_fn(|i| history.get(i));
    let inputs = [Some(&output), Some(&sample), Some(&coefficients), earlier[0], earlier[1], earlier[2]];
    let results = [(sample.dims(), DType::F32), (sample.dims(), DType::F32), (output.dims(), output.dtype())];
    let stepped = run(
        "linear_step",
        element([&output]),
        inputs,
        results,
        |kernels, element, from, [next, kept, next_input]| {
            let [output_address, sample, coefficients, history @ ..] = from;
            let op = denoise::GuidedStep {
                element,
                batch,
                pixels: height * width,
                channels,
                guided: step.guided,
                output: output_address,
                sample,
                history: history.map(optional),
                coefficients,
                next,
                kept: Some(kept),
                next_input,
            };
            Ok(kernels.launch(&op.launch()?))
        },
    )?;
    Ok(stepped.map(|[sample, output, model_input]| Stepped { sample, output, model_input }))
}

/// As [`crate::to_bytes()`].
pub(crate) fn to_bytes(x: &Tensor) -> Result<Option<Tensor>> {
    let contiguous = x.contiguous()?;
    run(
        "to_bytes",
        element([x]),
        [Some(&contiguous)],
        [(x.dims(), DType::U8)],
        |kernels, element, [address], [out]| {
            let op = denoise::Bytes { element, count: x.elem_count(), x: address, out };
            Ok(kernels.launch(&op.launch()?))
        },
    )
    .map(only)
}
