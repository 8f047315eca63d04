//! Tests `altdiffusion train` in two processes: the result equals that of one process with the batches of both.

mod common;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::Duration;

use common::altdiffusion;
use common::workshop::{Workshop, error_of, lines, teacher_arguments, write_realignment};
use test_support::TestResult;

/// One process with two batches per step.
const TWICE: [&str; 2] = ["--set", "stage.optimizer.accumulate=2"];

/// A new address where nobody listens. Its port is below the range that systems assign automatically.
fn free_address() -> TestResult<String> {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    let mut ports = std::iter::repeat_with(|| first + TRIED.fetch_add(1, Ordering::Relaxed)).take(1000);
    let port = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    Ok(format!("127.0.0.1:{}", port.ok_or("no free port")?))
}

/// The program with these arguments, as one of two ranks.
fn rank(number: usize, address: &str, directory: &Path, arguments: &[&str]) -> Command {
    let mut command = altdiffusion(directory);
    let (host, port) = address.split_once(':').unwrap_or_default();
    // Rank 1 gets its settings from the environment, as from launchers.
    match number {
        0 => command.args(arguments).args(["--ranks", "2", "--rank", "0", "--rendezvous", address]),
        _ => command.args(arguments).envs([
            ("WORLD_SIZE", "2"),
            ("RANK", "1"),
            ("MASTER_ADDR", host),
            ("MASTER_PORT", port),
        ]),
    };
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The results of two ranks, one of which has more arguments.
fn pair(directory: &Path, arguments: &[&str], more_of_rank_1: &[&str]) -> TestResult<[Output; 2]> {
    let address = free_address()?;
    let other = rank(1, &address, directory, &[arguments, more_of_rank_1].concat()).spawn()?;
    let first = rank(0, &address, directory, arguments).output()?;
    Ok([first, other.wait_with_output()?])
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    stderr
}

/// The final losses of each stage as displayed: `teacher: 3/3, loss 0.1234`. What is displayed before that depends on
/// timing.
fn losses(stderr: &str, steps: usize) -> Vec<String> {
    let shown = stderr.lines().filter(|line| line.contains(&format!(": {steps}/{steps}, loss ")));
    shown.map(|line| line.split(", ").take(2).collect::<Vec<_>>().join(", ")).collect()
}

/// A sum of two terms has no order: the model and metrics are bit-identical.
#[test]
fn two_processes_end_as_one_with_twice_the_batches() -> TestResult {
    let workshop = Workshop::new()?;
    workshop.write_contrastive()?;
    let arguments =
        |output| ["train", "contrastive", "--config", "run.toml", "--device", "cpu", "--output", output];
    let alone = altdiffusion(workshop.0.path()).args(arguments("alone")).args(TWICE).output()?;
    succeeded(&alone);
    let [first, other] = pair(workshop.0.path(), &arguments("pair"), &[])?.map(|output| succeeded(&output));
    for file in ["model/model.safetensors", "contrastive/metrics.jsonl"] {
        let [pair, alone] = ["pair", "alone"].map(|output| fs::read(workshop.path(output).join(file)));
        assert!(pair? == alone?, "{file} differs");
    }
    assert_eq!(losses(&first, 3), losses(&other, 3));
    assert_eq!(losses(&first, 3).len(), 1, "{first}");
    // Rank 0 read the images; the other used its cache.
    assert!(first.contains("broken.png") && !other.contains("broken.png"), "{first}{other}");
    Ok(())
}

#[test]
fn stages_of_diffusion_follow_each_other_on_both_ranks() -> TestResult {
    let folder = tempfile::tempdir()?;
    let arguments =
        |output| ["train", "diffusion", "--config", "run.toml", "--device", "cpu", "--output", output];
    write_realignment(folder.path(), 2)?;
    succeeded(&altdiffusion(folder.path()).args(arguments("alone")).output()?);
    write_realignment(folder.path(), 1)?;
    let [first, other] = pair(folder.path(), &arguments("pair"), &[])?.map(|output| succeeded(&output));
    assert_eq!(losses(&first, 2), losses(&other, 2));
    assert_eq!(losses(&first, 2).len(), 3, "{first}");
    let unet = "model/unet/diffusion_pytorch_model.safetensors";
    let [pair, alone] = ["pair", "alone"].map(|output| fs::read(folder.path().join(output).join(unet)));
    assert!(pair? == alone?);
    Ok(())
}

/// First one rank runs out of time, then one is killed, then both run to the end.
#[test]
fn a_rank_that_ends_or_is_lost_ends_the_run_and_no_step_is_lost() -> TestResult {
    let workshop = Workshop::new()?;
    let directory = workshop.0.path();
    succeeded(&workshop.teacher("alone", &TWICE)?);

    let arguments = teacher_arguments("pair");
    let ended = pair(directory, &arguments, &["--minutes", "0"])?;
    for output in &ended {
        assert!(succeeded(output).contains("teacher: 1 of 240 steps"), "{output:?}");
    }

    let address = free_address()?;
    let mut other = rank(1, &address, directory, &arguments).spawn()?;
    let first = rank(0, &address, directory, &arguments).spawn()?;
    let metrics = workshop.path("pair/teacher/metrics.jsonl");
    while lines(&metrics) < 10 && other.try_wait()?.is_none() {
        sleep(Duration::from_micros(200));
    }
    other.kill()?; // SIGKILL
    assert_eq!(other.wait()?.code(), None, "the run ended by itself");
    let error = error_of(&first.wait_with_output()?);
    assert!(error.starts_with("error: rank 1: was lost"), "{error}");

    let [first, other] = pair(directory, &arguments, &[])?.map(|output| succeeded(&output));
    assert!(first.contains("goes on after step") && other.contains("goes on after step"), "{first}{other}");
    for file in ["model/model.safetensors", "teacher/metrics.jsonl"] {
        let [pair, alone] = ["pair", "alone"].map(|output| fs::read(workshop.path(output).join(file)));
        assert!(pair? == alone?, "{file} differs");
    }
    Ok(())
}

#[test]
fn what_is_wrong_with_ranks_is_one_line() -> TestResult {
    let workshop = Workshop::new()?;
    let error = |more: &[&str]| -> TestResult<String> { Ok(error_of(&workshop.teacher("run", more)?)) };
    assert_eq!(error(&["--ranks", "2"])?, "error: --ranks 2: expected --rank as well");
    let found = error(&["--ranks", "2", "--rank", "2"])?;
    assert_eq!(found, "error: --rank 2: expected a number below --ranks, which is 2");
    let found = error(&["--ranks", "2", "--rank", "1"])?;
    assert!(found.contains("expected --rendezvous HOST:PORT, or MASTER_ADDR and MASTER_PORT"), "{found}");
    let found = error(&["--ranks", "2", "--rank", "1", "--rendezvous", "nowhere"])?;
    assert!(found.starts_with("error: rank 0: cannot be reached at nowhere"), "{found}");
    Ok(())
}
