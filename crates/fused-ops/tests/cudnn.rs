//! Asks cuDNN for a plan for every convolution that is left to it. cuDNN can plan for a GPU that is only described;
//! whether a plan computes correctly, only a GPU can show.

#![allow(unsafe_code, reason = "calls C")]

use std::io::Write;

// The crate's own code, which does not depend on a device.
#[allow(dead_code, reason = "no plan is run here")]
#[path = "../src/cuda/runtime/cudnn/mod.rs"]
mod cudnn;
#[allow(dead_code, reason = "no kernel is launched here")]
#[path = "../src/cuda/launch/mod.rs"]
mod launch;

/// What the launches import from the crate.
mod shapes {
    pub(crate) use fused_ops::{Activation, Sinusoids};
}

use cudnn::graph::Conv2dShape;
use cudnn::library::Library;
use cudnn::plan::Plan;
use cudnn::target::Target;
use fused_ops::Activation;
use launch::conv2d::Conv2dOperands;
use launch::description::Element;

/// The properties of a GPU that plans depend on.
struct Gpu {
    name: &'static str,
    capability: u32,
    multiprocessors: u32,
    /// Shared memory that a block can request.
    shared_bytes: u32,
    cache_bytes: u32,
    threads: u32,
}

const GPUS: [Gpu; 3] = [
    Gpu {
        name: "NVIDIA H100 80GB HBM3",
        capability: 900,
        multiprocessors: 132,
        shared_bytes: 232_448,
        cache_bytes: 50 << 20,
        threads: 2048,
    },
    Gpu {
        name: "NVIDIA A100-SXM4-80GB",
        capability: 800,
        multiprocessors: 108,
        shared_bytes: 166_912,
        cache_bytes: 40 << 20,
        threads: 2048,
    },
    Gpu {
        name: "NVIDIA GeForce RTX 4090",
        capability: 890,
        multiprocessors: 128,
        shared_bytes: 101_376,
        cache_bytes: 72 << 20,
        threads: 1536,
    },
];

impl Gpu {
    /// The properties in cuDNN 9.21's format.
    fn properties(&self) -> String {
        let Self { name, capability, multiprocessors, shared_bytes, cache_bytes, threads } = self;
        format!(
            r#"{{
                "deviceName": "{name}", "deviceVer": {capability}, "driverVer": 13000,
                "cudaDeviceId": 0, "pciDeviceId": 0, "isTccDriver": 0, "supportCoopLaunch": 1,
                "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64],
                "multiProcessorCount": {multiprocessors}, "warpSize": 32, "maxThreadsPerBlock": 1024,
                "maxThreadsPerSM": {threads}, "maxCtasPerSM": 32, "regsPerBlock": 65536, "maxRegistersPerSM": 65536,
                "maxSharedMemoryPerBlock": 49152, "maxSharedMemoryPerBlockOptin": {shared_bytes},
                "reservedSharedMemoryPerBlock": 1024, "l2CacheSize": {cache_bytes},
                "totalGlobalMem": 25000000000, "smClockRateKHz": 1980000, "memClockRateKHz": 2619000
            }}"#
        )
    }
}

/// The library, kept loaded like its objects.
fn library() -> Option<&'static Library> {
    match Library::open() {
        Ok(library) => Some(Box::leak(Box::new(library))),
        Err(failure) => {
            // Written directly, because the test harness captures output.
            let _ =
                writeln!(std::io::stderr(), "SKIPPED: without cuDNN 9 nothing was asked of it ({failure})");
            None
        }
    }
}

/// A convolution that keeps an image's size, with a bias.
fn convolution(
    element: Element,
    [batch, side]: [usize; 2],
    [channels, out_channels]: [usize; 2],
    kernel: usize,
) -> Conv2dOperands {
    Conv2dOperands {
        element,
        batch,
        height: side,
        width: side,
        channels,
        out_height: side,
        out_width: side,
        out_channels,
        kernel,
        stride: 1,
        top: kernel / 2,
        left: kernel / 2,
        upsample: false,
        x: 1 << 20,
        weight: 2 << 20,
        bias: Some(3 << 20),
        shift: None,
        residual: None,
        activation: None,
        out: 5 << 20,
    }
}

/// Every kind of convolution of the UNet and the VAE at 512 × 512, and odd ones.
fn of_the_models(element: Element) -> Vec<Conv2dOperands> {
    let same = |sizes, channels, kernel| convolution(element, sizes, channels, kernel);
    let down = |op: Conv2dOperands, before: usize| Conv2dOperands {
        stride: 2,
        out_height: op.height / 2,
        out_width: op.width / 2,
        top: before,
        left: before,
        ..op
    };
    let mut all = Vec::new();
    for (side, width) in [(64, 320), (32, 640), (16, 1280), (8, 1280)] {
        for channels in [width / 2, width, 2 * width] {
            all.push(same([2, side], [channels, width], 3));
            all.push(same([2, side], [channels, width], 1));
        }
        all.push(down(same([2, side], [width, width], 3), 1));
    }
    // The first and the last layers, with input channels padded to 8.
    all.extend([same([2, 64], [8, 320], 3), same([2, 64], [320, 4], 3)]);
    all.extend([same([1, 64], [8, 512], 3), same([1, 512], [128, 3], 3)]);
    all.extend([same([1, 512], [8, 128], 3), same([1, 64], [512, 8], 3)]);
    // Those around the latents.
    all.extend([same([1, 64], [8, 4], 1), same([1, 64], [8, 8], 1)]);
    for (side, channels) in [(64, [512, 512]), (128, [512, 512]), (256, [512, 256]), (512, [256, 128])] {
        all.push(same([1, side], channels, 3));
        all.push(same([1, side], channels, 1));
    }
    // The encoder's, with padding at the bottom and right only.
    all.push(down(same([1, 512], [128, 128], 3), 0));
    // Sizes that nothing divides.
    all.extend([same([2, 9], [40, 24], 3), same([1, 1], [8, 8], 3), same([1, 16], [64, 3], 3)]);
    let residual = |op: &Conv2dOperands| Conv2dOperands { residual: Some(4 << 20), ..*op };
    let bare = |op: &Conv2dOperands| Conv2dOperands { bias: None, ..*op };
    let more: Vec<_> = all.iter().flat_map(|op| [residual(op), bare(op)]).collect();
    all.extend(more);
    all
}

#[test]
fn there_is_a_plan_for_every_convolution_of_the_models() -> Result<(), Box<dyn std::error::Error>> {
    let Some(library) = library() else { return Ok(()) };
    if library.version() < 90_800 {
        writeln!(
            std::io::stderr(),
            "SKIPPED: cuDNN {} cannot plan for a GPU that is not here",
            library.version()
        )?;
        return Ok(());
    }
    for gpu in GPUS {
        let target = Target::described(library, &gpu.properties())?;
        for op in [Element::F16, Element::Bf16].into_iter().flat_map(of_the_models) {
            let shape = Conv2dShape::of(&op).ok_or("a convolution that is not left to cuDNN")?;
            let plans = Plan::best(library, &target, &shape, 1)
                .map_err(|failure| format!("{}: {shape:?}: {failure}", gpu.name))?;
            assert_eq!(plans.len(), 1, "{}: no plan for {shape:?}", gpu.name);
        }
    }
    Ok(())
}

#[test]
fn what_cudnn_cannot_do_is_not_left_to_it() {
    let op = convolution(Element::F16, [2, 64], [320, 320], 3);
    assert!(Conv2dShape::of(&op).is_some());
    for other in [
        Conv2dOperands { upsample: true, out_height: 128, out_width: 128, ..op },
        Conv2dOperands { shift: Some(4 << 20), ..op },
        Conv2dOperands { activation: Some(Activation::Silu), ..op },
        Conv2dOperands { bias: None, residual: Some(4 << 20), ..op },
        // A slice that starts between two units of access.
        Conv2dOperands { out: op.out + 8, ..op },
        Conv2dOperands { bias: Some(op.out + 2), ..op },
    ] {
        assert_eq!(Conv2dShape::of(&other), None, "{other:?}");
    }
}
