//! What follows products and convolutions, and the small operations around the UNet.

use crate::emulator::{Buffer, Emulator, Value, kernels, seed};
use crate::launches::denoise::{Bytes, GuidedStep, TimestepEmbedding};
use crate::launches::epilogue::{Activation, Epilogue, Geglu};
use crate::launches::launch::Element;
use crate::rounding::{BF16_UNIT, F16_UNIT, assert_rounded, random, tensor};
use candle_core::{Device, Tensor};
use fused_ops::{LinearStep, reference, shift_channels};
use half::{bf16, f16};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

type Failure = Box<dyn std::error::Error>;

fn epilogue<T: Value>(
    emulator: &Emulator,
    element: Element,
    unit: f32,
    [pictures, rows_per_picture, columns]: [usize; 3],
    activation: Activation,
    seed: u64,
) -> Result<(), Failure> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let rows = pictures * rows_per_picture;
    let (values, more) =
        (random::<T>(&mut rng, rows * columns, 3.), random::<T>(&mut rng, rows * columns, 3.));
    let (bias, shift) = (random::<T>(&mut rng, columns, 3.), random::<T>(&mut rng, pictures * columns, 3.));
    let [x, b, s, r] = [("x", &values), ("bias", &bias), ("shift", &shift), ("residual", &more)]
        .map(|(name, values)| Buffer::input(name, values));
    let plain = tensor(&values, &[pictures, rows_per_picture, columns])?;
    for (biased, shifted, residual) in [
        (false, false, false),
        (true, false, false),
        (false, true, false),
        (true, false, true),
        (true, true, true),
    ] {
        let out = Buffer::output::<T>("out", rows * columns);
        let op = Epilogue {
            element,
            rows,
            columns,
            x: x.address(),
            bias: biased.then(|| b.address()),
            shift: shifted.then(|| s.address()),
            rows_per_picture,
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
            y = shift_channels(&y, &tensor(&shift, &[pictures, columns])?)?;
        }
        if residual {
            y = (y + tensor(&more, plain.dims())?)?;
        }
        let expected = match activation {
            Activation::None => y,
            Activation::Gelu => y.gelu_erf()?,
            Activation::QuickGelu => (&y * candle_nn::ops::sigmoid(&(&y * 1.702)?)?)?,
            Activation::Silu => y.silu()?,
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
        for activation in [Activation::None, Activation::Gelu, Activation::QuickGelu, Activation::Silu] {
            epilogue::<f16>(emulator, Element::F16, F16_UNIT, shape, activation, seed)?;
            epilogue::<bf16>(emulator, Element::Bf16, BF16_UNIT, shape, activation, seed)?;
        }
    }
    Ok(())
}

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
    let gate = Geglu { element, rows, columns, x: x.address(), bias: bias_address, out: out.address() };
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

/// Against the same formula in f64. An angle of up to 1 000 is known to 2⁻²⁴ of it, and its frequency to a few units:
/// 64 units of 2⁻²⁴ of 1 000, which is what `assert_rounded` allows.
#[test]
fn timestep_embeddings() -> Result<(), Failure> {
    let Some(emulator) = kernels() else { return Ok(()) };
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let timesteps: Vec<f32> = (0..5).map(|_| rng.random_range(0f32..1000.)).collect();
    let input = Buffer::input("timesteps", &timesteps);
    for (channels, cosines_first, freq_shift) in [(320, true, 0.), (128, false, 1.), (7, true, 0.)] {
        let (batch, half) = (timesteps.len(), channels / 2);
        let expected = timesteps.iter().flat_map(|&timestep| {
            (0..channels).map(move |channel| {
                if channel == 2 * half {
                    return 0.;
                }
                let exponent = -((channel % half) as f64) / (half as f64 - freq_shift);
                let angle = f64::from(timestep) * 10_000f64.powf(exponent);
                (if (channel < half) == cosines_first { angle.cos() } else { angle.sin() }) as f32
            })
        });
        let expected = Tensor::from_vec(expected.collect::<Vec<_>>(), (batch, channels), &Device::Cpu)?;
        let embed = |element, out: &Buffer| {
            let (timesteps, out_address) = (input.address(), out.address());
            let op = TimestepEmbedding {
                element,
                batch,
                channels,
                cosines_first,
                freq_shift,
                timesteps,
                out: out_address,
            };
            emulator.run(&op.launch().map_err(|reason| reason.0)?, &[&input, out], 1)
        };
        let what = format!("timestep embedding of {channels} channels");
        let out = Buffer::output::<f16>("out", batch * channels);
        embed(Element::F16, &out)?;
        assert_rounded(&what, &out.to_f32::<f16>(), &expected, F16_UNIT, 1000.)?;
        let out = Buffer::output::<bf16>("out", batch * channels);
        embed(Element::Bf16, &out)?;
        assert_rounded(&what, &out.to_f32::<bf16>(), &expected, BF16_UNIT, 1000.)?;
    }
    Ok(())
}

fn guided_step<T: Value>(
    emulator: &Emulator,
    element: Element,
    unit: f32,
    guided: bool,
    earlier: usize,
    seed: u64,
) -> Result<(), Failure> {
    let [batch, pixels, channels] = [2, 65, 4];
    let count = batch * pixels * channels;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let outputs = random::<T>(&mut rng, if guided { 2 * count } else { count }, 3.);
    let sample = random::<f32>(&mut rng, count, 5.);
    let history: [Vec<f32>; 3] = std::array::from_fn(|_| random::<f32>(&mut rng, count, 3.));
    let mut coefficients = random::<f32>(&mut rng, 7, 1.5);
    coefficients[0] = 7.5;

    let output = Buffer::input("output", &outputs);
    // The sample is updated in place.
    let next = Buffer::in_out("sample", &sample);
    let coefficient_buffer = Buffer::input("coefficients", &coefficients);
    let earlier_buffers: Vec<_> =
        history[..earlier].iter().map(|values| Buffer::input("history", values)).collect();
    let kept = Buffer::output::<f32>("kept", count);
    let next_input = Buffer::output::<T>("next_input", outputs.len());
    let op = GuidedStep {
        element,
        batch,
        pixels,
        channels,
        guided,
        output: output.address(),
        sample: next.address(),
        history: std::array::from_fn(|i| earlier_buffers.get(i).map(Buffer::address)),
        coefficients: coefficient_buffer.address(),
        next: next.address(),
        kept: (earlier > 0).then(|| kept.address()),
        next_input: next_input.address(),
    };
    let mut buffers = vec![&output, &next, &coefficient_buffer, &kept, &next_input];
    buffers.extend(&earlier_buffers);
    emulator.run(&op.launch().map_err(|reason| reason.0)?, &buffers, seed)?;

    let sample = tensor(&sample, &[batch, channels, pixels, 1])?;
    let earlier_outputs = history[..earlier]
        .iter()
        .map(|values| tensor(values, sample.dims()))
        .collect::<Result<Vec<_>, _>>()?;
    let step = LinearStep {
        coefficients: &tensor(&coefficients, &[7])?,
        history: &earlier_outputs.iter().collect::<Vec<_>>(),
        guided,
    };
    let outputs = tensor(&outputs, &[outputs.len() / (pixels * channels), pixels, 1, channels])?;
    let expected = reference::linear_step(&step, &outputs, &sample)?;
    let what = format!("guided step {element}, guided {guided}, {earlier} earlier outputs");
    // A guided output is at most 6 · 7.5 + 3.
    assert_rounded(&what, &next.to_f32::<f32>(), &expected.sample, 0., 80.)?;
    if earlier > 0 {
        assert_rounded(&what, &kept.to_f32::<f32>(), &expected.output, 0., 80.)?;
    }
    Ok(assert_rounded(&what, &next_input.to_f32::<T>(), &expected.model_input, unit, 120.)?)
}

#[test]
fn guidance_and_the_schedulers_update() -> Result<(), Failure> {
    let Some(emulator) = kernels() else { return Ok(()) };
    let seed = seed();
    for guided in [false, true] {
        for earlier in 0..4 {
            guided_step::<f16>(emulator, Element::F16, F16_UNIT, guided, earlier, seed)?;
            guided_step::<bf16>(emulator, Element::Bf16, BF16_UNIT, guided, earlier, seed)?;
        }
    }
    Ok(())
}

/// Every value that a half type has from −2 to 2 and beyond, and a count that no vector divides.
#[test]
fn pictures_in_8_bits() -> Result<(), Failure> {
    let Some(emulator) = kernels() else { return Ok(()) };
    fn check<T: Value>(emulator: &Emulator, element: Element, values: &[T]) -> Result<(), Failure> {
        let (x, out) = (Buffer::input("x", values), Buffer::output::<u8>("out", values.len()));
        let op = Bytes { element, count: values.len(), x: x.address(), out: out.address() };
        emulator.run(&op.launch().map_err(|reason| reason.0)?, &[&x, &out], 1)?;
        for (value, found) in values.iter().zip(out.values::<u8>()) {
            let value = value.to_f32();
            let expected = ((value / 2. + 0.5).clamp(0., 1.) * 255.).round_ties_even() as u8;
            assert_eq!(found, expected, "{value} as {element}");
        }
        Ok(())
    }
    let finite = |value: &f32| value.is_finite();
    let f16s: Vec<_> = (0..=u16::MAX).map(f16::from_bits).filter(|value| finite(&value.to_f32())).collect();
    let bf16s: Vec<_> = (0..=u16::MAX).map(bf16::from_bits).filter(|value| finite(&value.to_f32())).collect();
    check(emulator, Element::F16, &f16s[..f16s.len() - 3])?;
    check(emulator, Element::Bf16, &bf16s[..bf16s.len() - 5])
}
