//! Times the operations of the models.

use crate::misses::Misses;
use crate::shapes::{AttentionShape, DTYPES, MODEL_SHAPES, MODEL_WINDOWS, Window, layers, name, random, vb};
use candle_core::{DType, Device, Result, Tensor};
use fused_ops::{
    AttentionKernels, Epilogue, GroupNorm, LayerNorm, Linear, Recording, Settings, attention, geglu,
};

/// Inputs to rotate through, so that nothing is in the cache: 6 of the largest are 94 MB.
const INPUT_SETS: usize = 6;
/// Passes over all inputs between two events, and the number of measurements.
const TURNS: usize = 4;
const MEASUREMENTS: usize = 15;

/// Milliseconds per run on the device, the mean between two CUDA events; the median of several measurements. The runs
/// form one CUDA graph, so that nothing waits for the host.
fn milliseconds(device: &Device, run: impl Fn(usize) -> Result<Tensor> + Send + 'static) -> Result<f64> {
    let stream = device.as_cuda_device()?.cuda_stream();
    let event = || {
        let timed = candle_core::cuda::cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
        stream.record_event(Some(timed)).map_err(candle_core::Error::wrap)
    };
    let (all, _) = Recording::new(move || {
        for i in 1..TURNS * INPUT_SETS {
            run(i % INPUT_SETS)?;
        }
        // A recording copies its result; return only a little of it.
        run(0)?.flatten_all()?.narrow(0, 0, 8)
    })?;
    all.replay()?;
    let mut times = Vec::with_capacity(MEASUREMENTS);
    for _ in 0..MEASUREMENTS {
        let begin = event()?;
        all.replay()?;
        let end = event()?;
        let milliseconds = begin.elapsed_ms(&end).map_err(candle_core::Error::wrap)?;
        times.push(f64::from(milliseconds) / (TURNS * INPUT_SETS) as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[MEASUREMENTS / 2])
}

/// Prints a line for `scripts/compare-kernels.py`, which times the same in PyTorch: `what` is the operation with its
/// shape.
fn report(
    misses: &Misses,
    what: &str,
    dtype: DType,
    milliseconds: f64,
    flops: f64,
    bytes: f64,
) -> Result<()> {
    if misses.take() > 0 {
        candle_core::bail!("not its kernel ran for {what}");
    }
    let dtype = name(dtype);
    println!(
        r#"{{{what}, "dtype": "{dtype}", "ms": {milliseconds:.6}, "flops": {flops:.0}, "bytes": {bytes:.0}}}"#
    );
    Ok(())
}

fn sets(shape: &[usize], dtype: DType, device: &Device) -> Result<Vec<Tensor>> {
    (0..INPUT_SETS).map(|_| random(shape, dtype, device)).collect()
}

pub(crate) fn time_attention(device: &Device, misses: &Misses) -> Result<()> {
    let hopper = Settings::current()?.attention == AttentionKernels::Hopper;
    // Shapes for the default kernels are timed without the variable.
    let takes_hopper = |shape: &AttentionShape| matches!(shape.head_dim, 40 | 64) && shape.keys > 80;
    for dtype in DTYPES {
        let shapes = MODEL_SHAPES.into_iter().filter(|shape| !hopper || takes_hopper(shape));
        for AttentionShape { batch, queries, keys, heads, head_dim } in shapes {
            let width = heads * head_dim;
            let query = sets(&[batch, queries, width], dtype, device)?;
            let key = sets(&[batch, keys, width], dtype, device)?;
            let value = sets(&[batch, keys, width], dtype, device)?;
            let time = milliseconds(device, move |i| attention(&query[i], &key[i], &value[i], heads, None))?;
            let what = format!(
                r#""op": "attention", "batch": {batch}, "queries": {queries}, "keys": {keys}, "heads": {heads}, "head_dim": {head_dim}, "hopper": {hopper}"#
            );
            let flops = (4 * batch * queries * keys * width) as f64;
            let bytes = (2 * batch * (2 * queries + 2 * keys) * width) as f64;
            report(misses, &what, dtype, time, flops, bytes)?;
        }
    }
    Ok(())
}

pub(crate) fn time_conv2d(device: &Device, misses: &Misses) -> Result<()> {
    let whose = std::env::var("FUSED_OPS_CONVOLUTION").unwrap_or_else(|_| "default".to_owned());
    for dtype in DTYPES {
        for window in MODEL_WINDOWS {
            let Window { batch, side, channels, out_channels, kernel, upsample, .. } = window;
            let x = sets(&[batch, side, side, channels], dtype, device)?;
            let layer = window.layer(&window.parameters(dtype, device)?, dtype, device)?;
            let time = milliseconds(device, move |i| layer.forward(&x[i]))?;
            let what = format!(
                r#""op": "conv2d", "batch": {batch}, "side": {side}, "channels": {channels}, "out_channels": {out_channels}, "kernel": {kernel}, "upsample": {upsample}, "whose": "{whose}"#
            );
            // After doubling, taps on the same pixel can be merged: four remain of nine.
            let (places, taps) = if upsample { (4, 4) } else { (1, kernel * kernel) };
            let (pixels, weights) = (batch * side * side, taps * channels * out_channels);
            let flops = (2 * pixels * places * weights) as f64;
            let bytes = (2 * (pixels * channels + pixels * places * out_channels + weights)) as f64;
            report(misses, &what, dtype, time, flops, bytes)?;
        }
    }
    Ok(())
}

pub(crate) fn time_others(device: &Device, misses: &Misses) -> Result<()> {
    for dtype in DTYPES {
        for (batch, side, channels) in [(2, 64, 320), (2, 32, 640), (2, 16, 1280), (1, 512, 128)] {
            let x = sets(&[batch, side, side, channels], dtype, device)?;
            let norm =
                GroupNorm::new(32, channels, 1e-5, vb(&layers(channels, dtype, device)?, dtype, device))?;
            let time = milliseconds(device, move |i| norm.forward_silu(&x[i]))?;
            let what = format!(
                r#""op": "group_norm_silu", "batch": {batch}, "side": {side}, "channels": {channels}"#
            );
            report(misses, &what, dtype, time, 0., (4 * batch * side * side * channels) as f64)?;
        }
        // XLM-R large's projections, and the end of its feed-forward and the UNet's.
        for [rows, in_features, out_features, residual] in
            [[1400, 1024, 3072, 0], [4928, 1024, 3072, 0], [4928, 4096, 1024, 1], [8192, 1280, 320, 1]]
        {
            let x = sets(&[rows, in_features], dtype, device)?;
            let weight = random(&[out_features, in_features], dtype, device)?;
            let layer = Linear::from_tensors(weight, Some(random(&[out_features], dtype, device)?))?;
            let added = (residual == 1).then(|| sets(&[rows, out_features], dtype, device)).transpose()?;
            let time = milliseconds(device, move |i| {
                let residual = added.as_ref().map(|added| &added[i]);
                layer.forward_with(&x[i], &Epilogue { residual, ..Epilogue::default() })
            })?;
            let what = format!(
                r#""op": "linear", "rows": {rows}, "in_features": {in_features}, "out_features": {out_features}, "residual": {residual}"#
            );
            let flops = (2 * rows * in_features * out_features) as f64;
            let weights = in_features * out_features;
            let bytes = (2 * (rows * in_features + (1 + residual) * rows * out_features + weights)) as f64;
            report(misses, &what, dtype, time, flops, bytes)?;
        }
        for (rows, size) in [(8192, 320), (2048, 640), (512, 1280), (1024, 1024)] {
            let x = sets(&[rows, size], dtype, device)?;
            let norm = LayerNorm::new(size, 1e-5, vb(&layers(size, dtype, device)?, dtype, device))?;
            let time = milliseconds(device, move |i| norm.forward(&x[i]))?;
            let what = format!(r#""op": "layer_norm", "rows": {rows}, "size": {size}"#);
            report(misses, &what, dtype, time, 0., (4 * rows * size) as f64)?;
        }
        for (rows, columns) in [(8192, 1280), (2048, 2560), (512, 5120)] {
            let x = sets(&[rows, 2 * columns], dtype, device)?;
            let time = milliseconds(device, move |i| geglu(&x[i]))?;
            let what = format!(r#""op": "geglu", "rows": {rows}, "columns": {columns}"#);
            report(misses, &what, dtype, time, 0., (6 * rows * columns) as f64)?;
        }
    }
    Ok(())
}
