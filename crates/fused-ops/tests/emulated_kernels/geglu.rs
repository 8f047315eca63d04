//! Tests GEGLU's gate.

use crate::emulator::{Buffer, Emulator, Value, kernels, seed};
use crate::launch::description::Element;
use crate::launch::geglu::GegluOperands;
use crate::rounding::{BF16_UNIT, F16_UNIT, assert_rounded, random, tensor};
use fused_ops::reference;
use half::{bf16, f16};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

type Failure = Box<dyn std::error::Error>;

fn geglu<T: Value>(
    emulator: &Emulator,
    element: Element,
    unit: f32,
    [rows, columns]: [usize; 2],
    biased: bool,
    seed: u64,
) -> Result<(), Failure> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (values, bias) =
        (random::<T>(&mut rng, 2 * rows * columns, 3.), random::<T>(&mut rng, 2 * columns, 3.));
    let (x, b) = (Buffer::input("x", &values), Buffer::input("bias", &bias));
    let out = Buffer::output::<T>("out", rows * columns);
    let bias_address = biased.then(|| b.address());
    let gate =
        GegluOperands { element, rows, columns, x: x.address(), bias: bias_address, out: out.address() };
    let launch = gate.launch().map_err(|reason| reason.0)?;
    emulator.run(&launch, &[&x, &b, &out], seed)?;
    let mut x = tensor(&values, &[rows, 2 * columns])?;
    if biased {
        x = x.broadcast_add(&tensor(&bias, &[2 * columns])?)?;
    }
    let what = format!("geglu {element} {rows} × {columns}, biased {biased}");
    // The product of two values of up to 6.
    Ok(assert_rounded(&what, &out.to_f32::<T>(), &reference::geglu(&x)?, unit, 36.)?)
}

#[test]
fn gated_feed_forward() -> Result<(), Failure> {
    let Some(emulator) = kernels() else { return Ok(()) };
    let seed = seed();
    for shape in [[65, 1280], [1, 8], [3, 40]] {
        for biased in [false, true] {
            geglu::<f16>(emulator, Element::F16, F16_UNIT, shape, biased, seed)?;
            geglu::<bf16>(emulator, Element::Bf16, BF16_UNIT, shape, biased, seed)?;
        }
    }
    Ok(())
}
