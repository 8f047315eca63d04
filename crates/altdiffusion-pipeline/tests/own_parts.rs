//! Runs a caller's denoisers, schedulers and cancellation through the whole loop.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::Arc;

use altdiffusion_pipeline::controlnet::ControlNetModel;
use altdiffusion_pipeline::random::{BatchPosition, NoiseFactory, Rng};
use altdiffusion_pipeline::schedulers::{SchedulerConfig, SchedulerFactory, SchedulerKind, SigmaSpacing};
use altdiffusion_pipeline::unet::{AdditionalResiduals, ImageContext, UNet2DConditionModel};
use altdiffusion_pipeline::{
    AltDiffusion, Cancellation, Components, Control, Denoiser, DenoiserSpec, DenoisingWindows, Error,
    ErrorKind, GenerateOptions, Guidance, ImageEncoder, ImagePrompt, IpAdapter, ModelSource,
    PreparedDenoiser, Progress, PromptReading, Result, TextStates, Tiling,
};
use candle_core::{DType, Device, Tensor};
use image::{GrayImage, Luma, Rgb, RgbImage};
use test_support::{TestResult, error_message, golden};

/// This crate's UNet, disguised as a foreign denoiser.
struct Foreign {
    unet: UNet2DConditionModel,
    spec: DenoiserSpec,
}

impl Denoiser for Foreign {
    fn spec(&self) -> DenoiserSpec {
        self.spec.clone()
    }

    fn prepare<'a>(
        &'a self,
        texts: &TextStates,
        images: Vec<ImageContext>,
    ) -> Result<Box<dyn PreparedDenoiser + 'a>> {
        self.unet.prepare(texts, images)
    }
}

fn pipeline() -> Result<AltDiffusion> {
    let source = ModelSource::directory(golden("alt_diffusion"));
    AltDiffusion::from_source(&source, DType::F32, &Device::Cpu)
}

/// The components of `pipeline`, with another denoiser.
fn components(pipeline: &AltDiffusion, denoiser: impl Denoiser + 'static) -> Result<Components> {
    Ok(Components::new(denoiser, pipeline.vae()?.into_owned(), &Device::Cpu)
        .text_encoder(pipeline.tokenizer()?.clone(), pipeline.text_encoder()?)
        .prompt_tokens(pipeline.prompt_tokens()?)
        .scheduler(pipeline.scheduler().clone()))
}

/// `pipeline` with its UNet as a foreign denoiser, and a changed spec.
fn with_foreign(
    pipeline: &AltDiffusion,
    change: impl FnOnce(DenoiserSpec) -> DenoiserSpec,
) -> Result<AltDiffusion> {
    let unet = pipeline.unet()?.into_owned();
    let spec = change(unet.spec());
    AltDiffusion::from_parts(components(pipeline, Foreign { unet, spec })?)
}

fn options() -> GenerateOptions {
    GenerateOptions::new("a cat").steps(3).width(16).height(16).seed(5)
}

fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(tensor.flatten_all()?.to_vec1()?)
}

#[test]
fn a_foreign_denoiser_draws_what_the_unet_draws() -> TestResult {
    let own = pipeline()?;
    let joined = AltDiffusion::from_parts(components(&own, own.unet()?.into_owned())?)?;
    let foreign = with_foreign(&own, |spec| spec)?;
    assert!(foreign.unet().is_err() && joined.unet().is_ok());
    let given = RgbImage::from_fn(16, 16, |x, y| Rgb([x as u8 * 9, y as u8 * 9, 128]));
    let mask = GrayImage::from_fn(16, 16, |x, _| Luma([if x < 8 { 255 } else { 0 }]));
    for options in [
        options(),
        options().guidance_scale(1.0).images(2),
        options().guidance_rescale(0.5).scheduler(SchedulerKind::EulerAncestralDiscrete),
        options().width(32).windows(DenoisingWindows::of_side(2).overlap(1)),
        options().image(given.clone()).strength(0.7),
        options().image(given).mask(mask),
    ] {
        let expected = values(&own.generate(&options)?.latents)?;
        assert_eq!(values(&joined.generate(&options)?.latents)?, expected);
        assert_eq!(values(&foreign.generate(&options)?.latents)?, expected);
    }
    Ok(())
}

#[test]
fn a_foreign_denoiser_may_know_control_nets_and_ip_adapters() -> TestResult {
    let own = pipeline()?;
    let foreign = with_foreign(&own, |spec| spec)?;
    let net = ModelSource::directory(golden("controlnet/sd1"));
    let net = Arc::new(ControlNetModel::from_source(&net, DType::F32, &Device::Cpu)?);
    let edges = RgbImage::from_fn(16, 16, |x, _| Rgb([if x % 5 == 0 { 255 } else { 0 }; 3]));
    let controlled = options().control(Control::new(net, edges).scale(0.8));

    let folder = golden("ip_adapter");
    let adapter = folder.join("plain.bin");
    let adapter = Arc::new(IpAdapter::from_file(&adapter, &*own.unet()?, DType::F32, &Device::Cpu)?);
    let encoder = ModelSource::directory(folder);
    let encoder = Arc::new(ImageEncoder::from_source(&encoder, "image_encoder", DType::F32, &Device::Cpu)?);
    let shown = ImagePrompt::new(adapter, encoder, [RgbImage::from_pixel(20, 20, Rgb([200, 30, 60]))]);
    let prompted = options().image_prompt(shown);

    for options in [&controlled, &prompted] {
        let expected = values(&own.generate(options)?.latents)?;
        assert_eq!(values(&foreign.generate(options)?.latents)?, expected);
    }
    let without = with_foreign(&own, |spec| spec.controlnet(false).ip_adapter(false))?;
    for (options, start) in [(controlled, "control image: "), (prompted, "image prompt: ")] {
        let error = without.generate(&options).err().ok_or("expected an error")?;
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(error.to_string().starts_with(start), "{error}");
    }
    Ok(())
}

#[test]
fn parts_that_do_not_fit_are_named() -> TestResult {
    let own = pipeline()?;
    for (spec, problem) in [
        (DenoiserSpec::new(5), "latent channels of the denoiser: 5"),
        (DenoiserSpec::new(4).in_channels(6), "input channels of the denoiser: 6"),
        (DenoiserSpec::new(4).context_width(7), "but the denoiser takes 7"),
    ] {
        let message = error_message(with_foreign(&own, |_| spec));
        assert!(message.contains(problem), "{message}");
    }
    // Without a sample size it needs one in the options; without a text encoder, hidden states.
    let plain = with_foreign(&own, |_| DenoiserSpec::new(4))?;
    assert!(error_message(plain.generate(&GenerateOptions::new("a cat"))).starts_with("size: not given"));
    let unet = own.unet()?.into_owned();
    let silent =
        Components::new(unet, own.vae()?.into_owned(), &Device::Cpu).scheduler(own.scheduler().clone());
    let silent = AltDiffusion::from_parts(silent)?;
    assert!(error_message(silent.generate(&options())).contains("prompt_states"));
    let states = own.encode_texts(PromptReading::Plain, &["a cat"])?;
    let nothing = own.encode_texts(PromptReading::Plain, &[""])?;
    let found = silent.generate(&options().prompt_states(states).negative_states(nothing))?;
    assert_eq!(found.latents.dims(), own.latent_shape(&options())?);
    Ok(())
}

/// A caller's scheduler for one run, and as the default.
#[test]
fn schedulers_may_be_the_callers() -> TestResult {
    let own = pipeline()?;
    let config: SchedulerConfig = own.scheduler().clone().with_kind(SchedulerKind::UniPcMultistep);
    let of_config = config.clone();
    let factory = SchedulerFactory::new(move |steps| of_config.build_for(steps));
    let by_name = options().scheduler(SchedulerKind::UniPcMultistep);
    let expected = values(&own.generate(&by_name)?.latents)?;
    let of_run = options().scheduler_factory(factory.clone());
    assert_eq!(values(&own.generate(&of_run)?.latents)?, expected);

    let unet = own.unet()?.into_owned();
    let all = AltDiffusion::from_parts(components(&own, unet)?.scheduler_factory(factory))?;
    assert_eq!(values(&all.generate(&options())?.latents)?, expected);
    // A scheduler in the options overrides the model's default.
    let ddim = options().scheduler(SchedulerKind::Ddim);
    assert_eq!(values(&all.generate(&ddim)?.latents)?, values(&own.generate(&ddim)?.latents)?);

    for (options, option) in [
        (of_run.clone().scheduler(SchedulerKind::Ddim), "scheduler: "),
        (of_run.clone().sigma_spacing(SigmaSpacing::Karras), "sigma spacing: "),
        (of_run.eta(0.5), "eta: "),
    ] {
        let message = error_message(own.generate(&options));
        assert!(message.starts_with(option), "{message}");
    }
    Ok(())
}

/// A stochastic scheduler also draws in its steps.
#[test]
fn noise_may_be_the_callers() -> TestResult {
    let own = pipeline()?;
    let options = || options().scheduler(SchedulerKind::EulerAncestralDiscrete);
    let factory = NoiseFactory::new(|_| Ok(Rng::Cpu.with_seed(23)));
    let expected = values(&own.generate(&options().seed(23))?.latents)?;
    assert_eq!(values(&own.generate(&options().noise_factory(factory.clone()))?.latents)?, expected);

    let one = options().noise_factory(factory).batch_position(BatchPosition { index: 0, images: 2 });
    let message = error_message(own.generate(&one));
    assert!(message.starts_with("batch position: "), "{message}");
    Ok(())
}

#[test]
fn a_cancelled_run_keeps_its_latents() -> TestResult {
    let own = pipeline()?;
    let options = || options().scheduler(SchedulerKind::Ddim);
    // From another thread, after the second step; here it is the same thread.
    let cancellation = Cancellation::new();
    let mut seen = None;
    let cancelled = own.generate_observed(&options().cancellation(cancellation.clone()), |progress| {
        if let Progress::Step(step) = progress {
            seen = Some(step.latents.clone());
            if step.index == 1 {
                cancellation.cancel();
            }
        }
        ControlFlow::Continue(())
    });
    let Err(Error::Cancelled { completed: 2, total: 3, latents: Some(latents) }) = cancelled else {
        return Err(format!("{cancelled:?}").into());
    };
    assert_eq!(values(&latents)?, values(&seen.ok_or("no step")?)?);

    // Before the text: there are no latents.
    let options_of_cancelled = options().cancellation(cancellation);
    let error = own.generate(&options_of_cancelled).err();
    assert!(matches!(error, Some(Error::Cancelled { completed: 0, total: 3, latents: None })), "{error:?}");

    // Before the second image is decoded, whole or in tiles.
    for options in [options().images(2), options().images(2).tiling(Tiling::of_side(2))] {
        let expected = own.generate(&options)?.latents;
        let cancelled = own.generate_observed(&options, |progress| match progress {
            Progress::Decoding { image: 1, .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        let Err(Error::Cancelled { completed: 3, total: 3, latents: Some(latents) }) = cancelled else {
            return Err(format!("{cancelled:?}").into());
        };
        assert_eq!(values(&latents)?, values(&expected)?);
    }
    Ok(())
}

/// The text encoder checks before each layer.
#[test]
fn the_text_encoder_can_be_stopped() -> TestResult {
    let own = pipeline()?;
    let encoder = own.text_encoder()?;
    let encoding = own.tokenizer()?.encode_padded(&["a cat"], own.prompt_tokens()?)?;
    let count = |last: usize| -> (usize, bool) {
        let asked = Cell::new(0);
        let proceed = || {
            asked.set(asked.get() + 1);
            if asked.get() > last { Err(candle_core::Error::Msg("enough".to_owned())) } else { Ok(()) }
        };
        let ids = (&encoding.input_ids, &encoding.attention_mask);
        let is_done = encoder.encode_compact_while(ids.0, ids.1, &proceed).is_ok();
        (asked.get(), is_done)
    };
    let (layers, is_done) = count(usize::MAX);
    assert!(is_done && layers > 1, "{layers}");
    assert_eq!(count(1), (2, false));
    Ok(())
}

#[test]
fn guidance_is_what_its_formula_says() -> TestResult {
    let predictions = Tensor::new(&[1f32, 2.0, 3.0, 5.0], &Device::Cpu)?.reshape((2, 1, 1, 2))?;
    let found = values(&Guidance::new(3.0).combine(&predictions)?)?;
    assert_eq!(found, [1.0 + 3.0 * 2.0, 2.0 + 3.0 * 3.0]);
    // Fully rescaled, the deviation is that of the conditional half.
    let rescaled = values(&Guidance { scale: 3.0, rescale: 1.0 }.combine(&predictions)?)?;
    assert!(((rescaled[1] - rescaled[0]) - 2.0).abs() < 1e-5, "{rescaled:?}");
    assert!(Guidance::default().combine(&predictions.narrow(0, 0, 1)?).is_err());
    Ok(())
}

/// A prediction of the wrong shape is an error before it reaches the scheduler.
#[test]
fn a_prediction_of_another_shape_is_an_error() -> TestResult {
    struct Halved;

    impl Denoiser for Halved {
        fn spec(&self) -> DenoiserSpec {
            DenoiserSpec::new(4)
        }

        fn prepare<'a>(
            &'a self,
            _: &TextStates,
            _: Vec<ImageContext>,
        ) -> Result<Box<dyn PreparedDenoiser + 'a>> {
            Ok(Box::new(Self))
        }
    }

    impl PreparedDenoiser for Halved {
        fn predict(&mut self, sample: &Tensor, _: f64, _: Option<&AdditionalResiduals>) -> Result<Tensor> {
            Ok(sample.narrow(3, 0, 1)?)
        }
    }

    let own = pipeline()?;
    let message = error_message(AltDiffusion::from_parts(components(&own, Halved)?)?.generate(&options()));
    assert!(message.starts_with("prediction has shape"), "{message}");
    Ok(())
}
