//! Tests guidance and the scheduler's update.

use crate::emulator::{Buffer, Emulator, Value, kernels, seed};
use crate::launch::description::Element;
use crate::launch::linear_step::LinearStepOperands;
use crate::rounding::{BF16_UNIT, F16_UNIT, assert_rounded, random, tensor};
use fused_ops::{LinearStep, reference};
use half::{bf16, f16};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

type Failure = Box<dyn std::error::Error>;

fn linear_step<T: Value>(
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
    let op = LinearStepOperands {
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
    let what = format!("linear step {element}, guided {guided}, {earlier} earlier outputs");
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
            linear_step::<f16>(emulator, Element::F16, F16_UNIT, guided, earlier, seed)?;
            linear_step::<bf16>(emulator, Element::Bf16, BF16_UNIT, guided, earlier, seed)?;
        }
    }
    Ok(())
}
