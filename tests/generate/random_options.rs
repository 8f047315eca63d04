//! Generates random sets of compatible options, and a folder with everything they name.

use std::fs;

use candle_core::{DType, Device, Tensor, safetensors};
use image::{GrayImage, Luma, Rgb, RgbImage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use test_support::{TestResult, copy_directory, golden};

/// Sides of images, in pixels.
const SIDES: [usize; 3] = [48, 64, 72];

const PROMPTS: [&str; 10] = [
    "一只猫",
    "a (red:1.3) [house], by the sea",
    "a cat\nNegative prompt: dogs\nSteps: 1, Sampler: Euler, CFG scale: 2",
    "  spaces,\ttabs and \"quotes\": \\ \n",
    "หมาน้อย — кошка ☕",
    "control \u{1b}[2J \u{202e} characters\r\n",
    "",
    "-n 3",
    "<窗> and <lora:ink:0.7>",
    "Prompts: [\"x\"], Version: v1.0",
];

/// A folder with everything that options can name.
pub fn place() -> TestResult<TempDir> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    copy_directory(&golden("alt_diffusion"), &path("models/m9"))?;
    copy_directory(&golden("controlnet/sd1"), &path("net"))?;
    copy_directory(&golden("ip_adapter/image_encoder"), &path("image_encoder"))?;
    fs::write(path("plus.safetensors"), fs::read(golden("ip_adapter/plus.safetensors"))?)?;
    fs::write(path("ink, new.safetensors"), fs::read(golden("adapters/alt_diffusion.kohya.safetensors"))?)?;
    fs::write(path("word.pt"), fs::read(golden("adapters/webui.pt"))?)?;
    fs::write(
        path("vae.safetensors"),
        fs::read(golden("alt_diffusion/vae/diffusion_pytorch_model.safetensors"))?,
    )?;
    let shade = |x: u32, y: u32| Rgb([(x * 3) as u8, (y * 5) as u8, (x * y) as u8]);
    RgbImage::from_fn(83, 61, shade).save(path("photo: one.png"))?;
    GrayImage::from_fn(83, 61, |x, _| Luma([if x < 40 { 255 } else { 0 }])).save(path("mask.png"))?;
    for width in SIDES {
        for height in SIDES {
            RgbImage::from_fn(width as u32, height as u32, shade)
                .save(path(&format!("edges-{width}-{height}.png")))?;
            let shape = (2, 4, height / 8, width / 8);
            let values = (0..2 * 4 * height * width / 64).map(|i| ((i * 37 % 101) as f32 - 50.0) / 29.0);
            let latents = Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu)?;
            safetensors::save(
                &[("latents", latents.to_dtype(DType::F32)?)].into(),
                path(&format!("noise-{width}-{height}")),
            )?;
        }
    }
    Ok(directory)
}

/// Random compatible options.
pub struct RandomOptions {
    rng: StdRng,
    arguments: Vec<String>,
}

impl RandomOptions {
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), arguments: Vec::new() }
    }

    /// True with this chance, in percent.
    fn happens(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.rng.random_range(0..values.len())]
    }

    fn number(&mut self, from: f64, to: f64) -> f64 {
        self.rng.random_range(from..to)
    }

    fn add(&mut self, option: &str, value: impl ToString) {
        self.arguments.push(format!("--{option}={}", value.to_string()));
    }

    fn flag(&mut self, option: &str, percent: u32) {
        if self.happens(percent) {
            self.arguments.push(format!("--{option}"));
        }
    }

    /// The options, without the output file.
    pub fn draw(mut self) -> Vec<String> {
        let (width, height) = (self.one_of(&SIDES), self.one_of(&SIDES));
        if self.happens(85) {
            self.add("model", "models/m9");
        }
        let dtype = self.one_of(&["f32", "f32", "f16", "bf16"]);
        self.add("dtype", dtype);
        self.add("width", width);
        self.add("height", height);
        let is_m9 = self.arguments[0].starts_with("--model");
        if self.happens(60) {
            let negative = self.one_of(&PROMPTS);
            self.add("negative-prompt", negative);
        }
        self.flag("prompt-weights", 40);
        if self.happens(70) {
            let seed = self.one_of(&[0, 7, u64::from(u32::MAX), u64::MAX]);
            self.add("seed", seed);
        }
        if self.happens(80) {
            let scale = self.number(0.5, 8.0);
            self.add("guidance-scale", scale);
        }
        if self.happens(30) {
            let rescale = self.number(0.0, 1.0);
            self.add("guidance-rescale", rescale);
        }
        if self.happens(40) {
            let rng = self.one_of(&["cpu", "cuda"]);
            self.add("rng", rng);
        }
        if self.happens(20) {
            self.add("clip-skip", 1);
        }
        self.flag("vae-tiling=32", 20);
        self.scheduler();
        let prompts = self.images(is_m9, (width, height));
        if is_m9 {
            self.adapters((width, height));
        }
        if self.happens(15) {
            let scale = self.one_of(&[1, 2, 3, 4]);
            self.add("scale", scale);
        }
        self.arguments.push("--".to_owned());
        for _ in 0..prompts {
            let prompt = self.one_of(&PROMPTS);
            self.arguments.push(prompt.to_owned());
        }
        self.arguments
    }

    fn scheduler(&mut self) {
        let steps = self.rng.random_range(2..=3);
        if self.happens(30) {
            // The model's own.
            return self.add("steps", steps);
        }
        let kinds = [
            "ddpm",
            "ddim",
            "pndm",
            "lms",
            "heun",
            "euler",
            "euler-a",
            "dpm++-2m",
            "dpm++-2m-sde",
            "dpm++-s",
            "unipc",
            "lcm",
        ];
        let kind = self.one_of(&kinds);
        self.add("scheduler", kind);
        match kind {
            "euler" if self.happens(30) => return self.add("sigmas", "14.6,1.6,0.03,0"),
            "ddpm" | "heun" | "euler" | "dpm++-2m" if self.happens(30) => {
                return self.add("timesteps", "999,500,1");
            }
            _ => self.add("steps", steps),
        }
        match kind {
            "ddim" => {
                let eta = self.number(0.0, 1.0);
                self.add("eta", eta);
            }
            "lms" | "heun" | "euler" | "dpm++-2m" | "unipc" if self.happens(50) => {
                let spacing = self.one_of(&["karras", "exponential", "beta"]);
                self.add("sigma-spacing", spacing);
            }
            "dpm++-2m-sde" => self.flag("karras", 50),
            _ => {}
        }
        if !matches!(kind, "dpm++-s" | "lcm") && self.happens(30) {
            let spacing = self.one_of(&["leading", "trailing"]);
            self.add("timestep-spacing", spacing);
        }
    }

    /// The number of images, their prompts and starts. Returns the number of prompts.
    fn images(&mut self, is_m9: bool, (width, height): (usize, usize)) -> usize {
        let prompts = self.rng.random_range(1..=2);
        let count = self.rng.random_range(1..=2);
        if self.happens(40) {
            let seeds = self.one_of(&["consecutive", "stream"]);
            self.add("seeds", seeds);
        }
        if is_m9 && self.happens(20) {
            // Two images in all.
            self.arguments
                .retain(|argument| !argument.starts_with("--width") && !argument.starts_with("--height"));
            self.add("initial-latents", format!("noise-{width}-{height}"));
            return prompts;
        }
        self.add("num-images", count);
        if self.happens(25) {
            let only = self.rng.random_range(1..=prompts * count);
            self.add("only", only);
        } else {
            self.flag("grid", 30);
        }
        if self.happens(30) {
            self.add("image", "photo: one.png");
            self.add("strength", 1);
            if self.happens(50) {
                self.add("mask", "mask.png");
            }
        }
        prompts
    }

    fn adapters(&mut self, (width, height): (usize, usize)) {
        if self.happens(30) {
            let strength = self.number(-1.0, 1.0);
            self.add("lora", format!("ink, new.safetensors:{strength}"));
            self.flag("lora-unet-only", 30);
        }
        if self.happens(20) {
            let word = self.one_of(&["word.pt", "word.pt:<窗>"]);
            self.add("embedding", word);
        }
        if self.happens(20) {
            let vae = self.one_of(&["vae.safetensors", "models/m9"]);
            self.add("vae", vae);
        }
        if self.happens(25) {
            for _ in 0..self.rng.random_range(1..=2) {
                let scale = self.number(0.0, 1.5);
                self.add("controlnet", "net");
                self.add("control-image", format!("edges-{width}-{height}.png"));
                self.add("control-scale", scale);
            }
            if self.happens(50) {
                self.add("control-start", 0.25);
                self.add("control-end", 0.75);
            }
            self.flag("guess-mode", 30);
        } else {
            self.flag("panorama=32", 20);
        }
        if self.happens(20) {
            self.add("ip-adapter", "plus.safetensors");
            self.add("ip-image", "photo: one.png");
            if self.happens(50) {
                self.add("ip-image", "mask.png");
            }
            if self.happens(50) {
                let scale = self.number(0.0, 1.0);
                self.add("ip-scale", scale);
            }
            if self.happens(30) {
                self.add("ip-encoder", "image_encoder");
            }
        }
    }
}
