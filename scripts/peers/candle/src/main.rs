//! Runs candle-transformers' XLM-R, UNet and VAE on a model in the shape of AltDiffusion-m9, with the protocol of
//! altdiffusion-pipeline's example `stopwatch`. Its XLM-R has no projection after the last layer, so text outputs are
//! not written; the others can be compared.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor, safetensors};
use candle_nn::{Activation, VarBuilder};
use candle_transformers::models::stable_diffusion::StableDiffusionConfig;
use candle_transformers::models::xlm_roberta::{Config, XLMRobertaModel};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, inputs, output] = arguments.as_slice() else {
        return Err("expected a model, a file of inputs and a folder".into());
    };
    let device = Device::Cpu;
    let inputs: HashMap<String, Tensor> = safetensors::load(inputs, &device)?;
    let start = Instant::now();
    let model = Path::new(model);
    let weights = model.join("text_encoder/model.safetensors");
    // SAFETY: the checkpoint does not change while it is measured.
    let weights = unsafe { VarBuilder::from_mmaped_safetensors(&[weights], DType::F32, &device)? };
    let text = XLMRobertaModel::new(&xlm_roberta_large(), weights.pp("roberta"))?;
    let config = StableDiffusionConfig::v1_5(None, None, None);
    let weights = |folder: &str| model.join(folder).join("diffusion_pytorch_model.safetensors");
    let unet = config.build_unet(weights("unet"), &device, 4, false, DType::F32)?;
    let vae = config.build_vae(weights("vae"), &device, DType::F32)?;
    answer(start)?;

    for line in std::io::stdin().lock().lines() {
        let name = line?;
        let input = |part: &str| -> Result<&Tensor, String> {
            let key = format!("{name}.{part}");
            inputs.get(&key).ok_or_else(|| format!("expected a tensor {key:?} among the inputs"))
        };
        let start = Instant::now();
        let result = match name.split('_').next() {
            Some("text") => {
                let (ids, mask) = (input("input_ids")?, input("attention_mask")?);
                let types = ids.zeros_like()?;
                text.forward(ids, &mask.to_dtype(DType::F32)?, &types, None, None, None)?;
                None
            }
            Some("unet") => {
                let timestep = input("timesteps")?.get(0)?.to_scalar::<f32>()?;
                Some(unet.forward(input("sample")?, f64::from(timestep), input("hidden_states")?)?)
            }
            Some("vae") => Some(vae.decode(input("latents")?)?),
            _ => return Err(format!("{name}: expected a name that begins with text_, unet_ or vae_").into()),
        };
        answer(start)?;
        let path = Path::new(output).join(format!("{name}.safetensors"));
        if let Some(result) = result.filter(|_| !path.exists()) {
            result.save_safetensors("result", path)?;
        }
    }
    Ok(())
}

fn xlm_roberta_large() -> Config {
    Config {
        hidden_size: 1024,
        layer_norm_eps: 1e-5,
        attention_probs_dropout_prob: 0.,
        hidden_dropout_prob: 0.,
        num_attention_heads: 16,
        position_embedding_type: "absolute".to_owned(),
        intermediate_size: 4096,
        hidden_act: Activation::Gelu,
        num_hidden_layers: 24,
        vocab_size: 250_002,
        max_position_embeddings: 514,
        type_vocab_size: 1,
        pad_token_id: 1,
    }
}

fn answer(start: Instant) -> std::io::Result<()> {
    println!("{}", start.elapsed().as_secs_f64());
    std::io::stdout().flush()
}
