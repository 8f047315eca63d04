//! Tests layer normalisation with what is fused to it.

use crate::emulator::{Buffer, Emulator, Value, kernels, seed};
use crate::launch::description::Element;
use crate::launch::layer_norm::LayerNormOperands;
use crate::rounding::{BF16_UNIT, F16_UNIT, assert_rounded, random, tensor};
use fused_ops::reference;
use half::{bf16, f16};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

type Failure = Box<dyn std::error::Error>;

fn layer_norm<T: Value>(
    emulator: &Emulator,
    element: Element,
    unit: f32,
    [rows, size]: [usize; 2],
    residual: bool,
    seed: u64,
) -> Result<(), Failure> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (values, more) = (random::<T>(&mut rng, rows * size, 2.), random::<T>(&mut rng, rows * size, 2.));
    let [weight, bias, added] = [0; 3].map(|_| random::<T>(&mut rng, size, 1.));
    let inputs =
        [("x", &values), ("residual", &more), ("weight", &weight), ("bias", &bias), ("added", &added)];
    let [x, r, w, b, a] = inputs.map(|(name, values)| Buffer::input(name, values));
    let [sum, out] = ["sum", "out"].map(|name| Buffer::output::<T>(name, rows * size));
    let norm = LayerNormOperands {
        element,
        rows,
        size,
        eps: 1e-5,
        x: x.address(),
        added: residual.then(|| a.address()),
        residual: residual.then(|| r.address()),
        weight: w.address(),
        bias: b.address(),
        sum: residual.then(|| sum.address()),
        out: out.address(),
    };
    let what = format!("layer norm {element} {rows} × {size}, residual {residual}");
    let launch = norm.launch().map_err(|reason| reason.0)?;
    emulator
        .run(&launch, &[&x, &r, &w, &b, &a, &sum, &out], seed)
        .map_err(|error| format!("{what}: {error}"))?;
    let mut x = tensor(&values, &[rows, size])?;
    if residual {
        x = (x + tensor(&more, &[rows, size])?)?.broadcast_add(&tensor(&added, &[size])?)?;
        assert_rounded(&format!("{what}, sum"), &sum.to_f32::<T>(), &x, unit, 4.)?;
    }
    let expected = reference::layer_norm(&x, &tensor(&weight, &[size])?, &tensor(&bias, &[size])?, 1e-5)?;
    Ok(assert_rounded(&what, &out.to_f32::<T>(), &expected, unit, 4.)?)
}

#[test]
fn layer_normalisation() -> Result<(), Failure> {
    let Some(emulator) = kernels() else { return Ok(()) };
    let seed = seed();
    // The widths of the UNet, XLM-R and CLIP, and the smallest and largest that the kernel takes.
    for shape in [[130, 320], [5, 640], [3, 1280], [77, 1024], [17, 768], [1, 8], [7, 264], [2, 2048]] {
        for residual in [false, true] {
            layer_norm::<f16>(emulator, Element::F16, F16_UNIT, shape, residual, seed)?;
            layer_norm::<bf16>(emulator, Element::Bf16, BF16_UNIT, shape, residual, seed)?;
        }
    }
    Ok(())
}
