//! Runs the program under test, and provides models.

#![allow(unsafe_code, reason = "signals of a child process")]
// Each test file is a crate and uses part of this.
#![allow(dead_code, reason = "not every test file uses everything")]

pub mod workshop;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use altclip_encoder::embedder::Embedder;
use candle_core::{DType, Device, Tensor, safetensors};
use tempfile::TempDir;
use test_support::{TestResult, copy_directory, golden};

/// The model whose quantized weights are in the program.
pub const EMOJI: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/emoji");

/// The same model, loaded by the library.
pub fn emoji() -> TestResult<Embedder> {
    Ok(Embedder::from_pretrained(EMOJI, DType::F32, &Device::Cpu)?)
}

/// The program in `directory`, shielded from the tests' environment.
pub fn altdiffusion(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_altdiffusion"));
    command.current_dir(directory).stdin(Stdio::null());
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        // A developer's settings for the hub and this program.
        let prefixes = [
            "RUST_LOG",
            "RUST_BACKTRACE",
            "HF_",
            "HUGGING",
            "TRANSFORMERS_",
            "SSL_CERT_",
            "ALTDIFFUSION_",
            "CLICOLOR",
            "NO_COLOR",
        ];
        if prefixes.iter().any(|prefix| name.starts_with(prefix)) || name.ends_with("_CA_BUNDLE") {
            command.env_remove(&variable);
        }
    }
    command.env("LC_ALL", "C.UTF-8");
    // By default the index is in the home directory.
    command.env("ALTDIFFUSION_INDEX", directory.join("index.db"));
    // The home directory may have a configuration file.
    command.env("ALTDIFFUSION_CONFIG", if cfg!(windows) { "NUL" } else { "/dev/null" });
    for variable in
        ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE"]
    {
        command.env_remove(variable);
    }
    for variable in ["http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(variable).env_remove(variable.to_uppercase());
    }
    command
}

/// Makes the command stop on signals even if they are ignored around the tests, as shells do for background jobs.
#[cfg(unix)]
pub fn obeying_signals(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;

    // SAFETY: only `signal` is called between fork and exec, which is allowed there and touches no memory.
    unsafe {
        command.pre_exec(|| {
            for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
                libc::signal(signal, libc::SIG_DFL);
            }
            Ok(())
        })
    }
}

/// Runs the program with these arguments.
pub fn run<S: AsRef<OsStr>>(directory: &Path, arguments: &[S]) -> std::io::Result<Output> {
    altdiffusion(directory).args(arguments).output()
}

/// Runs the program with this standard input.
pub fn run_with_input(directory: &Path, arguments: &[&str], input: &[u8]) -> TestResult<Output> {
    let mut command = altdiffusion(directory);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    match child.stdin.take().ok_or("no standard input")?.write_all(input) {
        // The program need not read it all.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written?,
    }
    Ok(child.wait_with_output()?)
}

/// Asserts that the program succeeded without complaints, and returns its output.
#[track_caller]
pub fn succeeded(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    assert_eq!(stderr, "");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Asserts that the program failed with exit code 1 and a single line of complaint, and returns that line.
#[track_caller]
pub fn failed(output: Output) -> TestResult<String> {
    let stderr = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    Ok(stderr)
}

/// The path of a golden model, as an argument.
pub fn golden_model(name: &str) -> TestResult<String> {
    Ok(golden(name).to_str().ok_or("a path in UTF-8")?.to_owned())
}

/// The tensors of a file.
pub fn tensors(path: &Path) -> TestResult<HashMap<String, Tensor>> {
    Ok(safetensors::load(path, &Device::Cpu)?)
}

/// The tensor of this name in a file.
pub fn tensor(path: &Path, name: &str) -> TestResult<Tensor> {
    tensors(path)?.remove(name).ok_or_else(|| format!("{}: no tensor {name}", path.display()).into())
}

/// A copy of a model, to be damaged.
pub struct ModelCopy(TempDir);

impl ModelCopy {
    pub fn of(name: &str) -> TestResult<Self> {
        let copy = Self(tempfile::tempdir()?);
        copy_directory(&golden(name), copy.0.path())?;
        Ok(copy)
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    pub fn argument(&self) -> String {
        self.0.path().display().to_string()
    }

    /// Replaces a text in a file that must hold it.
    pub fn replace(&self, file: &str, old: &str, new: &str) -> TestResult {
        let text = fs::read_to_string(self.path(file))?;
        assert!(text.contains(old), "{file}: no {old}");
        Ok(fs::write(self.path(file), text.replace(old, new))?)
    }

    /// Changes the bytes of a file.
    pub fn change(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) -> TestResult {
        let mut bytes = fs::read(self.path(file))?;
        change(&mut bytes);
        Ok(fs::write(self.path(file), bytes)?)
    }

    /// Changes the tensors of a file.
    pub fn change_tensors(
        &self,
        file: &str,
        change: impl FnOnce(&mut HashMap<String, Tensor>) -> candle_core::Result<()>,
    ) -> TestResult {
        let mut tensors = tensors(&self.path(file))?;
        change(&mut tensors)?;
        Ok(safetensors::save(&tensors, self.path(file))?)
    }
}
