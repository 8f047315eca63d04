//! Tests training the upscaler on a few images.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use altclip_training::{Metrics, Observer, OptimizerConfig, Schedule, TrainingRun, frozen};
use altdiffusion_pipeline::upscaler::PixelShuffleUpscaler;
use altdiffusion_pipeline::vae::{AutoencoderKl, AutoencoderKlConfig};
use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use common::{png, prepared, write};
use emoji_model::dataset::{IMAGE_SIZE, LARGE_SIZE, LargeImages};
use emoji_model::pixels::{mean_psnr, to_tensor};
use emoji_model::stages::autoencoder::Autoencoder;
use emoji_model::stages::upscaler::{TrainedUpscaler, UpscalerStage};
use tempfile::TempDir;

/// Records a run's messages.
#[derive(Default)]
struct Notes(Vec<String>);

impl Observer for Notes {
    fn step(&mut self, _: &str, _: &Metrics, _: usize) {}

    fn note(&mut self, _: &str, text: &str) {
        self.0.push(text.to_owned());
    }
}

fn stage(steps: usize) -> UpscalerStage {
    UpscalerStage {
        images: "large".into(),
        hidden_channels: 8,
        num_hidden_layers: 1,
        batch_size: 4,
        crop: 16,
        decodings: 1,
        max_latent_noise: 0.,
        // The autoencoder here is untrained.
        clean_share: 1.,
        edge_weight: 0.5,
        parts: 2,
        optimizer: OptimizerConfig {
            steps,
            learning_rate: 3e-3,
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

/// Slanted waves in 256 × 256 pixels, and the means of 4 × 4 of them.
fn drawings(count: usize) -> (LargeImages, Tensor) {
    let mut large = LargeImages::default();
    for image in 0..count {
        large.rows.push(image as u32);
        for place in 0..LARGE_SIZE * LARGE_SIZE {
            let (y, x) = ((place / LARGE_SIZE) as f32, (place % LARGE_SIZE) as f32);
            let wave = ((x + y * (image as f32 - 1.)) * 0.15).sin();
            large.pixels.extend([(127.5 + 120. * wave) as u8; 3]);
        }
    }
    let pixels = to_tensor(&large.pixels, LARGE_SIZE, &Device::Cpu).unwrap();
    let squares = pixels.reshape((count, IMAGE_SIZE, 4, IMAGE_SIZE, 12)).unwrap().mean(2).unwrap();
    let small = squares.reshape((count, IMAGE_SIZE, IMAGE_SIZE, 4, 3)).unwrap().mean(3).unwrap();
    (large, small)
}

/// An autoencoder without training.
fn autoencoder() -> Autoencoder {
    let config = AutoencoderKlConfig {
        down_block_types: vec!["DownEncoderBlock2D".to_owned(); 2],
        up_block_types: vec!["UpDecoderBlock2D".to_owned(); 2],
        block_out_channels: vec![4, 4],
        norm_num_groups: 2,
        ..AutoencoderKlConfig::default()
    };
    let variables = VarMap::new();
    AutoencoderKl::new(&config, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu)).unwrap();
    let variables = variables.data().lock().unwrap();
    let weights: BTreeMap<String, Tensor> =
        variables.iter().map(|(name, variable)| (name.clone(), variable.as_detached_tensor())).collect();
    Autoencoder { config, weights }
}

fn train(
    stage: &UpscalerStage,
    (large, small): &(LargeImages, Tensor),
    folder: &Path,
    notes: &mut Notes,
) -> altclip_training::Result<TrainedUpscaler> {
    stage.train(&autoencoder(), small, large, &TrainingRun::open(folder, 1).unwrap(), 1, notes)
}

#[test]
fn steps_make_enlarged_images_truer() {
    let folder = TempDir::new().unwrap();
    let images = drawings(3);
    let psnr = |steps: usize| {
        let mut notes = Notes::default();
        let trained =
            train(&stage(steps), &images, &folder.path().join(steps.to_string()), &mut notes).unwrap();
        assert!(notes.0.iter().any(|note| note.starts_with("enlarges at ")), "{:?}", notes.0);
        assert_eq!(trained.config.scale_factor, 4);
        let weights = frozen(&trained.weights, &Device::Cpu);
        let upscaler = PixelShuffleUpscaler::new(&trained.config, weights).unwrap();
        let enlarged = upscaler.forward_channels_last(&images.1).unwrap();
        let expected = to_tensor(&images.0.pixels, LARGE_SIZE, &Device::Cpu).unwrap();
        mean_psnr(&expected, &enlarged).unwrap()
    };
    let (before, after) = (psnr(0), psnr(60));
    assert!(after > before + 1., "{before} dB, then {after} dB");
}

#[test]
fn settings_that_fit_no_image_are_refused() {
    let (folder, images) = (TempDir::new().unwrap(), drawings(1));
    for (stage, problem) in [
        (UpscalerStage { crop: 65, ..stage(1) }, "upscaler.crop: expected a number from 1 to 64, found 65"),
        (UpscalerStage { crop: 0, ..stage(1) }, "upscaler.crop: expected a number from 1 to 64, found 0"),
        (UpscalerStage { decodings: 0, ..stage(1) }, "upscaler.decodings: expected at least 1, found 0"),
        (
            UpscalerStage { batch_size: 5, ..stage(1) },
            "upscaler.batch_size: expected a positive multiple of 2 parts, found 5",
        ),
    ] {
        let error = train(&stage, &images, folder.path(), &mut Notes::default()).err().unwrap();
        assert_eq!(error.to_string(), problem);
    }
}

#[test]
fn large_images_are_found_by_vendor_and_concept() {
    let (folder, data) = prepared();
    let large = folder.path().join("large");
    let both = ["google".to_owned(), "twitter".to_owned()];
    write(large.join("readme.txt"), "");
    let error = LargeImages::read(&large, &data, &both).unwrap_err().to_string();
    assert!(error.ends_with("expected images of the data set, VENDOR/CONCEPT.png, found none"), "{error}");

    write(large.join("twitter/1F929.png"), png(256, [1, 2, 3]));
    write(large.join("google/1F408.png"), png(256, [255, 255, 7]));
    let found = LargeImages::read(&large, &data, &both).unwrap();
    // The second image of the first emoji, and the first of the second.
    assert_eq!(found.rows, [1, 2]);
    assert_eq!(found.pixels.len(), 2 * LARGE_SIZE * LARGE_SIZE * 3);
    assert_eq!(found.pixels.last(), Some(&131));
    assert_eq!(LargeImages::read(&large, &data, &both[..1]).unwrap().rows, [1]);

    write(large.join("google/1F408.png"), png(64, [0; 3]));
    let error = LargeImages::read(&large, &data, &both).unwrap_err().to_string();
    assert!(error.contains("1F408.png: expected 256 × 256 pixels, found 64 × 64"), "{error}");
}
