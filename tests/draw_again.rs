//! An image tells how to draw it again: options by lot, and the same pixels from the image alone.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor, safetensors};
use common::{TestResult, golden, run, succeeded};
use image::{GrayImage, Luma, Rgb, RgbImage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

/// How many sets of options are drawn with, unless this variable says otherwise.
const DRAWS: &str = "ALTDIFFUSION_DRAWS";
const USUAL_DRAWS: u64 = 24;

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

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy_folder(&entry.path(), &target)?,
            false => fs::write(target, fs::read(entry.path())?)?,
        }
    }
    Ok(())
}

/// A folder with everything that options can name.
fn place() -> TestResult<TempDir> {
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    copy_folder(&golden("alt_diffusion"), &path("models/m9"))?;
    copy_folder(&golden("controlnet/sd1"), &path("net"))?;
    copy_folder(&golden("ip_adapter/image_encoder"), &path("image_encoder"))?;
    fs::write(path("plus.safetensors"), fs::read(golden("ip_adapter/plus.safetensors"))?)?;
    fs::write(path("ink, new.safetensors"), fs::read(golden("adapters/alt_diffusion.kohya.safetensors"))?)?;
    fs::write(path("word.pt"), fs::read(golden("adapters/webui.pt"))?)?;
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

/// Options by lot that can be together.
struct Lot {
    rng: StdRng,
    arguments: Vec<String>,
}

impl Lot {
    fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), arguments: Vec::new() }
    }

    /// Whether something happens that has this chance, in percent.
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

    /// The options, without the file to write.
    fn draw(mut self) -> Vec<String> {
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

    /// How many, of which prompts, and what they begin with. Returns the number of prompts.
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

fn files_beginning(directory: &Path, start: &str) -> TestResult<Vec<PathBuf>> {
    let files = fs::read_dir(directory)?.map(|file| Ok(file?.path())).collect::<std::io::Result<Vec<_>>>()?;
    let mut files: Vec<_> = files
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)))
        .collect();
    files.sort();
    Ok(files)
}

/// `ALTDIFFUSION_DRAWS=200 cargo test --test draw_again` draws more often.
#[test]
fn options_by_lot_are_read_from_the_image_alone() -> TestResult {
    let draws = std::env::var(DRAWS).ok().map(|draws| draws.parse()).transpose()?.unwrap_or(USUAL_DRAWS);
    let place = place()?;
    let mut images = 0;
    for draw in 0..draws {
        let arguments = Lot::new(draw).draw();
        let ending = ["png", "jpg", "webp"][draw as usize % 3];
        let (first, again) = (format!("first-{draw}.{ending}"), format!("again.{ending}"));
        let all = [vec!["generate".to_owned(), format!("--output={first}")], arguments.clone()].concat();
        let said = run(place.path(), &all)?;
        assert!(said.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said.stderr));
        let found = files_beginning(place.path(), &format!("first-{draw}"))?;
        assert!(!found.is_empty(), "{arguments:?}");
        for file in found {
            let name = file.display().to_string();
            let output = run(place.path(), &["generate", "--like", &name, "--output", &again, "--json"])?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && stderr.is_empty(), "{draw}: {arguments:?}: {stderr}");
            let drawn = image::open(place.path().join(&again))?;
            assert!(
                image::open(&file)? == drawn,
                "{draw}: {arguments:?}: {}",
                String::from_utf8_lossy(&output.stdout)
            );
            images += 1;
        }
    }
    println!("{draws} sets of options, {images} images drawn again with the same pixels");
    Ok(())
}

/// What is given on the command line beats the image, and what is to be left out is.
#[test]
fn the_command_line_beats_the_image() -> TestResult {
    let place = place()?;
    let text = |arguments: &[&str]| -> TestResult<String> {
        let output = succeeded(&run(
            place.path(),
            &[&["generate", "--json", "--output", "b.png"], arguments].concat(),
        )?);
        let drawn: serde_json::Value = serde_json::from_str(&output)?;
        Ok(drawn[0]["parameters"].as_str().unwrap_or_default().to_owned())
    };
    let first = [
        "generate",
        "a cat",
        "--model",
        "models/m9",
        "--seed",
        "5",
        "--steps",
        "2",
        "--scheduler",
        "euler",
        "--karras",
        "--lora",
        "ink, new.safetensors:0.5",
        "--width",
        "64",
        "--height",
        "48",
        "--negative-prompt",
        "dogs",
        "--output",
        "a.png",
        "--prompt-weights",
    ];
    succeeded(&run(place.path(), &first)?);
    let like = ["--like", "a.png"];
    let told = text(&like)?;
    for part in
        ["a cat\n", "dogs", "Steps: 2", "Euler", "Karras", "Seed: 5", "64x48", "ink, new", "Prompt weights"]
    {
        assert!(told.contains(part), "{part}: {told}");
    }
    for (arguments, there, gone) in [
        (&["a dog"] as &[&str], "a dog\n", "a cat"),
        (&["--negative-prompt", "x"], "prompt: x", "dogs"),
        (&["--steps", "3"], "Steps: 3", "Steps: 2"),
        (&["--scheduler", "ddim"], "DDIM", "Karras"),
        (&["--sigma-spacing", "beta"], "Schedule type: Beta", "Karras"),
        (&["--timesteps", "999,500,1"], "Timesteps", "Karras"),
        (&["--seed", "6"], "Seed: 6", "Seed: 5"),
        (&["--height", "64"], "64x64", "64x48"),
        (&["--leave-out", "lora,prompt-weights"], "a cat", "ink"),
        (&["--leave-out=--prompt-weights"], "ink", "Prompt weights"),
    ] {
        let told = text(&[&like[..], arguments].concat())?;
        assert!(told.contains(there) && !told.contains(gone), "{arguments:?}: {told}");
    }
    Ok(())
}

/// Which image of a batch: by its own seed, or by its position in what one generator draws.
#[test]
fn an_image_of_several_can_be_had_alone() -> TestResult {
    let place = place()?;
    let draw = |arguments: &[&str]| -> TestResult<String> {
        let fixed =
            ["generate", "--model", "models/m9", "--steps", "2", "--scheduler", "euler-a", "--width", "48"];
        Ok(succeeded(&run(place.path(), &[&fixed[..], &["--height", "48"], arguments].concat())?))
    };
    let same = |a: &str, b: &str| -> TestResult<bool> {
        Ok(image::open(place.path().join(a))? == image::open(place.path().join(b))?)
    };
    let said = draw(&["a cat", "-n", "3", "--seed", "7", "--output", "c.png"])?;
    assert!(said.contains("c-2.png: 48 × 48 pixels, seed 8\n"), "{said}");
    draw(&["a cat", "--seed", "9", "--output", "alone.png"])?;
    assert!(same("c-3.png", "alone.png")? && !same("c-2.png", "alone.png")?);

    let stream = ["a cat", "a dog", "-n", "2", "--seed", "7", "--seeds", "stream"];
    let said = draw(&[&stream[..], &["--output", "s.png"]].concat())?;
    assert!(said.contains("s-3.png: 48 × 48 pixels, seed 7, image 3 of 4\n"), "{said}");
    draw(&[&stream[..], &["--only", "3", "--output", "alone.png"]].concat())?;
    assert!(same("s-3.png", "alone.png")? && !same("s-4.png", "alone.png")?);
    // Of a sheet, too.
    draw(&["a cat", "-n", "3", "--seed", "7", "--grid", "--output", "sheet.webp"])?;
    succeeded(&run(
        place.path(),
        &["generate", "--like", "sheet.webp", "--only", "3", "--output", "alone.png"],
    )?);
    assert!(same("c-3.png", "alone.png")?);
    let output = run(place.path(), &["generate", "a cat", "-n", "2", "--only", "3"])?;
    assert!(String::from_utf8_lossy(&output.stderr).contains("--only 3: expected"), "{output:?}");
    Ok(())
}

/// What an image names and this machine lacks is one clear line.
#[test]
fn what_is_not_here_is_named() -> TestResult {
    let place = place()?;
    let path = |name: &str| place.path().join(name);
    let first = [
        "generate",
        "a cat",
        "--model",
        "models/m9",
        "--steps",
        "2",
        "--lora",
        "ink, new.safetensors",
        "--image",
        "photo: one.png",
        "--strength",
        "1",
        "--output",
        "a.png",
    ];
    succeeded(&run(place.path(), &first)?);
    let line = |code: i32, arguments: &[&str]| -> TestResult<String> {
        let all = [&["generate", "--like", "a.png", "--output", "b.png"], arguments].concat();
        let output = run(place.path(), &all)?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(code), 1), "{stderr}");
        Ok(stderr)
    };
    // Changed files.
    RgbImage::new(83, 61).save(path("photo: one.png"))?;
    let warning = line(0, &[])?;
    assert!(warning.starts_with("warning: --image photo: one.png: is not the file that a.png"), "{warning}");
    let lora = fs::read(golden("adapters/alt_diffusion.kohya.safetensors"))?;
    fs::write(path("ink, new.safetensors"), [&lora[..lora.len() - 1], &[lora[lora.len() - 1] ^ 1]].concat())?;
    let warning = line(0, &["--image", "photo: one.png"])?;
    assert!(warning.contains("--lora ink, new.safetensors: is not the file"), "{warning}");
    // Another model.
    let vae = path("models/m9/vae/diffusion_pytorch_model.safetensors");
    let mut bytes = fs::read(&vae)?;
    *bytes.last_mut().ok_or("an empty file")? ^= 1;
    fs::write(vae, bytes)?;
    let warning = line(0, &["--image", "photo: one.png", "--leave-out", "lora"])?;
    assert!(warning.contains("drawn with another model, whose hash is "), "{warning}");
    // Files that are gone.
    fs::remove_file(path("ink, new.safetensors"))?;
    let error = line(1, &[])?;
    assert!(
        error.contains("drawn with --lora ink, new.safetensors, which is neither here nor beside it"),
        "{error}"
    );
    fs::remove_file(path("photo: one.png"))?;
    let error = line(1, &["--leave-out", "lora"])?;
    assert!(error.contains("--image photo: one.png"), "{error}");
    Ok(())
}

/// Texts of stable-diffusion-webui, Forge and stable-diffusion.cpp, in every place where they write them.
#[test]
fn images_of_other_programs_are_read_as_far_as_they_go() -> TestResult {
    let place = place()?;
    let webui = "a (red:1.2) cat <lora:nothing:0.7>\nNegative prompt: dogs\nSteps: 2, Sampler: DPM++ 2M, Schedule type: \
                 Karras, CFG scale: 3, Seed: 5, Size: 64x48, Model hash: 6ce0161689, Model: v1-5, Clip skip: 2, Hires \
                 upscale: 2, Version: v1.10.1";
    let forge = "a cat\nSteps: 2, Sampler: Euler a, Schedule type: Align Your Steps, CFG scale: 3, Seed: 5, Size: 64x48, \
                 Model: x, Version: f2.0.1";
    let cpp = "a cat\nSteps: 2, CFG scale: 3.000000, Guidance: 3.500000, Eta: 0.000000, Seed: 5, Size: 64x48, Model: \
               sd.ckpt, RNG: cuda, Sampler: dpm++2m karras, Version: stable-diffusion.cpp";
    for (text, told, unused) in [
        (
            webui,
            "Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 3, Seed: 5, Size: 64x48",
            "LoRA: nothing, Model: v1-5, Hires upscale: 2",
        ),
        (
            forge,
            "Sampler: Euler a, CFG scale: 3, Seed: 5, Size: 64x48",
            "Schedule type: Align Your Steps, Model: x",
        ),
        (
            cpp,
            "Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 3, Seed: 5, Size: 64x48",
            "Model: sd.ckpt, Guidance: 3.500000",
        ),
    ] {
        for name in ["text.png", "ztxt.png", "itxt.png", "late.png", "text.txt"] {
            write_text(&place.path().join(name), text)?;
            let output = run(place.path(), &["generate", "--like", name, "--json", "--model", "models/m9"])?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(stderr, format!("warning: --like {name}: not used: {unused}\n"), "{name}");
            let drawn: serde_json::Value = serde_json::from_slice(&output.stdout)?;
            let parameters = drawn[0]["parameters"].as_str().unwrap_or_default();
            assert!(parameters.contains(told) && parameters.contains("RNG: NV"), "{name}: {parameters}");
            assert!(parameters.contains("Prompt weights: True"), "{parameters}");
        }
    }
    Ok(())
}

/// Writes a text as the name of the file says: in a chunk of a kind, after the pixels, or alone.
fn write_text(path: &Path, text: &str) -> TestResult {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if path.extension().is_some_and(|ending| ending == "txt") {
        return Ok(fs::write(path, text)?);
    }
    let mut encoder = png::Encoder::new(fs::File::create(path)?, 1, 1);
    match name.as_str() {
        "text" => encoder.add_text_chunk("parameters".to_owned(), text.to_owned())?,
        "ztxt" => encoder.add_ztxt_chunk("parameters".to_owned(), text.to_owned())?,
        "itxt" => encoder.add_itxt_chunk("parameters".to_owned(), text.to_owned())?,
        _ => {}
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&[0])?;
    if name == "late" {
        writer.write_text_chunk(&png::text_metadata::TEXtChunk::new("parameters", text))?;
    }
    Ok(writer.finish()?)
}

/// Chunks of strangers: none, too long, no text, no numbers, and files that they would lead to.
#[test]
fn hostile_chunks_end_in_one_line() -> TestResult {
    let place = place()?;
    let path = |name: &str| place.path().join(name);
    let ours = |fields: &str| {
        format!("a cat\nSteps: 2, Sampler: Euler, Seed: 1, {fields}, Version: altdiffusion 0.1.0")
    };
    write_text(&path("itxt.png"), "")?;
    let many = "ControlNet 0: a, Image: x, LoRA 0: b, ".repeat(90_000);
    let prompts = serde_json::Value::from(vec!["a"; 2000]).to_string();
    let cases: [(&str, String, &str); 10] = [
        ("ztxt.png", "x".repeat(100 << 20), "more than 4194304 bytes"),
        ("text.png", "x".repeat(5 << 20), "more than 4194304 bytes"),
        ("text.txt", "x".repeat(5 << 20), "expected at most"),
        ("none.png", String::new(), "does not say how it was drawn"),
        ("itxt.png", ours("Model: /etc, Size: 64x48"), "drawn with --model /etc"),
        ("itxt.png", ours("Model: ../../etc"), "drawn with --model ../../etc"),
        ("itxt.png", ours("Image: /etc/passwd"), "drawn with --image /etc/passwd"),
        ("itxt.png", ours("LoRA 0: \"Model: \\u001b[2J.safetensors\""), "\\u{1b}[2J.safetensors"),
        ("itxt.png", ours("Prompts: \"[1\""), "Prompts"),
        ("itxt.png", ours(&format!("Prompts: {}", serde_json::Value::from(prompts))), "2000 images"),
    ];
    for (name, text, expected) in cases {
        write_text(&path(name), &text)?;
        let output = run(place.path(), &["generate", "--like", name, "--steps", "1"])?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains(expected) && stderr.len() < 1000, "{stderr}");
    }
    fs::write(path("cut.png"), &fs::read(path("itxt.png"))?[..60])?;
    fs::write(path("a.jpg"), [0xff, 0xd8, 0xff, 0xe1, 0xff, 0xff])?;
    for name in ["cut.png", "a.jpg", "missing.png", "net"] {
        let output = run(place.path(), &["generate", "--like", name])?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.starts_with(&format!("error: --like: {name}: ")), "{stderr}");
    }
    // More fields than any program writes.
    write_text(&path("itxt.png"), &ours(&many))?;
    let output = run(place.path(), &["generate", "--like", "itxt.png"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains(" and 2") && stderr.len() < 1000, "{stderr}");
    // Values that an option cannot have are named, and the rest is drawn.
    write_text(
        &path("itxt.png"),
        &ours("CFG scale: warm, Size: 63x-1, Eta: 9, Batch size: x, Clip skip: 0, More: 1"),
    )?;
    let output = run(place.path(), &["generate", "--like", "itxt.png"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let unused = "Size: 63, Size: -1, Clip skip: 0, CFG scale: warm, Eta: 9, More: 1";
    assert!(
        output.status.success() && stderr.contains(unused) && stderr.contains("Batch size: x"),
        "{stderr}"
    );
    Ok(())
}

/// A prompt of 70 000 characters: a .jpg has no place for it, which is said, and the others have.
#[test]
fn prompts_that_are_longer_than_a_format_holds() -> TestResult {
    let place = place()?;
    let prompt = "a cat, ".repeat(10_000);
    for name in ["a.png", "a.webp", "a.jpg"] {
        let arguments =
            ["generate", &prompt, "--model", "models/m9", "--steps", "2", "--width", "48", "--output", name];
        let output = run(place.path(), &arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        let is_warned = stderr.starts_with("warning: the prompt is too long for a .jpg");
        assert!(output.status.success() && is_warned == (name == "a.jpg"), "{stderr}");
        let again = run(place.path(), &["generate", "--like", name, "--output", "b.png"])?;
        assert_eq!(again.status.success(), name != "a.jpg", "{again:?}");
        assert!(image::open(place.path().join(name)).is_ok());
    }
    Ok(())
}
