//! Tests group normalisation with what is fused to it.

use crate::emulator::{Buffer, Emulator, Value, kernels, seed};
use crate::launch::description::Element;
use crate::launch::group_norm::GroupNormOperands;
use crate::rounding::{BF16_UNIT, F16_UNIT, assert_each_rounded, random, tensor};
use fused_ops::{reference, shift_channels};
use half::{bf16, f16};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

type Failure = Box<dyn std::error::Error>;

const MULTIPROCESSORS: usize = 132;

#[derive(Debug, Clone, Copy)]
struct Group {
    batch: usize,
    pixels: usize,
    channels: usize,
    groups: usize,
    /// The distance of the mean from 0.
    offset: f32,
}

fn group_norm<T: Value>(
    emulator: &Emulator,
    element: Element,
    unit: f32,
    case: Group,
    shifted: bool,
    silu: bool,
    seed: u64,
) -> Result<(), Failure> {
    let Group { batch, pixels, channels, groups, offset } = case;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let values: Vec<T> = random::<T>(&mut rng, batch * pixels * channels, 2.)
        .into_iter()
        .map(|value| T::from_f32(value.to_f32() + offset))
        .collect();
    let (weight, bias) = (random::<T>(&mut rng, channels, 1.), random::<T>(&mut rng, channels, 1.));
    let shift = random::<T>(&mut rng, batch * channels, 1.);
    let [x, w, b, s] = [("x", &values), ("weight", &weight), ("bias", &bias), ("shift", &shift)]
        .map(|(name, values)| Buffer::input(name, values));
    let out = Buffer::output::<T>("out", values.len());
    let norm = GroupNormOperands {
        element,
        batch,
        pixels,
        channels,
        groups,
        eps: 1e-5,
        silu,
        x: x.address(),
        weight: w.address(),
        bias: b.address(),
        shift: shifted.then(|| s.address()),
        out: out.address(),
    };
    let partial = Buffer::output::<f32>("partial", norm.partial_len(MULTIPROCESSORS));
    let what = format!("group norm {element} {case:?}, shift {shifted}, silu {silu}");
    for launch in norm.launches(partial.address(), MULTIPROCESSORS).map_err(|reason| reason.0)? {
        emulator
            .run(&launch, &[&x, &w, &b, &s, &partial, &out], seed)
            .map_err(|error| format!("{what}: {error}"))?;
    }
    // The offset cancels, and the f32 reference is more accurate without it. The subtraction is exact.
    let x = (tensor(&values, &[batch, pixels, channels])? - f64::from(offset))?;
    let x = if shifted { shift_channels(&x, &tensor(&shift, &[batch, channels])?)? } else { x };
    let (weight, bias) = (tensor(&weight, &[channels])?, tensor(&bias, &[channels])?);
    let expected = reference::group_norm(&x, &weight, &bias, groups, 1e-5, silu)?;
    // In f32 a mean far from 0 costs its size relative to the group's deviation, which is about 1 for many values and
    // close to 0 for two nearly equal ones.
    let grouped = (batch, pixels, groups, channels / groups);
    let x = x.reshape(grouped)?;
    let mean = x.mean_keepdim((1, 3))?;
    let deviation = (x.broadcast_sub(&mean)?.sqr()?.mean_keepdim((1, 3))? + 1e-5)?.sqrt()?.minimum(1f64)?;
    let size = (deviation.recip()? * f64::from(4. + offset))?;
    Ok(assert_each_rounded(&what, &out.to_f32::<T>(), &expected.reshape(grouped)?, unit, &size)?)
}

#[test]
fn group_normalisation() -> Result<(), Failure> {
    let Some(emulator) = kernels() else { return Ok(()) };
    let seed = seed();
    let case = |batch, pixels, channels, groups| Group { batch, pixels, channels, groups, offset: 0. };
    // Levels of the UNet and the VAE, those of the emoji model, more channels than a block has threads for, and a
    // single pixel.
    let cases = [
        case(1, 4096, 320, 32),
        case(2, 64, 1280, 32),
        case(2, 256, 640, 32),
        case(2, 64, 2560, 32),
        case(1, 64, 1920, 32),
        case(1, 1000, 128, 32),
        case(3, 35, 24, 8),
        case(1, 257, 16, 1),
        case(2, 1, 64, 32),
        Group { offset: 300., ..case(1, 500, 64, 8) },
    ];
    for (i, case) in cases.into_iter().enumerate() {
        for (shifted, silu) in [(false, false), (true, true)] {
            let seed = seed.wrapping_add(i as u64);
            group_norm::<f16>(emulator, Element::F16, F16_UNIT, case, shifted, silu, seed)?;
            group_norm::<bf16>(emulator, Element::Bf16, BF16_UNIT, case, shifted, silu, seed)?;
        }
    }
    Ok(())
}
