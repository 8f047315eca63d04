//! Runs single parts of a model on request and says how long they took: what `scripts/compare-cpu.py` times beside the
//! reference implementation.
//!
//! ```sh
//! cargo run --release -p altdiffusion-pipeline --example stopwatch -- MODEL INPUTS.safetensors OUTPUT_DIR
//! ```
//!
//! Each line on standard input is the name of a work: `text_…`, `unet_…` or `vae_…`. Its inputs are the tensors
//! `NAME.input_ids` and `.attention_mask` (u32), or `.sample`, `.timesteps` and `.hidden_states`, or `.latents`. The answer
//! is a line on standard output with the seconds; the first time, what came out is written to `OUTPUT_DIR/NAME.safetensors`.
//! Before the first answer comes a line with the seconds of loading.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use altclip_encoder::checkpoint::Checkpoint;
use altclip_encoder::source::ModelSource;
use altclip_encoder::text_encoder::TextEncoder;
use altdiffusion_pipeline::unet::UNet2DConditionModel;
use altdiffusion_pipeline::vae::AutoencoderKl;
use candle_core::{DType, Device, Tensor, safetensors};

fn main() -> Result<(), Box<dyn Error>> {
    fused_ops::keep_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, inputs, output] = arguments.as_slice() else {
        return Err("expected a model, a file of inputs and a folder".into());
    };
    let device = Device::Cpu;
    let inputs: HashMap<String, Tensor> = safetensors::load(inputs, &device)?;
    let start = Instant::now();
    let source = ModelSource::open(model)?;
    let weights = |folder| Checkpoint::open(&source, folder)?.var_builder(DType::F32, &device);
    let text = TextEncoder::new(&source.read_json("text_encoder/config.json")?, weights("text_encoder")?)?;
    let unet = UNet2DConditionModel::new(&source.read_json("unet/config.json")?, weights("unet")?)?;
    let vae = AutoencoderKl::new(&source.read_json("vae/config.json")?, weights("vae")?)?;
    answer(start)?;

    for line in std::io::stdin().lock().lines() {
        let name = line?;
        let input = |part: &str| -> Result<&Tensor, String> {
            let key = format!("{name}.{part}");
            inputs.get(&key).ok_or_else(|| format!("expected a tensor {key:?} among the inputs"))
        };
        let start = Instant::now();
        let result = match name.split('_').next() {
            Some("text") => text.forward(input("input_ids")?, input("attention_mask")?)?,
            Some("unet") => unet.forward_with_hidden_states(
                input("sample")?,
                input("timesteps")?,
                input("hidden_states")?,
            )?,
            Some("vae") => vae.decode(input("latents")?)?,
            _ => return Err(format!("{name}: expected a name that begins with text_, unet_ or vae_").into()),
        };
        answer(start)?;
        let path = Path::new(output).join(format!("{name}.safetensors"));
        if !path.exists() {
            result.save_safetensors("result", path)?;
        }
    }
    Ok(())
}

fn answer(start: Instant) -> std::io::Result<()> {
    println!("{}", start.elapsed().as_secs_f64());
    std::io::stdout().flush()
}
