//! Compares LoRA, textual inversion and clip skip with diffusers' `AltDiffusionPipeline` and PEFT, and rejects files
//! that do not fit.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use altdiffusion_pipeline::{
    AltDiffusion, GenerateOptions, LoadOptions, Lora, ModelParts, PromptReading, TextualInversion,
};
use candle_core::{DType, Device, Tensor, safetensors};
use model_files::source::ModelSource;
use serde::Deserialize;
use test_support::{TestResult, error_message, golden, golden_tensors, normal, relative_error};

/// The largest relative error of latents. The reference's own distance from f64 is up to 2.5e-5.
const TOLERANCE: f64 = 1e-4;

const MODELS: [&str; 2] = ["alt_diffusion", "alt_diffusion_m18"];

#[derive(Deserialize)]
struct Case {
    name: String,
    prompt: String,
    #[serde(default)]
    loras: BTreeMap<String, f64>,
    #[serde(default)]
    words: Vec<String>,
    #[serde(default)]
    clip_skip: usize,
}

fn adapter(name: &str) -> PathBuf {
    golden("adapters").join(name)
}

fn path(path: &Path) -> TestResult<&str> {
    path.to_str().ok_or_else(|| "a path that is no text".into())
}

fn parts(model: &str) -> altdiffusion_pipeline::Result<ModelParts> {
    ModelParts::in_folders(&ModelSource::directory(golden(model)))
}

fn lora(model: &str, name: &str) -> TestResult<Lora> {
    Ok(Lora::open(path(&adapter(&format!("{model}.{name}.safetensors")))?)?)
}

fn load(model: &str, loras: Vec<(Lora, f64)>) -> altdiffusion_pipeline::Result<AltDiffusion> {
    let options = LoadOptions::new(DType::F32, &Device::Cpu);
    let options = loras.into_iter().fold(options, |options, (lora, strength)| options.lora(lora, strength));
    AltDiffusion::load(parts(model)?, options)
}

/// A few steps from fixed noise.
fn draw(pipeline: &AltDiffusion) -> altdiffusion_pipeline::Result<Tensor> {
    let options = GenerateOptions::new("一只猫").steps(2).guidance_scale(2.0);
    Ok(pipeline.generate(&options.initial_latents(normal(1, &[1, 4, 4, 4])))?.latents)
}

/// PEFT saves each part in a folder of its own, and names none.
#[test]
fn a_lora_that_peft_saved_of_a_text_encoder_changes_it() -> TestResult {
    const MODEL: &str = "conditioners/sd1";
    let folder = tempfile::tempdir()?;
    let whole = golden("conditioners/sd1_lora.safetensors");
    let mut of_peft = HashMap::new();
    for (name, tensor) in safetensors::load(&whole, &Device::Cpu)? {
        let (layer, role) = name.split_once('.').ok_or("a name without a role")?;
        let path = match layer {
            "lora_te_text_model_encoder_layers_0_self_attn_q_proj" => "layers.0.self_attn.q_proj",
            "lora_te_text_model_encoder_layers_2_mlp_fc1" => "layers.2.mlp.fc1",
            other => return Err(format!("an unexpected layer {other}").into()),
        };
        let role = match role {
            "lora_down.weight" => "lora_A.weight",
            "lora_up.weight" => "lora_B.weight",
            _ => continue,
        };
        of_peft.insert(format!("base_model.model.text_model.encoder.{path}.{role}"), tensor);
    }
    safetensors::save(&of_peft, folder.path().join("adapter_model.safetensors"))?;
    let config = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 4}"#;
    std::fs::write(folder.path().join("adapter_config.json"), config)?;

    let states = |lora: Lora| -> TestResult<Tensor> {
        let pipeline = load(MODEL, vec![(lora, 0.5)])?;
        Ok(pipeline.encode_texts(PromptReading::Plain, &["a small dog"])?.hidden_states().clone())
    };
    let of_peft = Lora::open(path(folder.path())?)?;
    let expected = states(Lora::open(path(&whole)?)?)?;
    assert_eq!(relative_error(&states(of_peft.clone())?, &expected), 0.0);
    // What changes the text encoder alone can be left out.
    let plain = load(MODEL, Vec::new())?;
    let plain = plain.encode_texts(PromptReading::Plain, &["a small dog"])?.hidden_states().clone();
    assert_eq!(relative_error(&states(of_peft.without_text_encoder())?, &plain), 0.0);
    assert!(relative_error(&expected, &plain) > 1e-3);
    Ok(())
}

#[test]
fn latents_are_the_references() -> TestResult {
    let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(adapter("cases.json"))?)?;
    let golden = golden_tensors("adapters/golden.safetensors");
    for model in MODELS {
        let plain = load(model, Vec::new())?;
        for case in &cases {
            let mut options = LoadOptions::new(DType::F32, &Device::Cpu);
            for (name, strength) in &case.loras {
                options = options.lora(lora(model, name)?, *strength);
            }
            for word in &case.words {
                let safetensors = adapter(&format!("{word}.safetensors"));
                let file = if safetensors.exists() { safetensors } else { adapter(&format!("{word}.pt")) };
                options = options.word(TextualInversion::open(path(&file)?)?);
            }
            let pipeline = AltDiffusion::load(parts(model)?, options)?;

            let expected = |part: &str| golden.get(&format!("{model}.{}.{part}", case.name));
            if let Some(ids) = expected("ids") {
                let found: Vec<i64> =
                    pipeline.tokenizer()?.encode(&case.prompt)?.into_iter().map(i64::from).collect();
                assert_eq!(found, ids.to_vec1::<i64>()?, "{model}.{}", case.name);
            }
            let initial = expected("initial_latents").ok_or("no latents to begin with")?;
            let options =
                GenerateOptions::new(&case.prompt).steps(3).guidance_scale(2.5).clip_skip(case.clip_skip);
            let options = options.width(40).height(32).initial_latents(initial.clone());
            let found = pipeline.generate(&options)?.latents;
            let error = relative_error(&found, expected("latents").ok_or("no latents")?);
            let changed = relative_error(&found, &plain.generate(&options.clip_skip(0))?.latents);
            println!("{model}.{}: {error:.1e}, {changed:.2} from the model alone", case.name);
            assert!(error <= TOLERANCE, "{model}.{}: {error:.1e}", case.name);
            assert!(changed > 100.0 * TOLERANCE, "{model}.{}: changes only {changed:.1e}", case.name);
        }
    }
    Ok(())
}

/// Other programs' files: the same tensors under other names.
#[test]
fn every_form_of_a_lora_is_the_same() -> TestResult {
    let model = "alt_diffusion";
    let expected = draw(&load(model, vec![(lora(model, "diffusers")?, 1.0)])?)?;
    let original = safetensors::load(adapter("alt_diffusion.diffusers.safetensors"), &Device::Cpu)?;
    let folder = tempfile::tempdir()?;
    let saved = |file: &str, rename: &dyn Fn(&str) -> String| -> TestResult<PathBuf> {
        let renamed: HashMap<String, Tensor> =
            original.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect();
        assert_eq!(renamed.len(), original.len());
        safetensors::save(&renamed, folder.path().join(file))?;
        Ok(folder.path().join(file))
    };
    let kohya = |name: &str| {
        let (path, role) = name.split_once(".lora_").unwrap_or((name, ""));
        let (part, layer) = path.split_once('.').unwrap_or((path, ""));
        let part = if part == "unet" { "unet" } else { "te" };
        let role = if role.starts_with('A') { "lora_down" } else { "lora_up" };
        format!("lora_{part}_{}.{role}.weight", layer.replace('.', "_"))
    };
    let old = |name: &str| {
        let name = name.replace("lora_A", "lora.down").replace("lora_B", "lora.up");
        let name = name.replace("attn1.to_q.lora", "attn1.processor.to_q_lora");
        name.replace("attn1.to_out.0.lora", "attn1.processor.to_out_lora")
    };
    let in_latent_diffusion =
        |name: &str| kohya(name).replace("down_blocks_0_attentions_0", "input_blocks_1_1");
    for file in [
        saved("kohya.safetensors", &kohya)?,
        saved("old.safetensors", &old)?,
        saved("latent_diffusion.safetensors", &in_latent_diffusion)?,
        saved("pytorch_lora_weights.safetensors", &str::to_owned)?.with_file_name(""),
    ] {
        let latents = draw(&load(model, vec![(Lora::open(path(&file)?)?, 1.0)])?)?;
        assert_eq!(relative_error(&latents, &expected), 0.0, "{}", file.display());
    }
    Ok(())
}

/// PEFT stores the strength beside the weights.
#[test]
fn the_alpha_of_peft_counts() -> TestResult {
    let model = "alt_diffusion";
    let folder = tempfile::tempdir()?;
    let original = safetensors::load(adapter("alt_diffusion.diffusers.safetensors"), &Device::Cpu)?;
    let unet: HashMap<String, Tensor> = original
        .into_iter()
        .filter_map(|(name, tensor)| {
            Some((format!("base_model.model.{}", name.strip_prefix("unet.")?), tensor))
        })
        .collect();
    safetensors::save(&unet, folder.path().join("adapter_model.safetensors"))?;
    let draw_with = |config: &str, strength: f64| -> TestResult<Tensor> {
        std::fs::write(folder.path().join("adapter_config.json"), config)?;
        Ok(draw(&load(model, vec![(Lora::open(path(folder.path())?)?, strength)])?)?)
    };
    // The rank is 3.
    let plain = draw_with("{}", 0.5)?;
    assert!(relative_error(&draw_with(r#"{"lora_alpha": 1.5}"#, 1.0)?, &plain) < 1e-6);
    let root = draw_with(r#"{"lora_alpha": 1.5, "use_rslora": true}"#, 1.0 / 3f64.sqrt())?;
    assert!(relative_error(&root, &plain) < 1e-6);
    let file = folder.path().join("adapter_model.safetensors");
    let by_file = draw(&load(model, vec![(Lora::open(path(&file)?)?, 1.0 / 3f64.sqrt())])?)?;
    assert_eq!(relative_error(&by_file, &root), 0.0);
    Ok(())
}

/// A convolution split into three equals the three in sequence.
#[test]
fn a_convolution_in_three_parts_is_merged() -> TestResult {
    let model = "alt_diffusion";
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("three.safetensors");
    let layer = "lora_unet_up_blocks_1_resnets_0_conv1";
    let weight =
        safetensors::load(golden(model).join("unet/diffusion_pytorch_model.safetensors"), &Device::Cpu)?
            .remove("up_blocks.1.resnets.0.conv1.weight")
            .ok_or("no such layer")?;
    let (out, channels, _, _) = weight.dims4()?;
    let (down, mid, up) =
        (normal(1, &[2, channels, 1, 1]), normal(2, &[2, 2, 3, 3]), normal(3, &[out, 2, 1, 1]));
    let save = |tensors: &[(&str, &Tensor)]| -> TestResult<Lora> {
        let tensors: HashMap<String, Tensor> = tensors
            .iter()
            .map(|(role, tensor)| (format!("{layer}.{role}.weight"), (*tensor).clone()))
            .collect();
        safetensors::save(&tensors, &file)?;
        Ok(Lora::open(path(&file)?)?)
    };
    let three = save(&[("lora_down", &down), ("lora_mid", &mid), ("lora_up", &up)])?;
    // The response of the three to an impulse in each channel is the kernel of one, mirrored.
    let impulses = Tensor::eye(channels, DType::F32, &Device::Cpu)?.reshape((channels, channels, 1, 1))?;
    let kernel = impulses.conv2d(&down, 0, 1, 1, 1)?.conv2d(&mid, 2, 1, 1, 1)?.conv2d(&up, 0, 1, 1, 1)?;
    let kernel = kernel.flip(&[2, 3])?.transpose(0, 1)?.contiguous()?; // (out, channels, 3, 3)
    let identity = Tensor::eye(out, DType::F32, &Device::Cpu)?.reshape((out, out, 1, 1))?;
    let whole = save(&[("lora_down", &kernel), ("lora_up", &identity)])?;
    let (three, whole) = (draw(&load(model, vec![(three, 1.0)])?)?, draw(&load(model, vec![(whole, 1.0)])?)?);
    let error = relative_error(&three, &whole);
    assert!(error < 1e-5, "{error:e}");
    assert!(relative_error(&three, &draw(&load(model, Vec::new())?)?) > 0.01);
    Ok(())
}

#[test]
fn a_lora_for_another_architecture_is_an_error() -> TestResult {
    let other = error_message(load("alt_diffusion_m18", vec![(lora("alt_diffusion", "kohya")?, 1.0)]));
    assert!(
        other.contains("alt_diffusion.kohya.safetensors: the LoRA is for another architecture"),
        "{other}"
    );

    let folder = tempfile::tempdir()?;
    let open = |name: &str, tensors: &[(&str, &[usize])]| -> TestResult<Result<Lora, String>> {
        let tensors: HashMap<String, Tensor> =
            tensors.iter().map(|(name, shape)| ((*name).to_owned(), normal(0, shape))).collect();
        let file = folder.path().join(name);
        safetensors::save(&tensors, &file)?;
        Ok(Lora::open(path(&file)?).map_err(|error| error.to_string()))
    };
    let of_clip = "lora_te_text_model_encoder_layers_0_mlp_fc1";
    let [down, up] = ["lora_down", "lora_up"].map(|role| format!("{of_clip}.{role}.weight"));
    let clip = open("clip.safetensors", &[(&down, &[2, 16]), (&up, &[16, 2])])??;
    let error = error_message(load("alt_diffusion", vec![(clip.clone(), 1.0)]));
    assert!(
        error.contains("text encoder") && error.contains("or only what it changes in the UNet"),
        "{error}"
    );
    assert_eq!(clip.without_text_encoder().layers(), 0);

    let kind = |opened: Result<Lora, String>| opened.err().unwrap_or_default();
    let loha = kind(open("loha.safetensors", &[("lora_unet_conv_in.hada_w1_a", &[4, 4])])?);
    assert!(loha.contains("layer conv_in: expected both matrices of every factor, found none"), "{loha}");
    let model = kind(open("model.safetensors", &[("conv_in.weight", &[4, 4])])?);
    assert!(model.contains("expected a LoRA, found the tensor conv_in.weight"), "{model}");
    let half = kind(open("half.safetensors", &[("unet.conv_in.lora_A.weight", &[4, 4])])?);
    assert!(half.contains("layer conv_in: expected a LoRA's up matrix, found none"), "{half}");
    let ranks: &[(&str, &[usize])] =
        &[("unet.conv_in.lora_A.weight", &[4, 4]), ("unet.conv_in.lora_B.weight", &[4, 3])];
    let ranks = kind(open("ranks.safetensors", ranks)?);
    assert!(ranks.contains("expected matrices (rank, in) and (out, rank)"), "{ranks}");
    Ok(())
}

#[test]
fn words_that_do_not_fit_are_errors() -> TestResult {
    let vectors = |width: usize| normal(5, &[2, width]);
    let word = |text: &str, width: usize| TextualInversion::new(text, vectors(width), "cat.safetensors");
    let load = |words: Vec<TextualInversion>| -> TestResult<String> {
        let options = words.into_iter().fold(LoadOptions::new(DType::F32, &Device::Cpu), LoadOptions::word);
        Ok(error_message(AltDiffusion::load(parts("alt_diffusion")?, options)))
    };
    let wide = load(vec![word("<cat>", 768)?])?;
    assert!(
        wide.contains("its vectors have 768 values, where those of this model's text encoder have 16"),
        "{wide}"
    );
    let twice = load(vec![word("<cat>", 16)?, word("<cat>", 16)?])?;
    assert!(twice.contains("it is there already"), "{twice}");
    assert!(word(" ", 16).is_err() && TextualInversion::new("a", normal(1, &[2, 3, 4]), "x").is_err());
    assert!(TextualInversion::new("a", (vectors(16) * f64::NAN)?, "x").is_err());
    Ok(())
}

#[test]
fn too_many_skipped_layers_are_an_error() -> TestResult {
    let pipeline = load("alt_diffusion", Vec::new())?;
    let options = GenerateOptions::new("a cat").clip_skip(3);
    let error = error_message(pipeline.generate(&options));
    assert_eq!(error, "clip skip: expected to skip fewer than the 3 layers of the text encoder, found 3");
    Ok(())
}

/// Changes beside the weights equal changes merged into them.
#[test]
fn loras_beside_weights_draw_the_same() -> TestResult {
    for model in MODELS {
        let loras = vec![(lora(model, "diffusers")?, 0.7), (lora(model, "kohya")?, -0.4)];
        let merged = draw(&load(model, loras.clone())?)?;
        let options = LoadOptions::new(DType::F32, &Device::Cpu).loras_beside_weights(true);
        let options =
            loras.into_iter().fold(options, |options, (lora, strength)| options.lora(lora, strength));
        let beside = draw(&AltDiffusion::load(parts(model)?, options)?)?;
        let error = relative_error(&beside, &merged);
        println!("{model}: {error:.1e}");
        assert!(error < 2e-5 && error > 0.0, "{model}: {error:e}");
    }
    let beside = LoadOptions::new(DType::F32, &Device::Cpu).loras_beside_weights(true);
    let other = beside.lora(lora("alt_diffusion", "kohya")?, 1.0);
    let error = error_message(AltDiffusion::load(parts("alt_diffusion_m18")?, other));
    assert!(error.contains("the LoRA is for another architecture"), "{error}");
    Ok(())
}

/// Loading the parts on demand changes nothing.
#[test]
fn little_memory_gives_the_same_image() -> TestResult {
    let options = LoadOptions::new(DType::F32, &Device::Cpu).lora(lora("alt_diffusion", "kohya")?, 0.5);
    let pipeline = AltDiffusion::load(parts("alt_diffusion")?, options.low_memory(true))?;
    let kept = draw(&load("alt_diffusion", vec![(lora("alt_diffusion", "kohya")?, 0.5)])?)?;
    assert_eq!(relative_error(&draw(&pipeline)?, &kept), 0.0);
    assert_eq!(relative_error(&draw(&pipeline)?, &kept), 0.0);
    Ok(())
}

/// Pickles of every protocol, from the first repository and from web UIs on other devices, with what PyTorch reads
/// from them (`scripts/golden/make_odd_weights.py`).
#[test]
fn learned_words_are_read_from_every_form_of_pickle() -> TestResult {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model-files/tests/data/odd/reported");
    for (file, tensor) in [
        ("p3.pt", "<w>"),
        ("p4.pt", "<w>"),
        ("p3old.pt", "<w>"),
        ("set.pt", "<w>"),
        ("version.pt", "<w>"),
        ("paramdict.pt", "string_to_param.*"),
        ("mps.pt", "string_to_param.*"),
    ] {
        let word = TextualInversion::open(path(&folder.join(file))?)?;
        let expected: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join(format!("{file}.json")))?)?;
        let expected: Vec<f32> = serde_json::from_value(expected["tensors"][tensor]["values"].clone())?;
        assert_eq!(word.vectors().flatten_all()?.to_vec1::<f32>()?, expected, "{file}");
        assert_eq!(word.word(), if tensor == "<w>" { tensor } else { file.trim_end_matches(".pt") });
    }
    Ok(())
}
