//! `altdiffusion encode`: encodes texts to hidden states for a UNet.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use altclip_encoder::PromptEncoder;
use altclip_encoder::tokenizer::PROMPT_TOKENS;
use anyhow::{Result, ensure};
use candle_core::{DType, Device, Tensor};
use clap::Args;
use serde::Serialize;

use crate::model::ModelArgs;
use crate::output_files::{check_writable, write_tensors, write_timings};
use crate::progress::{ProgressLine, announce};
use crate::standard_streams::{print_json, print_line};
use crate::text_lines::read_texts;

/// Texts encoded at a time. More would need memory without being faster.
const BATCH: usize = 16;

/// Endings of other formats for arrays, whose readers would take the file for damaged.
const OTHER_FORMATS: [&str; 5] = ["npy", "npz", "parquet", "pt", "pth"];

/// Encode prompts: write the hidden states that a UNet attends to.
///
/// Loads the model's tokenizer and text encoder only. The file holds `input_ids` and `attention_mask` (texts, 77),
/// u32, and `hidden_states` (texts, 77, width), f32. Texts are cut or padded to 77 tokens; the mask is 0 where
/// there is padding.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Encode {
    /// Texts to encode.
    #[arg(value_name = "TEXT", required_unless_present = "texts", conflicts_with = "texts")]
    arguments: Vec<String>,

    /// Read texts from a UTF-8 file, one per line; - for standard input. An empty line is an empty text.
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,

    /// Output file, in safetensors format. An existing file is replaced.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,

    /// Write timings to a JSON file, in seconds.
    ///
    /// `load_s` for the model, `text_s` for the texts, and `total_s` until the tensors are written.
    #[arg(long, value_name = "FILE")]
    timings: Option<PathBuf>,

    /// Print JSON: an object with path and texts.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    model: ModelArgs,
}

const EXAMPLES: &str = "\
Examples:
  altdiffusion encode --model BAAI/AltDiffusion-m9 --output cat.safetensors 一只猫 \"a cat\" \"un chat\"
  altdiffusion encode --model my-model --output prompts.safetensors --texts prompts.txt";

/// Timings, in seconds.
#[derive(Serialize)]
struct EncodeSeconds {
    load_s: f64,
    text_s: f64,
    total_s: f64,
}

#[derive(Serialize)]
struct EncodeReport {
    path: String,
    texts: usize,
}

impl Encode {
    pub fn run(self) -> Result<()> {
        let start = Instant::now();
        // Check files before the work begins.
        check_writable("--output", &self.output)?;
        let ending = self.output.extension().unwrap_or_default();
        ensure!(
            !OTHER_FORMATS.iter().any(|other| ending == *other),
            "--output {}: expected a name that ends in .safetensors",
            self.output.display()
        );
        if let Some(path) = &self.timings {
            check_writable("--timings", path)?;
            ensure!(
                *path != self.output,
                "--timings {}: expected another file than --output",
                path.display()
            );
        }
        let texts = match &self.texts {
            Some(path) => read_texts("--texts", path)?,
            None => self.arguments,
        };

        let device = self.model.device()?;
        let source = self.model.source()?;
        tracing::info!("loading {source}");
        if !self.model.is_shipped() {
            announce(&format!("Loading {source}"));
        }
        source.prefetch(&["tokenizer", "text_encoder"])?;
        let encoder = PromptEncoder::from_source(&source, self.model.dtype(), &device)?;
        let loaded = start.elapsed();
        tracing::info!("loaded in {loaded:.1?}");

        let encoding = Instant::now();
        let tensors = encode(&encoder, &device, &texts)?;
        let encoded = encoding.elapsed();

        write_tensors(&self.output, &tensors)?;
        let seconds = EncodeSeconds {
            load_s: loaded.as_secs_f64(),
            text_s: encoded.as_secs_f64(),
            total_s: start.elapsed().as_secs_f64(),
        };
        if let Some(path) = &self.timings {
            write_timings(path, &seconds)?;
        }
        if self.json {
            let path = self.output.display().to_string();
            return print_json(&EncodeReport { path, texts: texts.len() });
        }
        let texts = match texts.len() {
            1 => "1 text".to_owned(),
            texts => format!("{texts} texts"),
        };
        print_line(format!("{}: {texts}", self.output.display()))
    }
}

/// The tensors of all texts, by name.
fn encode(
    encoder: &PromptEncoder,
    device: &Device,
    texts: &[String],
) -> altclip_encoder::Result<BTreeMap<&'static str, Tensor>> {
    let progress = ProgressLine::start("Encoding");
    let (mut input_ids, mut attention_mask, mut hidden_states) = (Vec::new(), Vec::new(), Vec::new());
    let mut done = 0;
    for batch in texts.chunks(BATCH) {
        let encoding = encoder.tokenizer().encode_padded(batch, PROMPT_TOKENS)?;
        let ids = encoding.input_ids.to_device(device)?;
        let mask = encoding.attention_mask.to_device(device)?;
        hidden_states.push(finite_on_cpu(&encoder.text_encoder().forward(&ids, &mask)?)?);
        input_ids.push(encoding.input_ids);
        attention_mask.push(encoding.attention_mask);
        done += batch.len();
        progress.steps("Encoding", done, texts.len());
    }
    let tensors = [
        ("input_ids", Tensor::cat(&input_ids, 0)?),
        ("attention_mask", Tensor::cat(&attention_mask, 0)?),
        ("hidden_states", Tensor::cat(&hidden_states, 0)?),
    ];
    Ok(BTreeMap::from(tensors))
}

/// Converts hidden states to f32 on the CPU, and checks that they are finite.
fn finite_on_cpu(states: &Tensor) -> altclip_encoder::Result<Tensor> {
    let states = states.to_dtype(DType::F32)?.to_device(&Device::Cpu)?;
    // 0 · x is zero for every finite number, and NaN otherwise.
    if (&states * 0.0)?.sum_all()?.to_scalar::<f32>()? != 0.0 {
        return Err(altclip_encoder::Error::Input(
            "the hidden states are not finite: f16 may have overflowed, use bf16 or f32; or the weights are damaged"
                .to_owned(),
        ));
    }
    Ok(states)
}
