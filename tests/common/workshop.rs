//! Writes tiny models to train, with their data and configurations.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use altclip_encoder::altclip::{AltClip, AltClipConfig};
use altclip_training::Parameters;
use candle_core::{Device, Tensor};
use image::{Rgb, RgbImage};
use tempfile::{TempDir, tempdir};

use super::{TestResult, altdiffusion, golden_model, run};

/// Steps of teacher learning.
pub const STEPS: usize = 240;

/// A folder with parallel texts, an untrained student, and configurations.
pub struct Workshop(pub TempDir);

impl Workshop {
    pub fn new() -> TestResult<Self> {
        let workshop = Self(tempdir()?);
        let pairs = [("a cat", "一只猫"), ("a red apple", "红苹果"), ("a dog", "小狗"), ("the sun", "太阳")];
        let lines: String =
            pairs.iter().map(|(en, zh)| format!("{{\"en\": \"{en}\", \"zh\": \"{zh}\"}}\n")).collect();
        fs::write(workshop.path("pairs.jsonl"), lines)?;
        workshop.write_student("student", 16)?;
        let emoji = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji");
        let config = format!(
            "seed = 3\nsave_every = 0\nteacher = {:?}\nstudent = \"student\"\ndata = \"pairs.jsonl\"\nenglish = \"en\"\n\
             translations = [\"zh\"]\n\n[stage]\nbatch_size = 3\nmax_tokens = 32\n\n{}",
            emoji,
            optimizer("stage.optimizer", STEPS)
        );
        fs::write(workshop.path("teacher.toml"), config)?;
        Ok(workshop)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A model in AltCLIP's layout with the emoji model's tokenizer and image tower shape; its only weight is the
    /// logit scale.
    pub fn write_student(&self, name: &str, width: usize) -> TestResult {
        let folder = self.path(name);
        fs::create_dir_all(&folder)?;
        let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/emoji/tokenizer");
        for file in ["sentencepiece.bpe.model", "tokenizer_config.json", "special_tokens_map.json"] {
            fs::write(folder.join(file), fs::read(tokenizer.join(file))?)?;
        }
        let config = format!(
            r#"{{"model_type": "altclip", "projection_dim": 128,
                "text_config": {{"vocab_size": 7003, "hidden_size": {width}, "num_hidden_layers": 1,
                    "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 40,
                    "type_vocab_size": 1, "project_dim": 12}},
                "vision_config": {{"hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 4,
                    "num_attention_heads": 4, "image_size": 64, "patch_size": 8}}}}"#
        );
        fs::write(folder.join("config.json"), config)?;
        let scale = Tensor::new(2.5f32, &Device::Cpu)?;
        Ok(candle_core::safetensors::save(
            &HashMap::from([("logit_scale", scale)]),
            folder.join("model.safetensors"),
        )?)
    }

    pub fn teacher(&self, output: &str, more: &[&str]) -> std::io::Result<Output> {
        run(self.0.path(), &[&teacher_arguments(output), more].concat())
    }

    pub fn start_teacher(&self, output: &str) -> std::io::Result<Child> {
        let mut command = altdiffusion(self.0.path());
        command.args(teacher_arguments(output)).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    }

    pub fn checkpoints(&self, output: &str) -> TestResult<Vec<PathBuf>> {
        let files = fs::read_dir(self.path(output).join("teacher"))?;
        let mut found: Vec<PathBuf> = files
            .map(|entry| Ok(entry?.path()))
            .collect::<std::io::Result<Vec<_>>>()?
            .into_iter()
            .filter(|path| path.extension().is_some_and(|end| end == "safetensors"))
            .collect();
        found.sort();
        Ok(found)
    }

    /// A complete AltCLIP with random weights, in the folder `model`, from the student's configuration.
    pub fn write_altclip(&self) -> TestResult {
        self.write_student("model", 16)?;
        let folder = self.path("model");
        let config: AltClipConfig = serde_json::from_slice(&fs::read(folder.join("config.json"))?)?;
        let parameters = Parameters::new(5);
        AltClip::new(&config, parameters.var_builder(&Device::Cpu))?;
        let weights: HashMap<String, Tensor> = parameters.snapshot()?.into_iter().collect();
        candle_core::safetensors::save(&weights, folder.join("model.safetensors"))?;
        let processor = r#"{"image_processor_type": "CLIPImageProcessor", "crop_size": {"height": 64, "width": 64},
            "size": {"shortest_edge": 64}, "resample": 3, "do_resize": true, "do_center_crop": true, "do_rescale": true,
            "rescale_factor": 0.00392156862745098, "do_normalize": true, "do_convert_rgb": true,
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#;
        Ok(fs::write(folder.join("preprocessor_config.json"), processor)?)
    }

    /// `run.toml`: three steps of contrastive learning for the folder `model`.
    pub fn write_contrastive(&self) -> TestResult {
        self.write_altclip()?;
        write_images(self.0.path())?;
        let config = format!(
            "seed = 1\nsave_every = 60\nmodel = \"model\"\ndata = \"images.csv\"\nimage = \"file\"\ncaptions = \
             [\"en\", \"zh\"]\n\n[stage]\nbatch_size = 4\nchunk_size = 3\nmax_tokens = 32\n\n{}",
            optimizer("stage.optimizer", 3)
        );
        Ok(fs::write(self.path("run.toml"), config)?)
    }
}

/// The arguments for teacher learning in a workshop.
pub fn teacher_arguments(output: &str) -> [&str; 8] {
    ["train", "teacher", "--config", "teacher.toml", "--device", "cpu", "--output", output]
}

pub fn optimizer(table: &str, steps: usize) -> String {
    format!(
        "[{table}]\nsteps = {steps}\nlearning_rate = 1e-2\nwarmup_steps = 5\nweight_decay = 0.01\nbeta1 = 0.9\nbeta2 = \
         0.98\nmax_grad_norm = 1.0\nema_decay = 0.99\n"
    )
}

/// Four images with captions, a file that is not an image, and an image without a caption.
pub fn write_images(folder: &Path) -> TestResult {
    let mut lines = String::from("file,en,zh\n");
    for i in 0..4u8 {
        RgbImage::from_fn(40, 30, |x, y| Rgb([x as u8 * 6, y as u8 * 8, i * 60]))
            .save(folder.join(format!("{i}.png")))?;
        lines.push_str(&format!("{i}.png,image {i},图片{i}\n"));
    }
    fs::write(folder.join("broken.png"), b"\x89PNG\r\n\x1a\n and then nothing")?;
    lines.push_str("broken.png,a broken image,坏图片\n0.png,,图片\n");
    Ok(fs::write(folder.join("images.csv"), lines)?)
}

/// `run.toml` in a folder of images: re-aligns the tiny AltDiffusion in three stages of two steps, each with this
/// many batches.
pub fn write_realignment(folder: &Path, accumulate: usize) -> TestResult {
    write_images(folder)?;
    let stage = |name: &str, train: &str, resolution: usize, more: &str| {
        format!(
            "[[stages]]\nname = \"{name}\"\ntrain = \"{train}\"\nresolution = {resolution}\nbatch_size = 2\n{more}\n\
             {}accumulate = {accumulate}\n",
            optimizer("stages.optimizer", 2)
        )
    };
    let config = format!(
        "seed = 1\nsave_every = 0\nmodel = {:?}\ndata = \"images.csv\"\nimage = \"file\"\ncaptions = [\"en\", \"zh\"]\n\
         {}{}{}",
        golden_model("alt_diffusion")?,
        stage("first", "cross_attention_keys_and_values", 32, "noise = { min_snr_gamma = 5.0 }"),
        stage("second", "all", 64, "noise = { offset_noise = 0.1 }"),
        stage("third", "all", 64, "caption_dropout = 0.1")
    );
    Ok(fs::write(folder.join("run.toml"), config)?)
}

/// The last line printed before the program failed.
#[track_caller]
pub fn error_of(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    stderr.lines().last().unwrap_or_default().to_owned()
}

pub fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}
