//! Tests training the autoencoder on a few images.

use std::path::Path;

use altclip_training::{Metrics, Observer, OptimizerConfig, Schedule, TrainingRun};
use candle_core::{Device, Tensor};
use emoji_model::stages::autoencoder::{Autoencoder, TrainedVae, VaeStage};
use emoji_model::{EmojiRecipe, export_autoencoder};
use model_files::source::ModelSource;
use tempfile::TempDir;

const SIZE: usize = 16;

/// Records a run's messages.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn step(&mut self, _: &str, _: &Metrics, _: usize) {}

    fn note(&mut self, _: &str, text: &str) {
        self.0.push(text.to_owned());
    }
}

fn stage(steps: usize) -> VaeStage {
    VaeStage {
        block_out_channels: vec![8, 8],
        layers_per_block: 1,
        latent_channels: 4,
        norm_num_groups: 4,
        batch_size: 4,
        absolute_weight: 0.2,
        kl_weight: 1e-3,
        mirror: true,
        parts: 2,
        start: None,
        optimizer: OptimizerConfig {
            steps,
            learning_rate: 1e-3,
            warmup_steps: 1,
            schedule: Schedule::Constant,
            weight_decay: 0.,
            beta1: 0.9,
            beta2: 0.99,
            max_grad_norm: 1.,
            ema_decay: 0.9,
            accumulate: 1,
        },
    }
}

/// Eight images with pixels computed from their position.
fn images() -> Tensor {
    let values: Vec<f32> = (0..8 * SIZE * SIZE * 3).map(|i| (i as f32 * 0.37).sin()).collect();
    Tensor::from_vec(values, (8, SIZE, SIZE, 3), &Device::Cpu).unwrap()
}

fn train(stage: &VaeStage, folder: &Path, notes: &mut Notes) -> altclip_training::Result<TrainedVae> {
    stage.train(&images(), &TrainingRun::open(folder, 1).unwrap(), 1, notes)
}

#[test]
fn a_run_goes_on_from_an_exported_autoencoder() {
    let folder = TempDir::new().unwrap();
    let exported = folder.path().join("exported");
    let mut notes = Notes::default();
    let first = train(&stage(2), &folder.path().join("first"), &mut notes).unwrap();
    assert!(notes.0.iter().any(|note| note.contains(" dB, edges ")), "{:?}", notes.0);
    export_autoencoder(&exported, SIZE, &first.model).unwrap();

    let start = Some(exported.display().to_string());
    let unchanged = VaeStage { start: start.clone(), ..stage(0) };
    let second = train(&unchanged, &folder.path().join("second"), &mut notes).unwrap();
    let read = Autoencoder::open(&ModelSource::directory(&exported)).unwrap();
    assert_eq!(read.config.scaling_factor, first.model.config.scaling_factor);
    assert_eq!(second.model.weights.len(), read.weights.len());
    for (name, weight) in &second.model.weights {
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(weight), values(&read.weights[name]), "{name}");
    }

    let wider = VaeStage { start, latent_channels: 6, ..stage(1) };
    let error = train(&wider, &folder.path().join("third"), &mut notes).err().unwrap().to_string();
    assert!(error.contains("conv"), "{error}");
}

#[test]
fn a_batch_that_the_parts_do_not_divide_is_refused() {
    let folder = TempDir::new().unwrap();
    for batch_size in [0, 5] {
        let stage = VaeStage { batch_size, ..stage(1) };
        let error = train(&stage, folder.path(), &mut Notes::default()).err().unwrap().to_string();
        assert_eq!(
            error,
            format!("vae.batch_size: expected a positive multiple of 2 parts, found {batch_size}")
        );
    }
}

#[test]
fn steps_of_a_batch_in_parts_make_images_truer() {
    let folder = TempDir::new().unwrap();
    let psnr = |steps: usize| {
        let mut notes = Notes::default();
        train(&stage(steps), &folder.path().join(steps.to_string()), &mut notes).unwrap();
        let line = notes.0.iter().find_map(|note| note.strip_prefix("reconstructs at ")).unwrap();
        line.split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let (before, after) = (psnr(0), psnr(40));
    assert!(after > before + 1., "{before} dB, then {after} dB");
}

#[test]
fn the_next_models_recipes_are_ones_that_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/emoji/training");
    for name in ["recipe.toml", "shorter.toml"] {
        let recipe = EmojiRecipe::load(&folder.join(name), &[]).unwrap();
        assert!(recipe.vae.batch_size.is_multiple_of(recipe.vae.parts), "{name}");
        let groups = recipe.vae.norm_num_groups;
        assert!(recipe.vae.block_out_channels.iter().all(|c| c.is_multiple_of(groups)), "{name}");
    }
}

#[test]
fn the_shorter_way_keeps_the_shipped_models_latents() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/emoji");
    let shorter = EmojiRecipe::load(&folder.join("training/shorter.toml"), &[]).unwrap();
    let shipped = EmojiRecipe::load(&folder.join("recipe.toml"), &[]).unwrap();
    assert_eq!(shorter.start.as_deref(), Some("models/emoji"));
    assert_eq!(shorter.vae, shipped.vae);
    assert_eq!(shorter.coverage(), shipped.coverage());
    assert_eq!(shorter.stages(), ["decoder", "image", "contrastive", "whole", "drawn", "upscaler"]);
    // What the shipped image tower and UNet were trained for.
    assert_eq!((shorter.decoder.optimizer.steps, shorter.image.optimizer.steps), (0, 0));
}
