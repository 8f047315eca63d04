//! Compiles the CUDA kernels, if the feature `cuda` is on.
//!
//! All of `kernels/*.cu` become one fat binary: machine code for the architectures in `FUSED_OPS_CUDA_ARCHITECTURES`,
//! and PTX that the driver compiles for later ones. It is embedded in the crate.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Ampere (A100), Ada (RTX 40, L4) and Hopper (H100); code for 8.0 also runs on 8.6.
const ARCHITECTURES: &str = "80,89,90a";

/// The PTX target: everything from Hopper on.
const INTERMEDIATE: &str = "90";

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    println!("cargo::rerun-if-changed=kernels");
    for variable in ["FUSED_OPS_CUDA_ARCHITECTURES", "CUDA_HOME"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let folder = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("kernels");
    let out = PathBuf::from(variable("OUT_DIR")?);
    let all = out.join("kernels.cu");
    fs::write(&all, everything(&folder)?)
        .map_err(|error| format!("cannot write {}: {error}", all.display()))?;
    compile(&folder, &all, &out.join("kernels.fatbin"))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("the environment variable {name}: {error}"))
}

/// A source that includes every kernel.
fn everything(folder: &Path) -> Result<String, String> {
    let unreadable = |error| format!("cannot read {}: {error}", folder.display());
    let files =
        fs::read_dir(folder).map_err(unreadable)?.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    let mut names: Vec<_> =
        files.iter().map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(".cu"));
    names.sort();
    Ok(names.iter().fold(String::new(), |mut source, name| {
        let _ = writeln!(source, "#include \"{name}\""); // writing to a String cannot fail
        source
    }))
}

fn compile(folder: &Path, source: &Path, out: &Path) -> Result<(), String> {
    let architectures = env::var("FUSED_OPS_CUDA_ARCHITECTURES").unwrap_or_else(|_| ARCHITECTURES.to_owned());
    let nvcc = match env::var_os("CUDA_HOME") {
        Some(home) => Path::new(&home).join("bin/nvcc"),
        None => PathBuf::from("nvcc"),
    };
    let mut command = Command::new(&nvcc);
    command.args(["-std=c++17", "-O3", "--threads", "0", "-fatbin"]);
    for architecture in architectures.split(',').map(str::trim) {
        command.arg("-gencode").arg(format!("arch=compute_{architecture},code=sm_{architecture}"));
    }
    command.arg("-gencode").arg(format!("arch=compute_{INTERMEDIATE},code=compute_{INTERMEDIATE}"));
    command.arg("-I").arg(folder).arg("-o").arg(out).arg(source);
    let status = command.status().map_err(|error| {
        format!("the feature cuda needs nvcc of CUDA 12 or later, in CUDA_HOME/bin or the path: {error}")
    })?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{} could not compile the kernels for {architectures}", nvcc.display())),
    }
}
