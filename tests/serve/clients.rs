//! Runs the clients that people use beside the server: see `clients.py`.
//!
//! Needs Python with their packages; `CLIENTS_PYTHON` may name it. What is missing is said aloud.

use std::io::Write;
use std::process::{Command, Stdio};

use test_support::TestResult;

use crate::server::Served;

/// Runs the checks of these clients.
fn check(served: &Served, clients: &str, more: &[&str]) -> TestResult {
    let python = std::env::var("CLIENTS_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/serve/clients.py");
    let command = env!("CARGO_BIN_EXE_altdiffusion");
    let mut command_line = Command::new(&python);
    command_line.args([script, &served.address, "--command", command, "--only", clients]).args(more);
    let Ok(output) = command_line.stdin(Stdio::null()).output() else {
        std::io::stderr().write_all(format!("SKIPPED: {clients}: {python} cannot be run\n").as_bytes())?;
        return Ok(());
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // Past the harness, which shows the output of failed tests alone.
    for line in text.lines().filter(|line| line.starts_with("SKIPPED")) {
        std::io::stderr().write_all(format!("{line}\n").as_bytes())?;
    }
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn clients_that_people_use_are_answered() -> TestResult {
    check(&Served::start(&[])?, "openai,webuiapi,immich", &[])
}

#[test]
fn clients_with_a_key_are_answered() -> TestResult {
    let directory = tempfile::tempdir()?;
    let served = Served::start_in(directory.path(), &[], &[("ALTDIFFUSION_API_KEY", "secret")])?;
    check(&served, "openai,webuiapi", &["--key", "secret"])
}

/// Thousands of requests made from the description, most of them bad.
#[test]
fn the_description_is_true() -> TestResult {
    let limits = ["--max-steps", "4", "--max-side", "128", "--max-images", "2", "--max-inputs", "64"];
    check(&Served::start(&limits)?, "openapi", &[])
}
