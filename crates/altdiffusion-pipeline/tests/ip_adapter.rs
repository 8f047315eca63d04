//! Compares image prompts with diffusers' IP-Adapter.

mod common;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use altdiffusion_pipeline::controlnet::ControlNetModel;
use altdiffusion_pipeline::ip_adapter::{ImageEncoder, ImageFeatures, ImagePrompt, IpAdapter};
use altdiffusion_pipeline::schedulers::SchedulerKind;
use altdiffusion_pipeline::{AltDiffusion, Control, Error, GenerateOptions};
use candle_core::{DType, Device, Tensor, safetensors};
use common::{golden_image, load};
use image::RgbImage;
use model_files::source::ModelSource;
use serde::Deserialize;
use test_support::{
    MODULE_TOLERANCE, TestResult, assert_close, error_message, golden, golden_json, golden_tensors, normal,
    relative_error,
};

/// The largest relative error ‖a − b‖/‖b‖ of the latents. The reference's own distance from f64 is up to 2e-5.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Case {
    repository: String,
    name: String,
    adapter: String,
    prompt: String,
    negative_prompt: String,
    guidance_scale: f64,
    num_inference_steps: usize,
    num_images_per_prompt: usize,
    seed: u64,
    #[serde(rename = "pictures")]
    images: usize,
    scale: f64,
    control: bool,
    scheduler: Option<String>,
}

fn adapter(name: &str, pipeline: &AltDiffusion) -> altdiffusion_pipeline::Result<Arc<IpAdapter>> {
    let path = golden("ip_adapter").join(name);
    Ok(Arc::new(IpAdapter::from_file(&path, &*pipeline.unet()?, DType::F32, &Device::Cpu)?))
}

fn encoder() -> TestResult<Arc<ImageEncoder>> {
    let source = ModelSource::directory(golden("ip_adapter"));
    Ok(Arc::new(ImageEncoder::from_source(&source, "image_encoder", DType::F32, &Device::Cpu)?))
}

#[test]
fn they_are_those_of_diffusers() -> TestResult {
    let cases: Vec<Case> = golden_json("ip_adapter/pipeline.json");
    let given = golden_tensors("ip_adapter/pipeline.safetensors");
    let (sd1, m18, encoder) = (load("alt_diffusion")?, load("alt_diffusion_m18")?, encoder()?);
    let net = ModelSource::directory(golden("controlnet/sd1"));
    let net = Arc::new(ControlNetModel::from_source(&net, DType::F32, &Device::Cpu)?);
    for case in &cases {
        let (pipeline, file) = match case.repository.as_str() {
            "alt_diffusion" => (&sd1, case.adapter.as_str()),
            _ => (&m18, "m18.safetensors"),
        };
        let images = (0..case.images)
            .map(|place| golden_image(&given, &format!("prompt.{place}")))
            .collect::<TestResult<Vec<_>>>()?;
        let prompt = ImagePrompt::new(adapter(file, pipeline)?, encoder.clone(), images).scale(case.scale);
        let mut options = GenerateOptions::new(&case.prompt)
            .negative_prompt(&case.negative_prompt)
            .guidance_scale(case.guidance_scale)
            .steps(case.num_inference_steps)
            .images(case.num_images_per_prompt)
            .seed(case.seed)
            .width(56)
            .height(40)
            .image_prompt(prompt);
        if case.control {
            options = options.control(Control::new(net.clone(), golden_image(&given, "control")?));
        }
        if let Some(class_name) = &case.scheduler {
            options = options
                .scheduler(SchedulerKind::from_class_name(class_name).ok_or("a scheduler nobody knows")?);
        }
        let name = format!("{}.{}", case.repository, case.name);
        let error = relative_error(&pipeline.generate(&options)?.latents, &given[&format!("{name}.latents")]);
        println!("{name}: {error:e}");
        assert!(error <= TOLERANCE, "{name}: {error}");
    }
    Ok(())
}

#[test]
fn tokens_are_those_of_diffusers() -> TestResult {
    let given = golden_tensors("ip_adapter/pipeline.safetensors");
    let pipeline = load("alt_diffusion")?;
    for (file, name, features, tokens) in [
        ("plain.bin", "plain", ImageFeatures::Embedding, [1, 4, 20]),
        ("plus.safetensors", "plus", ImageFeatures::HiddenStates, [1, 6, 20]),
        ("full.safetensors", "full", ImageFeatures::HiddenStates, [1, 17, 20]),
    ] {
        let value = |part: &str| &given[&format!("alt_diffusion.{name}.{part}")];
        let adapter = adapter(file, &pipeline)?;
        assert_eq!(adapter.features(), features);
        let found = adapter.tokens(value("features"))?;
        assert_eq!(found.dims(), tokens);
        assert_close(name, &found, value("tokens"), MODULE_TOLERANCE);
        let error = adapter.tokens(&normal(0, &[1, 2, 3, 16])).err();
        assert!(matches!(error, Some(Error::Shape { tensor: "image features", .. })), "{error:?}");
    }
    Ok(())
}

/// Two adapters add up in either order, and one of scale 0 adds nothing.
#[test]
fn several_adapters_add_up() -> TestResult {
    let given = golden_tensors("ip_adapter/pipeline.safetensors");
    let (pipeline, encoder) = (load("alt_diffusion")?, encoder()?);
    let (plain, plus) = (adapter("plain.bin", &pipeline)?, adapter("plus.safetensors", &pipeline)?);
    let prompt = |adapter: &Arc<IpAdapter>, scale| {
        let images = [golden_image(&given, "prompt.0")?];
        Ok::<_, Box<dyn std::error::Error>>(
            ImagePrompt::new(adapter.clone(), encoder.clone(), images).scale(scale),
        )
    };
    let options = || GenerateOptions::new("a cat").steps(3).width(32).height(40);
    let draw = |options: GenerateOptions| pipeline.generate(&options).map(|generated| generated.latents);
    let none = draw(options())?;
    assert_eq!(relative_error(&draw(options().image_prompt(prompt(&plain, 0.0)?))?, &none), 0.0);
    let one = draw(options().image_prompt(prompt(&plain, 0.7)?))?;
    assert!(relative_error(&one, &none) > 1e-2);
    let both = draw(options().image_prompt(prompt(&plain, 0.7)?).image_prompt(prompt(&plus, 0.4)?))?;
    assert!(relative_error(&both, &one) > 1e-2);
    let turned = draw(options().image_prompt(prompt(&plus, 0.4)?).image_prompt(prompt(&plain, 0.7)?))?;
    assert!(relative_error(&turned, &both) < 1e-4);
    Ok(())
}

#[test]
fn what_does_not_fit_together_is_named() -> TestResult {
    let (pipeline, m18, encoder) = (load("alt_diffusion")?, load("alt_diffusion_m18")?, encoder()?);
    let plain = adapter("plain.bin", &pipeline)?;
    let black = || RgbImage::new(8, 8);
    let message = |pipeline: &AltDiffusion, prompt: ImagePrompt| {
        let options = GenerateOptions::new("a cat").steps(1).image_prompt(prompt);
        let message = error_message(pipeline.generate(&options));
        assert_eq!(message.lines().count(), 1, "{message}");
        message
    };
    let prompt = |images: Vec<RgbImage>| ImagePrompt::new(plain.clone(), encoder.clone(), images);
    assert!(message(&pipeline, prompt(vec![])).contains("no image, expected at least one"));
    assert!(message(&pipeline, prompt(vec![black(), RgbImage::new(0, 3)])).contains("0 × 3 pixels"));
    assert!(
        message(&pipeline, prompt(vec![black()]).scale(f64::NAN)).contains("scale: NaN, expected a number")
    );
    assert!(message(&m18, prompt(vec![black()])).contains("loaded for another UNet"));

    // An encoder whose vectors have another width.
    let other = ModelSource::directory(golden("image_tower/gelu"));
    let other = Arc::new(ImageEncoder::from_source(&other, "", DType::F32, &Device::Cpu)?);
    let wrong = message(&pipeline, ImagePrompt::new(plain.clone(), other, [black()]));
    assert!(wrong.contains("but the IP-Adapter was trained with vectors of width 24"), "{wrong}");
    Ok(())
}

/// Errors name the file and the problem.
#[test]
fn files_that_are_no_adapter_for_this_model_are_refused() -> TestResult {
    let pipeline = load("alt_diffusion")?;
    let directory = tempfile::tempdir()?;
    let changed = |change: &dyn Fn(&mut HashMap<String, Tensor>)| -> TestResult<String> {
        let mut tensors = golden_tensors("ip_adapter/plus.safetensors");
        change(&mut tensors);
        let path = directory.path().join("adapter.safetensors");
        safetensors::save(&tensors, &path)?;
        let loaded = IpAdapter::from_file(&path, &*pipeline.unet()?, DType::F32, &Device::Cpu);
        let message = error_message(loaded);
        assert!(message.contains("adapter.safetensors") && message.lines().count() == 1, "{message}");
        Ok(message)
    };
    let put = |tensors: &mut HashMap<String, Tensor>, name: &str, shape: &[usize]| {
        tensors.insert(name.to_owned(), normal(0, shape));
    };
    let wide = changed(&|tensors| put(tensors, "image_proj.proj_out.weight", &[24, 12]))?;
    assert!(wide.contains("made for prompts of width 24, but the UNet's have width 20"), "{wide}");
    let missing = changed(&|tensors| drop(tensors.remove("ip_adapter.31.to_v_ip.weight")))?;
    assert!(missing.contains("ip_adapter.31.to_v_ip.weight"), "{missing}");
    let narrow = changed(&|tensors| put(tensors, "ip_adapter.1.to_k_ip.weight", &[12, 20]))?;
    assert!(narrow.contains("ip_adapter.1.to_k_ip.weight") && narrow.contains("[8, 20]"), "{narrow}");
    let nothing = changed(&|tensors| tensors.retain(|name, _| name.starts_with("ip_adapter")))?;
    assert!(nothing.contains("expected an IP-Adapter"), "{nothing}");
    let face = changed(&|tensors| {
        tensors.remove("image_proj.latents");
        put(tensors, "image_proj.perceiver_resampler.proj_in.weight", &[2, 2]);
    })?;
    assert!(face.contains("FaceID"), "{face}");
    for shape in [[63, 12], [0, 12]] {
        let heads = changed(&|tensors| put(tensors, "image_proj.layers.0.0.to_q.weight", &shape))?;
        assert!(heads.contains("heads of 64"), "{heads}");
    }
    let empty = changed(&|tensors| put(tensors, "image_proj.latents", &[1, 0, 1 << 62]))?;
    assert!(empty.contains("whole tokens"), "{empty}");
    let tokens = changed(&|tensors| {
        put(tensors, "image_proj.proj.weight", &[30, 24]);
        put(tensors, "image_proj.norm.weight", &[20]);
    })?;
    assert!(tokens.contains("whole tokens"), "{tokens}");
    let unet = golden("alt_diffusion/unet/diffusion_pytorch_model.safetensors");
    let error = IpAdapter::from_file(&unet, &*pipeline.unet()?, DType::F32, &Device::Cpu).err();
    assert!(error.is_some_and(|error| error.to_string().contains("expected an IP-Adapter")));
    assert!(
        IpAdapter::from_file(Path::new("nothing"), &*pipeline.unet()?, DType::F32, &Device::Cpu).is_err()
    );
    Ok(())
}
