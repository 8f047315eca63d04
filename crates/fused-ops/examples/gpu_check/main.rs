//! Checks every CUDA kernel against f64 on the CPU and times it, for `scripts/gpu-check.sh`.
//!
//!     gpu_check check          every operation in f16 and bf16, at the shapes of the models and odd ones
//!     gpu_check check --small  the small shapes alone, for compute-sanitizer
//!     gpu_check check attention|conv2d [--small]
//!                              the same of these alone
//!     gpu_check time           a line of JSON for each operation: median milliseconds, and what its floor is made of
//!     gpu_check time attention|conv2d
//!                              the same of these alone
//!
//! With `FUSED_OPS_ATTENTION=hopper`, attention over many keys uses the Hopper kernels, and `time` covers only their
//! shapes. `FUSED_OPS_CONVOLUTION` selects the convolutions.
//!
//! An operation that no kernel covers, and so takes the reference path, is a failure too: the program reads the
//! events.

mod check;
mod misses;
mod shapes;
mod time;

use candle_core::Result;
use check::{check, check_attention, check_conv2d, check_everything};
use fused_ops::cuda_device;
use misses::Misses;
use time::{time_attention, time_conv2d, time_others};

fn main() -> Result<()> {
    let misses = Misses::default();
    tracing::subscriber::set_global_default(misses.clone()).map_err(candle_core::Error::wrap)?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let device = cuda_device(0)?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => check(&device, &misses, false, check_everything),
        ["check", "--small"] => check(&device, &misses, true, check_everything),
        ["check", "attention"] => check(&device, &misses, false, check_attention),
        ["check", "attention", "--small"] => check(&device, &misses, true, check_attention),
        ["check", "conv2d"] => check(&device, &misses, false, check_conv2d),
        ["check", "conv2d", "--small"] => check(&device, &misses, true, check_conv2d),
        ["time"] => time_attention(&device, &misses)
            .and_then(|()| time_conv2d(&device, &misses))
            .and_then(|()| time_others(&device, &misses)),
        ["time", "attention"] => time_attention(&device, &misses),
        ["time", "conv2d"] => time_conv2d(&device, &misses),
        _ => candle_core::bail!(
            "usage: gpu_check check [attention|conv2d] [--small] | time [attention|conv2d]"
        ),
    }
}
