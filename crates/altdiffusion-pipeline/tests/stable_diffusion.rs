//! Compares whole images with diffusers' `StableDiffusionPipeline`, for models with other text encoders than XLM-R.

use altclip_encoder::open_clip_names;
use altdiffusion_pipeline::{
    AltDiffusion, GenerateOptions, LoadOptions, Lora, ModelParts, PROMPT_TOKENS, PromptReading, Result,
    TextStates, TextualInversion,
};
use candle_core::{DType, Device, Tensor, safetensors};
use model_files::source::ModelSource;
use serde::Deserialize;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use test_support::{assert_close, copy_directory, golden, golden_json, golden_tensors, relative_error};

/// The largest relative error of latents and images.
const TOLERANCE: f64 = 1e-4;

const MODELS: [&str; 3] = ["sd1", "sd2", "taiyi"];

#[derive(Deserialize)]
struct Golden {
    texts: Vec<String>,
    word: String,
    word_texts: Vec<String>,
    picture: Picture,
}

#[derive(Deserialize)]
struct Picture {
    prompt: String,
    negative_prompt: String,
    guidance_scale: f64,
    num_inference_steps: usize,
    num_images_per_prompt: usize,
    height: usize,
    width: usize,
}

fn path(path: &str) -> PathBuf {
    golden("conditioners").join(path)
}

fn tensors(file: &str) -> HashMap<String, Tensor> {
    golden_tensors(&format!("conditioners/{file}.safetensors"))
}

fn cases() -> Golden {
    golden_json("conditioners/conditioners.json")
}

fn options(initial_latents: &Tensor) -> GenerateOptions {
    let Picture {
        prompt,
        negative_prompt,
        guidance_scale,
        num_inference_steps,
        num_images_per_prompt,
        height,
        width,
    } = cases().picture;
    GenerateOptions::new(prompt)
        .negative_prompt(negative_prompt)
        .guidance_scale(guidance_scale)
        .steps(num_inference_steps)
        .images(num_images_per_prompt)
        .height(height)
        .width(width)
        .initial_latents(initial_latents.clone())
}

fn source(model: &str) -> ModelSource {
    ModelSource::directory(path(model))
}

fn load(model: &str) -> AltDiffusion {
    AltDiffusion::from_source(&source(model), DType::F32, &Device::Cpu).unwrap()
}

fn load_with(model: &str, change: impl FnOnce(LoadOptions) -> LoadOptions) -> Result<AltDiffusion> {
    let parts = ModelParts::in_folders(&source(model))?;
    AltDiffusion::load(parts, change(LoadOptions::default()))
}

/// Copies a part of a model in folders.
fn copy(from: &str, part: &str, to: &Path) {
    copy_directory(&path(from).join(part), &to.join(part)).unwrap();
}

fn states(pipeline: &AltDiffusion, reading: PromptReading, texts: &[&str]) -> Tensor {
    pipeline.encode_texts(reading, texts).unwrap().hidden_states().clone()
}

fn draw(what: &str, pipeline: &AltDiffusion, golden: &HashMap<String, Tensor>) {
    let generated = pipeline.generate(&options(&golden[&format!("{what}.initial_latents")])).unwrap();
    assert_close(
        &format!("{what}: latents"),
        &generated.latents,
        &golden[&format!("{what}.latents")],
        TOLERANCE,
    );
    let vae = pipeline.vae().unwrap();
    let pixels = vae.decode(&(&generated.latents / vae.scaling_factor()).unwrap()).unwrap();
    let pixels = pixels.affine(0.5, 0.5).unwrap().clamp(0f32, 1f32).unwrap();
    let expected = &golden[&format!("{what}.picture")];
    assert_close(&format!("{what}: image"), &pixels, expected, TOLERANCE);
    for (index, image) in generated.images.iter().enumerate() {
        let expected = expected.get(index).unwrap().permute((1, 2, 0)).unwrap().flatten_all().unwrap();
        let expected = expected.to_vec1::<f32>().unwrap();
        assert_eq!(image.as_raw().len(), expected.len());
        for (byte, expected) in image.as_raw().iter().zip(&expected) {
            assert!((f32::from(*byte) - expected * 255.0).abs() < 0.6, "{what}: {byte} {expected}");
        }
    }
}

#[test]
fn images_are_those_of_diffusers() {
    let golden = tensors("golden");
    for model in MODELS {
        draw(model, &load(model), &golden);
        draw(model, &load_with(model, |options| options.low_memory(true)).unwrap(), &golden);
    }
}

#[test]
fn layers_are_skipped_as_in_diffusers() {
    let golden = tensors("golden");
    for model in MODELS {
        let pipeline = load(model);
        let texts: Vec<String> = cases().texts.into_iter().take(2).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let encoder = pipeline.text_encoder().unwrap().skipping_layers(1).unwrap();
        let tokenizer = pipeline.tokenizer().unwrap();
        let found = TextStates::encode(tokenizer, &*encoder, &texts, PROMPT_TOKENS).unwrap();
        assert_close(model, found.hidden_states(), &golden[&format!("{model}.skipped_states")], 1e-5);
        // And as an option of a run.
        let initial = &golden[&format!("{model}.initial_latents")];
        let latents = |skip| pipeline.generate(&options(initial).clip_skip(skip)).unwrap().latents;
        assert!(relative_error(&latents(1), &latents(0)) > 1e-3, "{model}");
    }
}

#[test]
fn loras_for_the_text_encoder_are_merged() {
    let golden = tensors("golden");
    for model in MODELS {
        let file = path(&format!("{model}_lora.safetensors"));
        let lora = Lora::open(file.to_str().unwrap()).unwrap();
        for beside in [false, true] {
            let pipeline =
                load_with(model, |options| options.lora(lora.clone(), 0.5).loras_beside_weights(beside));
            let text = cases().texts.remove(1);
            let found = states(&pipeline.unwrap(), PromptReading::Plain, &[&text]);
            assert_close(model, &found, &golden[&format!("{model}.lora_states")], 1e-5);
        }
        // One for another family is refused, and says for what it is.
        let other = if model == "taiyi" { "sd1" } else { "taiyi" };
        let error = load_with(other, |options| options.lora(lora, 0.5)).err().unwrap().to_string();
        assert!(error.contains("another architecture") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn learned_words_are_read() {
    let (golden, words) = (tensors("golden"), tensors("words"));
    let Golden { word, word_texts, .. } = cases();
    let texts: Vec<&str> = word_texts.iter().map(String::as_str).collect();
    for model in MODELS {
        let learned = TextualInversion::new(&word, words[model].clone(), "words").unwrap();
        let pipeline = load_with(model, |options| options.word(learned)).unwrap();
        let found = states(&pipeline, PromptReading::Plain, &texts);
        assert_close(model, &found, &golden[&format!("{model}.word_states")], 1e-5);
    }
    let narrow = TextualInversion::new(&word, words["sd1"].clone(), "words").unwrap();
    let error = load_with("sd2", |options| options.word(narrow)).err().unwrap().to_string();
    assert!(error.contains("have 16 values") && error.contains("have 20"), "{error}");
}

/// A long prompt is its chunks, each with its own padding; a weight scales a token's row, and the chunk keeps its mean.
#[test]
fn weights_and_long_prompts_are_read() {
    for model in MODELS {
        let pipeline = load(model);
        let weighted = |text: &str| states(&pipeline, PromptReading::Weighted, &[text]);
        let plain = |text: &str| states(&pipeline, PromptReading::Plain, &[text]);
        assert_eq!(relative_error(&weighted("a red dog"), &plain("a red dog")), 0.0, "{model}");
        let long = weighted("a red dog BREAK 一只猫");
        assert_eq!(long.dims()[1], 2 * PROMPT_TOKENS);
        let chunks = Tensor::cat(&[plain("a red dog"), plain("一只猫")], 1).unwrap();
        assert!(relative_error(&long, &chunks) < 1e-6, "{model}");

        let (before, after) = (plain("a red dog"), weighted("a (red:1.5) dog"));
        let mean = |x: &Tensor| x.mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!((mean(&before) - mean(&after)).abs() < 1e-5, "{model}");
        // Rows without a weight are scaled alike, padding too; the word's is half as long again.
        let ratio = |row: usize| {
            let norm = |x: &Tensor| {
                let row = x.narrow(1, row, 1).unwrap();
                row.sqr().unwrap().sum_all().unwrap().sqrt().unwrap().to_scalar::<f32>().unwrap()
            };
            norm(&after) / norm(&before)
        };
        let word = (1..PROMPT_TOKENS).find(|&row| (ratio(row) / ratio(0) - 1.5).abs() < 1e-3);
        assert!(word.is_some() && (ratio(70) / ratio(0) - 1.0).abs() < 1e-4, "{model}");
    }
}

/// Single files: Stable Diffusion 1's have transformers' names, and Stable Diffusion 2's OpenCLIP's.
#[test]
fn single_files_are_the_same_models() {
    let golden = tensors("golden");
    for model in ["sd1", "sd2"] {
        let file = path(&format!("{model}.safetensors"));
        let parts = ModelParts::in_single_file(&file, Some(&source(model))).unwrap();
        draw(model, &AltDiffusion::load(parts, LoadOptions::default()).unwrap(), &golden);

        // Converted to folders and to one file.
        let place = tempfile::tempdir().unwrap();
        let parts = ModelParts::in_single_file(&file, Some(&source(model))).unwrap();
        let mut go_on = |_, _| ControlFlow::Continue(());
        let (folders, one) = (place.path().join("folders"), place.path().join("one.safetensors"));
        let converted = parts.write_folders(&folders, None, &mut go_on).unwrap();
        let unused = |name: &String| {
            ["position_ids", "resblocks.3.", "text_projection", "logit_scale"]
                .iter()
                .any(|part| name.contains(part))
        };
        assert!(converted.left_out.iter().all(unused), "{:?}", converted.left_out);
        parts.write_single_file(&one, None, &mut go_on).unwrap();
        let folders = ModelSource::directory(&folders);
        draw(model, &AltDiffusion::from_source(&folders, DType::F32, &Device::Cpu).unwrap(), &golden);
        let parts = ModelParts::in_single_file(&one, Some(&source(model))).unwrap();
        draw(model, &AltDiffusion::load(parts, LoadOptions::default()).unwrap(), &golden);
        let index: serde_json::Value = folders.read_json("model_index.json").unwrap();
        assert_eq!(index["_class_name"], "StableDiffusionPipeline");
        assert_eq!(index["text_encoder"], serde_json::json!(["transformers", "CLIPTextModel"]));
        assert_eq!(index["tokenizer"], serde_json::json!(["transformers", "CLIPTokenizer"]));
    }
}

/// Writes the single file of `model` with each of its tensors as `respelled`.
fn respell(model: &str, file: &Path, respelled: impl Fn(String, Tensor) -> Vec<(String, Tensor)>) {
    let stored: HashMap<String, Tensor> =
        tensors(model).into_iter().flat_map(|(name, tensor)| respelled(name, tensor)).collect();
    safetensors::save(&stored, file).unwrap();
}

/// Leaves out the tensors with `part` in their names.
fn without(part: &str) -> impl Fn(String, Tensor) -> Vec<(String, Tensor)> {
    move |name, tensor| if name.contains(part) { Vec::new() } else { vec![(name, tensor)] }
}

/// Draws what the model in folders draws with such a file.
fn draw_respelled(model: &str, respelled: impl Fn(String, Tensor) -> Vec<(String, Tensor)>) {
    let file = tempfile::Builder::new().suffix(".safetensors").tempfile().unwrap();
    respell(model, file.path(), respelled);
    let parts = ModelParts::in_single_file(file.path(), Some(&source(model))).unwrap();
    draw(model, &AltDiffusion::load(parts, LoadOptions::default()).unwrap(), &tensors("golden"));
}

/// Names that programs other than the original one write.
#[test]
fn other_spellings_of_single_files_are_read() {
    for (model, replaced) in [
        ("sd1", &[("transformer.text_model.", "transformer.")][..]),
        ("sd2", &[("cond_stage_model.", "conditioner.embedders.0.")]),
        (
            "sd1",
            &[
                (".attn_1.q.", ".attn_1.to_q."),
                (".attn_1.k.", ".attn_1.to_k."),
                (".attn_1.v.", ".attn_1.to_v."),
                (".attn_1.proj_out.", ".attn_1.to_out.0."),
            ],
        ),
    ] {
        draw_respelled(model, |name, tensor| {
            vec![(replaced.iter().fold(name, |name, (from, to)| name.replace(from, to)), tensor)]
        });
    }
}

/// stable-diffusion.cpp writes the text encoder under transformers' names, and linear projections as convolutions.
#[test]
fn the_names_and_shapes_of_stable_diffusion_cpp_are_read() {
    const TOWER: &str = "cond_stage_model.transformer.text_model";
    draw_respelled("sd2", |name, tensor| {
        if name.contains(".proj_in.weight") || name.contains(".proj_out.weight") {
            let shape = [tensor.dims(), &[1, 1]].concat();
            return vec![(name, tensor.reshape(shape.get(..4).unwrap()).unwrap())];
        }
        let Some(of_tower) = name.strip_prefix("cond_stage_model.model.") else {
            return vec![(name, tensor)];
        };
        let Some((layer, own)) =
            of_tower.strip_prefix("transformer.resblocks.").and_then(|rest| rest.split_once('.'))
        else {
            let tensor_name = match of_tower {
                "token_embedding.weight" => "embeddings.token_embedding.weight",
                "positional_embedding" => "embeddings.position_embedding.weight",
                "ln_final.weight" => "final_layer_norm.weight",
                "ln_final.bias" => "final_layer_norm.bias",
                _ => return Vec::new(),
            };
            return vec![(format!("{TOWER}.{tensor_name}"), tensor)];
        };
        let parts = open_clip_names::fused_parts(&format!(".{own}"));
        let parts = if parts.is_empty() { vec![format!(".{own}")] } else { parts };
        let rows = tensor.chunk(parts.len(), 0).unwrap();
        let named = parts.iter().zip(rows).map(|(part, rows)| {
            let own = open_clip_names::to_transformers(part.trim_start_matches('.')).unwrap();
            (format!("{TOWER}.encoder.layers.{layer}.{own}"), rows.contiguous().unwrap())
        });
        named.collect()
    });
}

/// Files that were converted from diffusers lack the layer that Stable Diffusion 2 does not use.
#[test]
fn the_unused_layer_may_be_missing() {
    draw_respelled("sd2", without("resblocks.3."));
}

/// A file without an autoencoder is drawn and converted with that of the model beside it.
#[test]
fn the_autoencoder_may_come_from_beside() {
    draw_respelled("sd1", without("first_stage_model."));
    let place = tempfile::tempdir().unwrap();
    let (file, whole) = (place.path().join("unet.safetensors"), place.path().join("whole.safetensors"));
    respell("sd1", &file, without("first_stage_model."));
    let parts = ModelParts::in_single_file(&file, Some(&source("sd1"))).unwrap();
    assert_eq!(parts.weights().len(), 2);
    parts.write_single_file(&whole, None, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let parts = ModelParts::in_single_file(&whole, Some(&source("sd1"))).unwrap();
    assert_eq!(parts.weights().len(), 1);
    draw("sd1", &AltDiffusion::load(parts, LoadOptions::default()).unwrap(), &tensors("golden"));

    let error = ModelParts::in_single_file(&file, None).err().unwrap().to_string();
    assert!(error.contains("lacks the autoencoder") && !error.contains('\n'), "{error}");
}

/// Models that a single file may hold, but that are not drawn with.
#[test]
fn unets_with_labels_are_refused() {
    let file = tempfile::Builder::new().suffix(".safetensors").tempfile().unwrap();
    respell("sd2", file.path(), |name, tensor| vec![(name.replace("time_embed.", "label_emb."), tensor)]);
    let error = ModelParts::in_single_file(file.path(), Some(&source("sd2"))).err().unwrap().to_string();
    assert!(error.contains("label_emb") && !error.contains('\n'), "{error}");
}

/// CLIP's tower after a WordPiece vocabulary, with the first model's other parts: in folders as PAI-Diffusion's, and in
/// MindSpore's file as Wukong-Huahua's, whose autoencoder has no encoder.
#[test]
fn chinese_clip_towers_draw_what_diffusers_draws() {
    let golden = tensors("golden");
    for model in ["pai", "huahua"] {
        let folder = tempfile::tempdir().unwrap();
        for (from, part) in [
            ("sd1", "unet"),
            ("sd1", "vae"),
            ("sd1", "scheduler"),
            ("pai", "tokenizer"),
            (model, "text_encoder"),
        ] {
            copy(from, part, folder.path());
        }
        let source = ModelSource::directory(folder.path());
        draw(model, &AltDiffusion::from_source(&source, DType::F32, &Device::Cpu).unwrap(), &golden);
        if model == "huahua" {
            let parts = ModelParts::in_single_file(&path("huahua.ckpt"), Some(&source)).unwrap();
            let pipeline = AltDiffusion::load(parts, LoadOptions::default()).unwrap();
            draw(model, &pipeline, &golden);
            let texts = cases().texts;
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let found = states(&pipeline, PromptReading::Plain, &texts);
            assert_close("of MindSpore", &found, &tensors("huahua")["states"], 1e-5);
            let pixels = Tensor::zeros((1, 3, 16, 16), DType::F32, &Device::Cpu).unwrap();
            let error = pipeline.vae().unwrap().encode(&pixels).map(drop).unwrap_err().to_string();
            assert!(error.contains("has a decoder only"), "{error}");
        }
    }
}

/// Parts of different models: one line names what was expected and what was found.
#[test]
fn a_text_encoder_of_another_width_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for part in ["unet", "vae", "scheduler"] {
        copy("sd1", part, folder.path());
    }
    for part in ["tokenizer", "text_encoder"] {
        copy("sd2", part, folder.path());
    }
    let loaded = AltDiffusion::from_source(&ModelSource::directory(folder.path()), DType::F32, &Device::Cpu);
    let error = loaded.err().unwrap().to_string();
    assert!(error.contains("cross_attention_dim") && error.contains("`hidden_size`"), "{error}");
    assert!(error.contains("[16]") && error.contains("is 20"), "{error}");
}
