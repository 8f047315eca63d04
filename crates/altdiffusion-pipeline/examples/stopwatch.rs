//! Times single parts of a model on request, for `scripts/compare-cpu.py` and `scripts/compare-gpu.py`, which compare
//! them with the reference implementation.
//!
//! ```sh
//! cargo run --release -p altdiffusion-pipeline --example stopwatch -- MODEL INPUTS.safetensors OUTPUT_DIR [DEVICE TYPE]
//! ```
//!
//! Takes the device (`cpu` or `cuda`, by default `cpu`) and the dtype of the weights (`f32`, `f16` or `bf16`, by
//! default `f32`).
//!
//! Each line on standard input names a task: `text_…`, `unet_…`, `vae_…` or `denoise_…`. Its inputs are the tensors
//! `NAME.input_ids` and `.attention_mask` (u32), or `.sample`, `.timesteps` and `.hidden_states`, or `.latents`, or
//! `.noise` and `.hidden_states` (unconditional first). The answer is a line on standard output with the seconds
//! taken; on the first run of a task, its output is also written in f32 to `OUTPUT_DIR/NAME.safetensors`. A line with
//! the loading time comes before the first answer. The answer to `limit` is the maximum GFLOP/s of the CPU in that dtype.
//! Standard error lists what no GPU kernel covers and what could not be recorded.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use altclip_encoder::conditioner::ConditionerConfig;
use altdiffusion_pipeline::random::Rng;
use altdiffusion_pipeline::schedulers::SchedulerConfig;
use altdiffusion_pipeline::unet::UNet2DConditionModel;
use altdiffusion_pipeline::vae::AutoencoderKl;
use altdiffusion_pipeline::{Conditioning, DenoiseOptions, Guidance, Start, TextStates, denoise};
use candle_core::{DType, Device, Tensor, safetensors};
use fused_ops::Machine;
use model_files::checkpoint::Checkpoint;
use model_files::source::ModelSource;

/// The scheduler of a `denoise_…` task: Stable Diffusion's noise levels, with diffusers' guidance scale.
const SCHEDULER: &str = r#"{
    "_class_name": "DDIMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "clip_sample": false, "set_alpha_to_one": false, "steps_offset": 1
}"#;
const STEPS: usize = 20;
const GUIDANCE_SCALE: f64 = 7.5;

fn main() -> Result<(), Box<dyn Error>> {
    let events = "fused_ops=debug,altdiffusion_pipeline=debug";
    tracing_subscriber::fmt().with_env_filter(events).with_writer(std::io::stderr).without_time().init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (model, inputs, output, device, dtype) = match arguments.as_slice() {
        [model, inputs, output] => (model, inputs, output, "cpu", "f32"),
        [model, inputs, output, device, dtype] => (model, inputs, output, device.as_str(), dtype.as_str()),
        _ => {
            return Err("expected a model, a file of inputs, a folder and perhaps a device and a type".into());
        }
    };
    let device = match device {
        "cpu" => Device::Cpu,
        "cuda" => fused_ops::cuda_device(0)?,
        _ => return Err(format!("{device}: expected cpu or cuda").into()),
    };
    let dtype = match dtype {
        "f32" => DType::F32,
        "f16" => DType::F16,
        "bf16" => DType::BF16,
        _ => return Err(format!("{dtype}: expected f32, f16 or bf16").into()),
    };
    let mut inputs: HashMap<String, Tensor> = safetensors::load(inputs, &Device::Cpu)?;
    // Ids and masks keep the dtype that a tokenizer gives them.
    for input in inputs.values_mut().filter(|input| input.dtype() != DType::U32) {
        *input = input.to_device(&device)?;
    }
    let start = Instant::now();
    let source = ModelSource::open(model)?;
    let weights = |folder| Checkpoint::open(&source, folder)?.var_builder(dtype, &device);
    // Only the parts that the inputs are for.
    let is_wanted = |work: &str| inputs.keys().any(|name| name.split('_').next() == Some(work));
    let (mut text, mut unet, mut vae) = (None, None, None);
    if is_wanted("text") {
        let config = ConditionerConfig::read(&source.read("text_encoder/config.json")?)?;
        text = Some(config.build(weights("text_encoder")?)?);
    }
    if is_wanted("unet") || is_wanted("denoise") {
        unet = Some(UNet2DConditionModel::new(&source.read_json("unet/config.json")?, weights("unet")?)?);
    }
    if is_wanted("vae") {
        vae = Some(AutoencoderKl::new(&source.read_json("vae/config.json")?, weights("vae")?)?);
    }
    answer(start.elapsed())?;

    for line in std::io::stdin().lock().lines() {
        let name = line?;
        let input = |part: &str| -> Result<&Tensor, String> {
            let key = format!("{name}.{part}");
            inputs.get(&key).ok_or_else(|| format!("expected a tensor {key:?} among the inputs"))
        };
        if name == "limit" {
            let machine = Machine::measure();
            let of_bf16 = machine.bf16_operations.filter(|_| dtype == DType::BF16);
            say(of_bf16.unwrap_or(machine.f32_operations) / 1e9)?;
            continue;
        }
        let start = Instant::now();
        let result = match (name.split('_').next(), &text, &unet, &vae) {
            (Some("text"), Some(text), ..) => text.forward(input("input_ids")?, input("attention_mask")?)?,
            (Some("unet"), _, Some(unet), _) => unet.forward_with_hidden_states(
                input("sample")?,
                input("timesteps")?,
                input("hidden_states")?,
            )?,
            (Some("vae"), .., Some(vae)) => vae.decode(input("latents")?)?,
            (Some("denoise"), _, Some(unet), _) => denoised(unet, input("noise")?, input("hidden_states")?)?,
            _ => return Err(format!("{name}: expected a task of the inputs, or limit").into()),
        };
        device.synchronize()?;
        let time = start.elapsed();
        let path = Path::new(output).join(format!("{name}.safetensors"));
        if !path.exists() {
            result.to_dtype(DType::F32)?.save_safetensors("result", path)?;
        }
        answer(time)?;
    }
    Ok(())
}

/// Latents of a guided DDIM run, (images, channels, height, width).
fn denoised(
    unet: &UNet2DConditionModel,
    noise: &Tensor,
    hidden_states: &Tensor,
) -> Result<Tensor, altdiffusion_pipeline::Error> {
    let mut scheduler = SchedulerConfig::from_json(SCHEDULER, "the scheduler")?.build(STEPS)?;
    let start = Start::from_noise(&*scheduler, noise)?;
    let states = TextStates::from_hidden_states(hidden_states.clone())?;
    let mut conditioning = Conditioning::guided(unet, &states, 1)?;
    let options = DenoiseOptions { guidance: Guidance::new(GUIDANCE_SCALE), windows: None };
    let mut rng = Rng::default().with_seed(0);
    let run =
        denoise(
            &mut conditioning,
            &mut *scheduler,
            options,
            start,
            &mut *rng,
            |_| ControlFlow::Continue(()),
        )?;
    Ok(run.latents)
}

fn answer(time: Duration) -> std::io::Result<()> {
    say(time.as_secs_f64())
}

fn say(number: f64) -> std::io::Result<()> {
    println!("{number}");
    std::io::stdout().flush()
}
