//! Tests the epilogue kernel.

use crate::emulator::{Buffer, Emulator, Value, kernels, seed};
use crate::launch::description::Element;
use crate::launch::epilogue::EpilogueOperands;
use crate::rounding::{BF16_UNIT, F16_UNIT, assert_rounded, random, tensor};
use fused_ops::{Activation, shift_channels};
use half::{bf16, f16};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

type Failure = Box<dyn std::error::Error>;

fn epilogue<T: Value>(
    emulator: &Emulator,
    element: Element,
    unit: f32,
    [images, rows_per_image, columns]: [usize; 3],
    activation: Option<Activation>,
    seed: u64,
) -> Result<(), Failure> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let rows = images * rows_per_image;
    let (values, more) =
        (random::<T>(&mut rng, rows * columns, 3.), random::<T>(&mut rng, rows * columns, 3.));
    let (bias, shift) = (random::<T>(&mut rng, columns, 3.), random::<T>(&mut rng, images * columns, 3.));
    let [x, b, s, r] = [("x", &values), ("bias", &bias), ("shift", &shift), ("residual", &more)]
        .map(|(name, values)| Buffer::input(name, values));
    let plain = tensor(&values, &[images, rows_per_image, columns])?;
    for (biased, shifted, residual) in [
        (false, false, false),
        (true, false, false),
        (false, true, false),
        (true, false, true),
        (true, true, true),
    ] {
        let out = Buffer::output::<T>("out", rows * columns);
        let op = EpilogueOperands {
            element,
            rows,
            columns,
            x: x.address(),
            bias: biased.then(|| b.address()),
            shift: shifted.then(|| s.address()),
            rows_per_image,
            residual: residual.then(|| r.address()),
            activation,
            out: out.address(),
        };
        let what = format!("{activation:?} {element} {rows} × {columns}, {biased} {shifted} {residual}");
        let launch = op.launch().map_err(|reason| reason.0)?;
        emulator.run(&launch, &[&x, &b, &s, &r, &out], seed).map_err(|error| format!("{what}: {error}"))?;
        let mut y = plain.clone();
        if biased {
            y = y.broadcast_add(&tensor(&bias, &[columns])?)?;
        }
        if shifted {
            y = shift_channels(&y, &tensor(&shift, &[images, columns])?)?;
        }
        if residual {
            y = (y + tensor(&more, plain.dims())?)?;
        }
        let expected = match activation {
            None => y,
            Some(Activation::Gelu) => y.gelu_erf()?,
            Some(Activation::GeluTanh) => y.gelu()?,
            Some(Activation::QuickGelu) => (&y * candle_nn::ops::sigmoid(&(&y * 1.702)?)?)?,
            Some(Activation::Silu) => y.silu()?,
        };
        assert_rounded(&what, &out.to_f32::<T>(), &expected, unit, 12.)?;
    }
    Ok(())
}

#[test]
fn epilogues() -> Result<(), Failure> {
    let Some(emulator) = kernels() else { return Ok(()) };
    let seed = seed();
    for shape in [[2, 77, 320], [1, 1, 8], [3, 17, 40]] {
        for activation in [None].into_iter().chain(Activation::ALL.map(Some)) {
            epilogue::<f16>(emulator, Element::F16, F16_UNIT, shape, activation, seed)?;
            epilogue::<bf16>(emulator, Element::Bf16, BF16_UNIT, shape, activation, seed)?;
        }
    }
    Ok(())
}
