//! Compares the autoencoder with golden values of diffusers 0.31, and with itself.

mod common;

use altdiffusion_pipeline::Error;
use altdiffusion_pipeline::vae::{AutoencoderKl, AutoencoderKlConfig, Tiling};
use candle_core::{D, DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use common::{ROUNDING, assert_gradient_is_slope, model};
use test_support::{MODULE_TOLERANCE, assert_close, golden_tensors, normal, relative_error};

fn load(folder: &str) -> AutoencoderKl {
    let (config, weights) = model::<AutoencoderKlConfig>(folder);
    AutoencoderKl::new(&config, weights).unwrap()
}

#[test]
fn encodes_and_decodes_as_the_reference() {
    let golden = golden_tensors("vae.safetensors");
    for repository in ["alt_diffusion", "alt_diffusion_m18"] {
        let vae = load(&format!("{repository}/vae"));
        assert_eq!(vae.downscale(), 8);
        for case in ["square", "wide", "tall", "one"] {
            let value = |name: &str| &golden[&format!("{repository}.{case}.{name}")];
            let moments = vae.encode(value("picture")).unwrap();
            assert_close(
                &format!("{repository}.{case}.mean"),
                moments.mode(),
                value("mean"),
                MODULE_TOLERANCE,
            );
            assert_close(
                &format!("{repository}.{case}.logvar"),
                &moments.log_variance,
                value("logvar"),
                MODULE_TOLERANCE,
            );
            let decoded = vae.decode(value("latents")).unwrap();
            assert_close(
                &format!("{repository}.{case}.decoded"),
                &decoded,
                value("decoded"),
                MODULE_TOLERANCE,
            );
        }
    }
}

#[test]
fn decodes_in_tiles_as_the_reference() {
    let golden = golden_tensors("vae.safetensors");
    for repository in ["alt_diffusion", "alt_diffusion_m18"] {
        let vae = load(&format!("{repository}/vae"));
        let value = |name: &str| &golden[&format!("{repository}.tiled.{name}")];
        let tiled = vae.decode_tiled(value("latents"), Tiling::of_side(4)).unwrap();
        assert_close(&format!("{repository}.tiled"), &tiled, value("decoded"), MODULE_TOLERANCE);
        // Latents that fit one tile are decoded as before.
        let whole = vae.decode_tiled(value("latents"), Tiling::of_side(11)).unwrap();
        assert_eq!(relative_error(&whole, &vae.decode(value("latents")).unwrap()), 0.0);
        for tiling in [Tiling { side: 0, overlap: 0.25 }, Tiling { side: 4, overlap: 1.0 }] {
            assert!(matches!(vae.decode_tiled(value("latents"), tiling), Err(Error::Option { .. })));
        }
    }
}

/// Three levels without attention or the convolutions around the latents, and old checkpoints' names with linear and
/// convolutional attention.
#[test]
fn unusual_configurations_are_as_the_reference() {
    for (name, downscale) in [("vae_three_levels", 4), ("vae_old_names", 2)] {
        let vae = load(&format!("variants/{name}"));
        assert_eq!(vae.downscale(), downscale);
        let golden = golden_tensors(&format!("variants/{name}/golden.safetensors"));
        let moments = vae.encode(&golden["picture"]).unwrap();
        assert_close(&format!("{name}.mean"), moments.mode(), &golden["mean"], MODULE_TOLERANCE);
        assert_close(&format!("{name}.logvar"), &moments.log_variance, &golden["logvar"], MODULE_TOLERANCE);
        assert_close(&format!("{name}.kl"), &moments.kl().unwrap(), &golden["kl"], MODULE_TOLERANCE);
        let decoded = vae.decode(&golden["latents"]).unwrap();
        assert_close(&format!("{name}.decoded"), &decoded, &golden["decoded"], MODULE_TOLERANCE);
    }
}

#[test]
fn a_batch_does_not_change_its_members() {
    let vae = load("alt_diffusion/vae");
    let (latents, pixels) = (normal(1, &[3, 4, 3, 2]), normal(2, &[3, 3, 24, 16]));
    let decoded = vae.decode(&latents).unwrap();
    let mean = vae.encode(&pixels).unwrap().mean;
    for i in 0..3 {
        let one = |tensor: &Tensor| tensor.narrow(0, i, 1).unwrap();
        let decoding = relative_error(&vae.decode(&one(&latents)).unwrap(), &one(&decoded));
        let encoding = relative_error(&vae.encode(&one(&pixels)).unwrap().mean, &one(&mean));
        assert!(decoding.max(encoding) < ROUNDING, "decoding: {decoding:.1e}, encoding: {encoding:.1e}");
    }
}

#[test]
fn a_sample_has_the_moments_it_is_drawn_from() {
    let vae = load("alt_diffusion/vae");
    let moments = vae.encode(&normal(2, &[1, 3, 16, 16])).unwrap();
    let (mean, draws) = (moments.mode(), 4096);
    let mut moments = moments.clone();
    moments.mean = mean.broadcast_as((draws, 4, 2, 2)).unwrap().contiguous().unwrap();
    moments.log_variance = moments.log_variance.broadcast_as((draws, 4, 2, 2)).unwrap().contiguous().unwrap();
    let samples = moments.sample(&normal(3, &[draws, 4, 2, 2])).unwrap();
    assert!(
        relative_error(&samples.mean_keepdim(0).unwrap(), &mean.broadcast_as((1, 4, 2, 2)).unwrap()) < 0.1
    );
    let deviation = (&moments.log_variance * 0.5).unwrap().exp().unwrap();
    let deviation = deviation.narrow(0, 0, 1).unwrap().squeeze(0).unwrap();
    assert!(relative_error(&samples.var(0).unwrap().sqrt().unwrap(), &deviation) < 0.1);
    assert!(relative_error(&samples.narrow(0, 0, 1).unwrap(), mean) > 1e-3);
}

#[test]
fn every_weight_can_be_trained() {
    let (config, _) = model::<AutoencoderKlConfig>("variants/vae_old_names");
    let variables = VarMap::new();
    let vae =
        AutoencoderKl::new(&config, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu)).unwrap();
    let pixels = normal(4, &[2, 8, 8, 1]);
    let noise = normal(5, &[2, 4, 4, 2]);
    assert_gradient_is_slope(&variables, || {
        let moments = vae.encode_channels_last(&pixels).unwrap();
        let decoded = vae.decode_channels_last(&moments.sample(&noise).unwrap()).unwrap();
        let error = decoded.broadcast_sub(&pixels).unwrap().sqr().unwrap().mean_all().unwrap();
        (error + (moments.kl().unwrap().mean(D::Minus1).unwrap() * 1e-3).unwrap()).unwrap()
    });
}

#[test]
fn a_decoder_may_be_wider_than_its_encoder() {
    let (mut config, _) = model::<AutoencoderKlConfig>("variants/vae_old_names");
    config.decoder_block_out_channels =
        config.block_out_channels.iter().map(|channels| Some(2 * channels)).collect();
    let variables = VarMap::new();
    let vae =
        AutoencoderKl::new(&config, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu)).unwrap();
    let weights = variables.data().lock().unwrap();
    let channels = |name: &str| weights[name].dim(0).unwrap();
    assert_eq!(Some(&channels("encoder.conv_in.weight")), config.block_out_channels.first());
    assert_eq!(
        Some(channels("decoder.conv_in.weight")),
        config.block_out_channels.last().map(|last| 2 * last)
    );
    let pixels = normal(4, &[1, config.in_channels, 8, 8]);
    let latents = vae.encode(&pixels).unwrap().mean;
    assert_eq!(vae.decode(&latents).unwrap().dims(), [1, config.out_channels, 8, 8]);
}

#[test]
fn bad_configurations_and_tensors_are_named() {
    let (config, weights) = model::<AutoencoderKlConfig>("alt_diffusion/vae");
    let message = |change: &dyn Fn(&mut AutoencoderKlConfig)| {
        let mut config = config.clone();
        change(&mut config);
        AutoencoderKl::new(&config, weights.clone()).unwrap_err().to_string()
    };
    assert!(message(&|config| config.block_out_channels.clear()).contains("`block_out_channels`"));
    assert!(message(&|config| config.norm_num_groups = 0).contains("`norm_num_groups` is 0"));
    assert!(message(&|config| config.norm_num_groups = 3).contains("multiples of `norm_num_groups` = 3"));
    assert!(message(&|config| config.layers_per_block = usize::MAX).contains("`layers_per_block`"));
    let decoder = |channels: &[usize]| {
        let channels = Some(channels.to_vec());
        message(&|config| config.decoder_block_out_channels.clone_from(&channels))
    };
    assert!(decoder(&[32, 32]).contains("`decoder_block_out_channels` is [32, 32]; expected 4 levels"));
    assert!(decoder(&[0; 4]).contains("`decoder_block_out_channels` is 0"));
    assert!(message(&|config| config.scaling_factor = f64::NAN).contains("`scaling_factor`"));
    assert!(message(&|config| config.down_block_types = vec!["X".into(); 4]).contains("DownEncoderBlock2D"));
    assert!(
        message(&|config| {
            config.other.insert("act_fn".into(), "relu".into());
        })
        .contains("`act_fn` is \"relu\"; expected \"silu\"")
    );
    // A configuration that contradicts the weights: the missing or misshapen tensor is named.
    assert!(message(&|config| config.layers_per_block = 3).contains("encoder.down_blocks.0.resnets.2"));
    assert!(message(&|config| config.latent_channels = 5).contains("quant_conv"));
    assert!(message(&|config| config.in_channels = 1).contains("encoder.conv_in.weight"));

    let vae = AutoencoderKl::new(&config, weights).unwrap();
    for shape in [vec![1, 4, 16, 16], vec![1, 3, 7, 16], vec![3, 16, 16]] {
        assert!(matches!(vae.encode(&normal(0, &shape)), Err(Error::Shape { tensor: "pixels", .. })));
    }
    assert!(matches!(vae.decode(&normal(0, &[1, 3, 4, 4])), Err(Error::Shape { tensor: "latents", .. })));
}
