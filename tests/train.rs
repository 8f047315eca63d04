//! Tests `altdiffusion train` with tiny models: its output, what it skips, and that checkpoints are never lost.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use candle_core::Device;
use common::workshop::{STEPS, Workshop, error_of, lines, teacher_arguments, write_realignment};
use common::{altdiffusion, run};
use rand::{RngExt, SeedableRng};
use test_support::{TestResult, golden};

const KILLS: usize = 10;

#[test]
fn a_run_that_is_killed_ten_times_ends_as_an_unbroken_one() -> TestResult {
    let workshop = Workshop::new()?;
    let unbroken = workshop.teacher("unbroken", &[])?;
    assert!(unbroken.status.success(), "{}", String::from_utf8_lossy(&unbroken.stderr));

    let metrics = workshop.path("broken/teacher/metrics.jsonl");
    // Kills at other moments in every run of this test.
    let seed: u64 = rand::random();
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    for kill in 0..KILLS {
        let mut child = workshop.start_teacher("broken")?;
        let before = lines(&metrics);
        let after = before + rng.random_range(1..STEPS / KILLS);
        while lines(&metrics) < after && child.try_wait()?.is_none() {
            sleep(Duration::from_micros(200));
        }
        sleep(Duration::from_micros(rng.random_range(0..8000)));
        child.kill()?; // SIGKILL
        let status = child.wait()?;
        assert_eq!(status.code(), None, "seed {seed}, kill {kill}: the run ended by itself");
    }
    let last = workshop.teacher("broken", &[])?;
    let stderr = String::from_utf8_lossy(&last.stderr);
    assert!(last.status.success() && stderr.contains("goes on after step"), "seed {seed}: {stderr}");

    for file in ["model/model.safetensors", "teacher/metrics.jsonl"] {
        let [broken, whole] = ["broken", "unbroken"].map(|output| fs::read(workshop.path(output).join(file)));
        assert!(broken? == whole?, "seed {seed}: {file} differs");
    }
    // The moments too, bit by bit.
    let state = |output: &str| -> TestResult<BTreeMap<String, Vec<u32>>> {
        let path = workshop.path(output).join(format!("teacher/checkpoint-{STEPS:08}.safetensors"));
        let mut bits = BTreeMap::new();
        for (name, tensor) in candle_core::safetensors::load(path, &Device::Cpu)? {
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            bits.insert(name, values.into_iter().map(f32::to_bits).collect());
        }
        Ok(bits)
    };
    assert!(state("broken")? == state("unbroken")?, "seed {seed}: the checkpoints differ");
    assert_eq!(workshop.checkpoints("broken")?.len(), 2);
    Ok(())
}

#[test]
fn a_trained_student_is_nearer_to_its_teacher() -> TestResult {
    let workshop = Workshop::new()?;
    let output = workshop.teacher("run", &[])?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read_to_string(workshop.path("run/teacher/metrics.jsonl"))?;
    let losses: Vec<f64> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?["loss"].as_f64())
        .collect();
    assert_eq!(losses.len(), STEPS);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..10]), mean(&losses[STEPS - 10..]));
    assert!(last < 0.2 * first, "{first} to {last}");
    for file in ["run/teacher/loss.png", "run/teacher/events.out.tfevents.run", "run/model/config.json"] {
        assert!(workshop.path(file).exists(), "{file}");
    }
    // It loads like any model, with its teacher's image tower.
    let inspected = run(workshop.0.path(), &["inspect", "run/model"])?;
    assert!(inspected.status.success(), "{}", String::from_utf8_lossy(&inspected.stderr));
    Ok(())
}

/// A file size limit simulates a full disk: the checkpoint cannot be written, and earlier ones are kept.
#[cfg(unix)]
#[test]
fn a_full_disk_is_one_error_and_no_checkpoint_is_lost() -> TestResult {
    let workshop = Workshop::new()?;
    let shortened = ["--set", "stage.optimizer.steps=20"];
    assert!(workshop.teacher("whole", &shortened)?.status.success());
    assert!(workshop.teacher("run", &[&shortened[..], &["--minutes", "0"]].concat())?.status.success());
    let before = workshop.checkpoints("run")?;
    assert_eq!(before.len(), 1);
    let bytes = fs::read(&before[0])?;

    let program = altdiffusion(workshop.0.path()).get_program().to_owned();
    let script = "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"";
    let mut limited = std::process::Command::new("sh");
    limited
        .current_dir(workshop.0.path())
        .args(["-c", script])
        .arg(program)
        .args(teacher_arguments("run"))
        .args(shortened);
    let error = error_of(&limited.output()?);
    assert!(error.contains("checkpoint-00000002.safetensors") && error.contains("too large"), "{error}");
    assert_eq!(workshop.checkpoints("run")?, before);
    assert_eq!(fs::read(&before[0])?, bytes);

    assert!(workshop.teacher("run", &shortened)?.status.success());
    let [run, whole] =
        ["run", "whole"].map(|output| fs::read(workshop.path(output).join("model/model.safetensors")));
    assert!(run? == whole?);
    Ok(())
}

#[test]
fn a_checkpoint_of_another_model_is_named_and_kept() -> TestResult {
    let workshop = Workshop::new()?;
    assert!(workshop.teacher("run", &["--minutes", "0"])?.status.success());
    let before = fs::read(&workshop.checkpoints("run")?[0])?;
    workshop.write_student("wider", 24)?;
    let error = error_of(&workshop.teacher("run", &["--set", "student=wider"])?);
    assert!(error.contains("checkpoint-00000001.safetensors") && error.contains("expected [24"), "{error}");
    let error = error_of(&workshop.teacher("run", &["--set", "seed=4"])?);
    assert!(error.contains("was made with seed 3, expected 4"), "{error}");
    assert_eq!(fs::read(&workshop.checkpoints("run")?[0])?, before);
    Ok(())
}

#[test]
fn what_is_wrong_with_settings_and_data_is_one_line() -> TestResult {
    let workshop = Workshop::new()?;
    let error = |more: &[&str]| -> TestResult<String> { Ok(error_of(&workshop.teacher("run", more)?)) };
    let found = error(&["--set", "stage.batch_sze=3"])?;
    assert_eq!(
        found,
        "error: --set stage.batch_sze=3: unknown setting `batch_sze`, the nearest is `batch_size`"
    );
    let found = error(&["--set", "translations=[\"fr\"]"])?;
    assert!(found.ends_with("pairs.jsonl: expected a column `fr`, found en, zh"), "{found}");
    let found = error(&["--set", "precision=bf16"])?;
    assert_eq!(found, "error: precision: bf16 needs a GPU, expected f32 on a CPU");

    let mut text = fs::read_to_string(workshop.path("pairs.jsonl"))?;
    text.push_str("{\"en\": \"a house\", \"zh\": \"\"}\nno json\n");
    fs::write(workshop.path("pairs.jsonl"), text)?;
    let output = workshop.teacher("run", &["--set", "stage.optimizer.steps=2"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("skipped 2: line 5: `zh` is empty; line 6: expected a JSON object"), "{stderr}");
    Ok(())
}

#[test]
fn contrastive_learning_leaves_the_image_tower_alone() -> TestResult {
    let workshop = Workshop::new()?;
    workshop.write_contrastive()?;
    let arguments = ["train", "contrastive", "--config", "run.toml", "--device", "cpu", "--output", "run"];
    let output = run(workshop.0.path(), &arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("skipped 1: ") && stderr.contains("broken.png"), "{stderr}");
    let weights = |folder: &str| candle_core::safetensors::load(workshop.path(folder), &Device::Cpu);
    let (old, new) = (weights("model/model.safetensors")?, weights("run/model/model.safetensors")?);
    assert_eq!(old.len(), new.len());
    for (name, tensor) in &old {
        let moved = (tensor - &new[name])?.abs()?.sum_all()?.to_scalar::<f32>()?;
        let is_image = name.starts_with("vision_model.") || name.starts_with("visual_projection.");
        // All tokens have the same type, which carries no information, but its embedding is trained like any other.
        assert_eq!(moved == 0., is_image, "{name} moved by {moved}");
    }
    let similarity = run(
        workshop.0.path(),
        &["similarity", "--model", "run/model", "--image", "0.png", "--text", "一只猫"],
    )?;
    assert!(similarity.status.success(), "{}", String::from_utf8_lossy(&similarity.stderr));
    Ok(())
}

#[test]
fn diffusion_is_realigned_in_three_stages() -> TestResult {
    let folder = tempfile::tempdir()?;
    write_realignment(folder.path(), 1)?;
    let arguments = ["train", "diffusion", "--config", "run.toml", "--device", "cpu", "--output", "run"];
    let output = run(folder.path(), &arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("data: skipped 1: line 7: `en` is empty"), "{stderr}");
    assert!(
        stderr.lines().any(|line| line.starts_with("data: skipped 1: ") && line.contains("broken.png")),
        "{stderr}"
    );

    let weights = |path: PathBuf| {
        Ok::<_, Box<dyn std::error::Error>>(candle_core::safetensors::load(path, &Device::Cpu)?)
    };
    const UNET: &str = "unet/diffusion_pytorch_model.safetensors";
    let (old, new) =
        (weights(golden("alt_diffusion").join(UNET))?, weights(folder.path().join("run/model").join(UNET))?);
    assert_eq!(old.len(), new.len());
    for (name, tensor) in &old {
        assert_eq!(tensor.dims(), new[name].dims(), "{name}");
    }
    // The first stage's checkpoint has the keys and values, and nothing else.
    let first = weights(folder.path().join("run/first/checkpoint-00000002.safetensors"))?;
    assert!(first.keys().all(|name| name.contains(".attn2.to_k.") || name.contains(".attn2.to_v.")));
    let inspected = run(folder.path(), &["inspect", "run/model"])?;
    assert!(inspected.status.success(), "{}", String::from_utf8_lossy(&inspected.stderr));
    // The second time there is nothing to do, and caches are used.
    let again = run(folder.path(), &arguments)?;
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert!(again.status.success() && !stderr.contains("broken.png"), "{stderr}");
    Ok(())
}
