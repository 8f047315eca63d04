//! Tests `altdiffusion train lora`, `dreambooth` and `textual-inversion` on the small golden model: `generate`
//! accepts what they write.

mod common;

use std::fs;
use std::path::Path;

use altclip_encoder::tokenizer::Tokenizer;
use candle_core::{Device, Tensor};
use common::{golden_model, run, succeeded, tensors};
use image::{Rgb, RgbImage};
use model_files::source::ModelSource;
use tempfile::TempDir;
use test_support::{TestResult, golden, golden_tensors};

/// A folder with images of a subject, their captions, and a file that is not an image.
struct Workshop(TempDir);

impl Workshop {
    fn new() -> TestResult<Self> {
        let folder = tempfile::tempdir()?;
        let images = folder.path().join("images");
        fs::create_dir(&images)?;
        let mut lines = String::new();
        for i in 0..3u8 {
            RgbImage::from_fn(40, 30, |x, y| Rgb([x as u8 * 6, y as u8 * 8, i * 60]))
                .save(images.join(format!("{i}.png")))?;
            lines.push_str(&format!("{{\"file\": \"images/{i}.png\", \"en\": \"image {i}\"}}\n"));
        }
        fs::write(images.join("broken.png"), b"\x89PNG\r\n\x1a\n and then nothing")?;
        fs::write(folder.path().join("pairs.jsonl"), lines)?;
        Ok(Self(folder))
    }

    /// Runs `train KIND` with these settings in addition to the common ones, into the folder `output`.
    fn train(&self, kind: &str, output: &str, settings: &str) -> TestResult<String> {
        let config = format!(
            "seed = 5\nsave_every = 0\nmodel = {:?}\n{settings}\n[stage]\nresolution = 32\nbatch_size = 2\n\
             caption_dropout = 0.1\n[stage.optimizer]\nsteps = 3\nlearning_rate = 1e-2\nwarmup_steps = 1\nweight_decay = \
             0.0\nbeta1 = 0.9\nbeta2 = 0.99\nmax_grad_norm = 1.0\nema_decay = 0.5\n",
            golden_model("alt_diffusion")?
        );
        fs::write(self.0.path().join("run.toml"), config)?;
        let arguments = ["train", kind, "--config", "run.toml", "--device", "cpu", "--output", output];
        let output = run(self.0.path(), &arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        Ok(stderr)
    }

    /// The pixels for a prompt with more options.
    fn draw(&self, prompt: &str, model: &str, more: &[&str]) -> TestResult<Vec<u8>> {
        let options = [
            "--model", model, "--steps", "2", "--width", "32", "--height", "32", "--seed", "1", "-o",
            "out.png",
        ];
        let output = run(self.0.path(), &[&["generate", prompt], &options[..], more].concat())?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(image::open(self.0.path().join("out.png"))?.into_rgb8().into_raw())
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }
}

/// Every tensor's largest value, which shows whether it was trained.
fn largest(path: &Path) -> TestResult<Vec<(String, f32)>> {
    let of = |(name, tensor): (String, candle_core::Tensor)| {
        Ok((name, tensor.abs()?.max_all()?.to_scalar::<f32>()?))
    };
    tensors(path)?.into_iter().map(of).collect()
}

#[test]
fn a_lora_is_trained_and_drawn_with() -> TestResult {
    let workshop = Workshop::new()?;
    let settings = "data = \"pairs.jsonl\"\nimage = \"file\"\ncaptions = [\"en\"]\n[lora]\nrank = 2\nlayers = \
                    [\"to_q\", \"to_v\"]";
    workshop.train("lora", "run", settings)?;
    let matrices = largest(&workshop.path("run/pytorch_lora_weights.safetensors"))?;
    for (name, value) in &matrices {
        assert!(name.starts_with("unet.") && name.contains(".lora_"), "{name}");
        assert!(name.contains("to_q") || name.contains("to_v"), "{name}");
        assert!(*value > 0., "{name} is zero");
    }
    let model = golden_model("alt_diffusion")?;
    let (plain, with) =
        (workshop.draw("a cat", &model, &[])?, workshop.draw("a cat", &model, &["--lora", "run"])?);
    assert!(plain != with, "the LoRA changes nothing");
    // A finished run is not repeated, and the file is unchanged.
    let before = fs::read(workshop.path("run/pytorch_lora_weights.safetensors"))?;
    workshop.train("lora", "run", settings)?;
    assert!(before == fs::read(workshop.path("run/pytorch_lora_weights.safetensors"))?);
    Ok(())
}

#[test]
fn a_thing_is_learned_beside_its_class() -> TestResult {
    let workshop = Workshop::new()?;
    let prior = "[prior]\nprompt = \"a dog\"\ncount = 2\nweight = 1.0\nsteps = 2\nguidance_scale = 2.0\n";
    let thing = format!("images = \"images\"\nprompt = \"a sks dog\"\n{prior}");
    let report = workshop.train("dreambooth", "lora", &format!("{thing}[lora]\nrank = 2\n"))?;
    assert!(report.contains("draws 2 of 2 images of \"a dog\""), "{report}");
    assert!(
        report.lines().any(|line| line.contains("skipped 1: ") && line.contains("broken.png")),
        "{report}"
    );
    assert!(workshop.path("lora/class-images/0001.png").exists());
    let model = golden_model("alt_diffusion")?;
    let plain = workshop.draw("a sks dog", &model, &[])?;
    assert!(plain != workshop.draw("a sks dog", &model, &["--lora", "lora"])?, "the LoRA changes nothing");

    // An existing class image is neither redrawn nor changed.
    fs::create_dir_all(workshop.path("whole/class-images"))?;
    fs::copy(workshop.path("images/0.png"), workshop.path("whole/class-images/0000.png"))?;
    let report = workshop.train("dreambooth", "whole", &thing)?;
    assert!(report.contains("draws 1 of 2 images"), "{report}");
    let bytes = |name: &str| fs::read(workshop.path(name));
    assert!(bytes("images/0.png")? == bytes("whole/class-images/0000.png")?);
    assert!(plain != workshop.draw("a sks dog", "whole/model", &[])?, "the training changes nothing");
    Ok(())
}

#[test]
fn a_word_is_learned_and_drawn_with() -> TestResult {
    let workshop = Workshop::new()?;
    let settings = "images = \"images\"\nword = \"<thing>\"\nvectors = 2\nbegin_with = \"cat\"\ntemplates = [\"a photo of \
                    {}\", \"一张{}的照片\"]";
    workshop.train("textual-inversion", "run", settings)?;
    let learned = tensors(&workshop.path("run/learned_embeds.safetensors"))?;
    assert_eq!(learned.keys().collect::<Vec<_>>(), ["<thing>"]);
    assert_eq!(learned["<thing>"].dims()[0], 2);
    // Three steps from the initial values: the rows of the tokens of "cat", in turn.
    let table = golden_tensors("alt_diffusion/text_encoder/model.safetensors")
        .remove("roberta.embeddings.word_embeddings.weight")
        .ok_or("no table")?;
    let ids = Tokenizer::from_source(&ModelSource::directory(golden("alt_diffusion")), "tokenizer")?
        .encode("cat")?;
    let own: Vec<u32> = ids[1..ids.len() - 1].iter().copied().cycle().take(2).collect();
    let began = table.index_select(&Tensor::new(own, &Device::Cpu)?, 0)?;
    let moved = (&learned["<thing>"] - began)?.abs()?.max_all()?.to_scalar::<f32>()?;
    // Adam moves a value by about the learning rate per step.
    assert!(moved > 0. && moved < 4. * 1e-2, "{moved}");
    let model = golden_model("alt_diffusion")?;
    let draw = |more: &[&str]| workshop.draw("a photo of <thing>", &model, more);
    assert!(draw(&[])? != draw(&["--embedding", "run"])?, "the word changes nothing");
    Ok(())
}

#[test]
fn what_is_wrong_with_settings_is_one_line() -> TestResult {
    let workshop = Workshop::new()?;
    workshop.train(
        "textual-inversion",
        "good",
        "images = \"images\"\nword = \"<x>\"\nvectors = 1\nbegin_with = \"cat\"\ntemplates = [\"{}\"]",
    )?;
    let error = |changes: &[&str]| -> TestResult<String> {
        let mut arguments =
            vec!["train", "textual-inversion", "--config", "run.toml", "--device", "cpu", "--output", "bad"];
        changes.iter().for_each(|change| arguments.extend(["--set", change]));
        let output = run(workshop.0.path(), &arguments)?;
        assert_eq!(output.status.code(), Some(1));
        Ok(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned())
    };
    assert_eq!(
        error(&["templates=[\"a cat\"]"])?,
        "error: templates: expected {} for the word, found \"a cat\""
    );
    assert_eq!(error(&["begin_with=\"\""])?, "error: begin_with: expected a word, found none");
    fs::create_dir(workshop.path("empty"))?;
    let found = error(&["images=\"empty\""])?;
    assert!(found.starts_with("error: empty: expected images that end in .png"), "{found}");
    let found = error(&["vectors=0"])?;
    assert!(found.starts_with("error: added word: expected a word with tokens"), "{found}");
    assert!(!workshop.path("bad/learned_embeds.safetensors").exists());
    let listed = succeeded(&run(workshop.0.path(), &["train", "--help"])?);
    assert!(listed.contains("dreambooth") && listed.contains("textual-inversion"), "{listed}");
    Ok(())
}

/// Ctrl-C is acknowledged immediately, and the current step is kept.
#[test]
#[cfg(unix)]
fn an_interrupt_ends_the_training_after_its_step() -> TestResult {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let workshop = Workshop::new()?;
    let settings = "data = \"pairs.jsonl\"\nimage = \"file\"\ncaptions = [\"en\"]\n[lora]\nrank = 2\nlayers = \
                    [\"to_q\", \"to_v\"]";
    workshop.train("lora", "first", settings)?;
    let mut command = common::altdiffusion(workshop.0.path());
    command.args(["train", "lora", "--config", "run.toml", "--device", "cpu", "--output", "second"]);
    command.args(["--set", "stage.optimizer.steps=1000000"]).stderr(Stdio::piped());
    let mut child = common::obeying_signals(&mut command).spawn()?;
    let mut lines = BufReader::new(child.stderr.take().ok_or("no standard error")?).lines();
    let first = lines.by_ref().find(|line| line.as_ref().is_ok_and(|line| line.contains("/1000000, loss ")));
    assert!(first.is_some());
    Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    let printed = lines.collect::<std::io::Result<Vec<_>>>()?.join("\n");
    assert_eq!(child.wait()?.code(), Some(130), "{printed}");
    assert!(
        printed.contains("stopping when this step is done and kept; Ctrl-C again stops at once"),
        "{printed}"
    );
    assert!(printed.contains("error: cancelled after step "), "{printed}");
    Ok(())
}
