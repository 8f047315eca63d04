//! Runs the whole recipe with small numbers, stage after stage, to a model that draws.

mod common;

use std::path::Path;

use altclip_training::settings::SettingChange;
use altclip_training::{Metrics, Observer};
use altdiffusion_pipeline::{AltDiffusion, GenerateOptions};
use candle_core::{DType, Device};
use common::{png, write, write_people};
use emoji_model::dataset::{PrepareOptions, prepare};
use emoji_model::stages::decoder::DecoderStage;
use emoji_model::stages::upscaler::UpscalerStage;
use emoji_model::{DrawnStage, EmojiRecipe, KnownConcepts};
use model_files::source::ModelSource;
use tempfile::TempDir;

#[derive(Default)]
struct Watch {
    /// The stages that took steps, in order, and how many.
    steps: Vec<(String, usize)>,
    notes: Vec<String>,
}

impl Observer for Watch {
    fn step(&mut self, stage: &str, _: &Metrics, _: usize) {
        match self.steps.last_mut() {
            Some((last, steps)) if last == stage => *steps += 1,
            _ => self.steps.push((stage.to_owned(), 1)),
        }
    }

    fn note(&mut self, stage: &str, text: &str) {
        self.notes.push(format!("{stage}: {text}"));
    }
}

/// The recipe for 18 languages with small numbers.
fn small_recipe() -> EmojiRecipe {
    let shape =
        "{ hidden_size = 16, intermediate_size = 16, num_hidden_layers = 1, num_attention_heads = 2 }";
    let mut changes = vec![
        "vocab_size=700".to_owned(),
        "not_drawn=[]".to_owned(),
        "vae.block_out_channels=[8, 8]".to_owned(),
        "clip.patch_size=32".to_owned(),
        format!("clip.text={shape}"),
        format!("clip.image={shape}"),
        "contrastive.chunk_size=3".to_owned(),
        "unet.block_out_channels=[16, 16]".to_owned(),
        "base.batch_size=2".to_owned(),
        "sample.prompts=[\"a person\"]".to_owned(),
        "sample.steps=2".to_owned(),
    ];
    for stage in ["vae", "decoder", "clip", "teacher", "image", "contrastive"] {
        changes.push(format!("{stage}.batch_size=4"));
        changes.push(format!("{stage}.optimizer.steps=2"));
    }
    changes.push("base.optimizer.steps=2".to_owned());
    let changes: Vec<SettingChange> = changes.iter().map(|change| change.parse().unwrap()).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/emoji/recipe.toml");
    let mut recipe = EmojiRecipe::load(&path, &changes).unwrap();
    for stage in &mut recipe.realign {
        (stage.batch_size, stage.optimizer.steps) = (2, 2);
    }
    let decoder =
        DecoderStage { batch_size: 2, block_out_channels: Some(vec![8, 16]), ..recipe.decoder.clone() };
    recipe.drawn = Some(DrawnStage { drawings: 2, steps: 2, guidance_scale: 2., decoder });
    recipe.upscaler = Some(UpscalerStage {
        images: "large".into(),
        hidden_channels: 4,
        num_hidden_layers: 1,
        batch_size: 4,
        crop: 8,
        decodings: 1,
        max_latent_noise: 0.1,
        clean_share: 0.5,
        edge_weight: 0.5,
        parts: 2,
        optimizer: recipe.decoder.optimizer.clone(),
    });
    recipe
}

#[test]
fn the_recipe_for_18_languages_runs_stage_after_stage() {
    let folder = TempDir::new().unwrap();
    write_people(folder.path(), 12);
    let (data, output) = (folder.path().join("data"), folder.path().join("run"));
    let options = PrepareOptions::new(folder.path(), &data);
    prepare(&options).unwrap();
    let recipe = small_recipe();
    let run = |last: Option<&str>| {
        let mut watch = Watch::default();
        recipe.train(&data, &output, last, &Device::Cpu, &mut watch).map(|()| watch)
    };
    let error = run(None).err().unwrap().to_string();
    assert!(error.starts_with("upscaler.images: ") && error.contains("data/large"), "{error}");
    // Of one vendor, three people.
    for person in 0..3u8 {
        let name = format!("large/google/{:X}.png", 0x1F980 + u32::from(person));
        write(data.join(name), png(256, [person; 3]));
    }
    let steps = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), 2)).collect::<Vec<_>>();
    let error = run(Some("drawing")).err().unwrap().to_string();
    assert!(error.starts_with("stage `drawing`: expected one of vae, clip, base"), "{error}");
    // What another process could train in parallel.
    assert_eq!(run(Some("teacher")).unwrap().steps, steps(&["clip", "teacher"]));
    assert_eq!(run(Some("base")).unwrap().steps, steps(&["vae", "base"]));
    assert!(!output.join("model").exists());
    // A model can be drawn with after each of its last stages.
    let source = ModelSource::directory(output.join("model"));
    let begun = ["decoder", "image", "contrastive", "keys-and-values", "whole"];
    assert_eq!(run(Some("whole")).unwrap().steps, steps(&begun));
    let options = GenerateOptions::new("一个人").steps(2);
    let pipeline = AltDiffusion::from_source(&source, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(pipeline.generate(&options).unwrap().images.len(), 1);
    assert!(pipeline.upscaler().unwrap().is_none());
    let watch = run(None).unwrap();
    assert_eq!(watch.steps, steps(&["guidance", "drawn", "upscaler"]));
    for model in ["english: ", "distilled: ", "contrastive-model: "] {
        assert!(watch.notes.iter().any(|note| note.starts_with(model)), "{:?}", watch.notes);
    }
    // All parts for drawing load like any AltDiffusion.
    let known = KnownConcepts::read(&source).unwrap().unwrap();
    assert_eq!(known.languages().count(), 18);
    let pipeline = AltDiffusion::from_source(&source, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(pipeline.generate(&options).unwrap().images.len(), 1);
    assert!(pipeline.upscaler().unwrap().is_some());
    let enlarged = pipeline.generate(&options.clone().scale(4)).unwrap();
    assert_eq!(enlarged.images[0].dimensions(), (256, 256));
    let again = run(None).unwrap();
    assert!(again.steps.is_empty(), "{:?}", again.steps);
    // The model is enough to train the last stages further.
    let more = EmojiRecipe { start: Some(output.join("model").display().to_string()), ..recipe.clone() };
    let (output, mut watch) = (folder.path().join("more"), Watch::default());
    // Of the decoder, too, alone.
    more.train(&data, &output, Some("decoder"), &Device::Cpu, &mut watch).unwrap();
    assert!(output.join("autoencoder/vae/config.json").exists() && !output.join("model").exists());
    more.train(&data, &output, None, &Device::Cpu, &mut watch).unwrap();
    assert_eq!(
        watch.steps,
        steps(&[
            "decoder",
            "image",
            "contrastive",
            "keys-and-values",
            "whole",
            "guidance",
            "drawn",
            "upscaler"
        ])
    );
    assert!(output.join("model/unet/config.json").exists());
    // Also with a newer autoencoder, whose latents have other channels.
    let (mut newer, mut watch) = (recipe, Watch::default());
    newer.vae.latent_channels = 5;
    let output = folder.path().join("newer");
    newer.train(&data, &output, Some("vae"), &Device::Cpu, &mut watch).unwrap();
    newer.start = more.start;
    (newer.renew_tokenizer, newer.vocab_size) = (true, newer.vocab_size + 30);
    newer.vae.start = Some(output.join("autoencoder").display().to_string());
    newer.train(&data, &output, None, &Device::Cpu, &mut watch).unwrap();
    let source = ModelSource::directory(output.join("model"));
    let pipeline = AltDiffusion::from_source(&source, DType::F32, &Device::Cpu).unwrap();
    assert_eq!(pipeline.generate(&options).unwrap().images.len(), 1);
}
