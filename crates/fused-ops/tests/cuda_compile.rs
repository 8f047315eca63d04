//! Compiles every CUDA kernel with nvcc for every shipped architecture, and checks its resource usage.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// As in `build.rs`, and the PTX for later ones.
const ARCHITECTURES: [&str; 4] = ["sm_80", "sm_89", "sm_90a", "compute_90"];

/// The nvcc in `CUDA_HOME`, or in the path.
fn nvcc() -> Option<PathBuf> {
    let home = std::env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin/nvcc"));
    let candidates = home.into_iter().chain([PathBuf::from("nvcc")]);
    candidates.into_iter().find(|nvcc| Command::new(nvcc).arg("--version").output().is_ok())
}

/// A kernel's resources, according to ptxas.
#[derive(Debug, PartialEq)]
struct Resources {
    kernel: String,
    stack_bytes: u32,
    spilled_bytes: u32,
    registers: u32,
}

/// Parses the output of `ptxas -v`: for each kernel its name, a line on the stack, and one on registers.
fn resources(output: &str) -> Vec<Resources> {
    let mut all: Vec<Resources> = Vec::new();
    let number_before = |line: &str, what: &str| -> Option<u32> {
        line[..line.find(what)?].split_whitespace().next_back()?.parse().ok()
    };
    for line in output.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let kernel = rest.split('\'').next().unwrap_or_default().to_owned();
            all.push(Resources { kernel, stack_bytes: 0, spilled_bytes: 0, registers: 0 });
        }
        let Some(last) = all.last_mut() else { continue };
        if let Some(stack) = number_before(line, " bytes stack frame") {
            last.stack_bytes = stack;
            last.spilled_bytes = number_before(line, " bytes spill stores").expect("ptxas counts stores")
                + number_before(line, " bytes spill loads").expect("ptxas counts loads");
        }
        if let Some((_, rest)) = line.split_once(": Used ") {
            last.registers = number_before(rest, " registers").expect("ptxas counts registers");
        }
    }
    all
}

/// Counts the kernels in a source: each `KERNEL(` is one, and one in a macro counts per use of the macro.
fn kernels_of(source: &str) -> usize {
    let count = |text: &str, what: &str| text.matches(what).count();
    let mut definitions = source.split("#define ");
    let mut kernels = count(definitions.next().unwrap_or_default(), "KERNEL(");
    for definition in definitions {
        let name = definition.split('(').next().unwrap_or_default();
        let body_ends = definition.find("\n\n").unwrap_or(definition.len());
        let uses = source.matches(&format!("\n{name}(")).count();
        kernels += count(&definition[..body_ends], "KERNEL(") * uses;
    }
    kernels
}

#[test]
fn no_kernel_spills_registers() {
    let Some(nvcc) = nvcc() else {
        // Written directly, because the test harness captures output.
        let _ = writeln!(std::io::stderr(), "SKIPPED: there is no nvcc, so no CUDA kernel was compiled");
        return;
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let files =
        std::fs::read_dir(&folder).expect("the folder of the kernels").map(|file| file.unwrap().path());
    let sources: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "cu")).collect();
    assert!(!sources.is_empty());
    for source in &sources {
        let expected = kernels_of(&std::fs::read_to_string(source).expect("a kernel's source"));
        assert!(expected > 0, "{} has no kernel", source.display());
        // In parallel, one compiler per architecture.
        let compilers = ARCHITECTURES.map(|architecture| {
            let mut command = Command::new(&nvcc);
            command.args(["-std=c++17", "-O3", "-Werror", "all-warnings", "-Xptxas", "-v"]);
            let (kind, ending) =
                if architecture.starts_with("sm_") { ("-cubin", "cubin") } else { ("-ptx", "ptx") };
            let name = source.file_stem().expect("a source has a name").to_string_lossy();
            let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{architecture}.{ending}"));
            command.arg(kind).arg(format!("-arch={architecture}")).arg("-o").arg(out).arg(source);
            command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            (architecture, command.spawn().expect("nvcc"))
        });
        for (architecture, compiler) in compilers {
            let output = compiler.wait_with_output().expect("nvcc");
            let printed = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{} for {architecture}: {printed}", source.display());
            if architecture.starts_with("compute_") {
                continue;
            }
            let found = resources(&printed);
            assert_eq!(
                found.len(),
                expected,
                "kernels of {} for {architecture}: {printed}",
                source.display()
            );
            for kernel in found {
                println!("{architecture} {}: {} registers", kernel.kernel, kernel.registers);
                assert!(kernel.registers > 0, "ptxas said no registers of {kernel:?}");
                assert!(
                    kernel.spilled_bytes == 0 && kernel.stack_bytes == 0,
                    "{} for {architecture} spills {} bytes of registers and has a stack of {}",
                    kernel.kernel,
                    kernel.spilled_bytes,
                    kernel.stack_bytes
                );
            }
        }
    }
}

/// A change in ptxas' wording must not blind the test above.
#[test]
fn spills_are_read() {
    let output = "ptxas info    : 0 bytes gmem\n\
        ptxas info    : Compiling entry function 'one' for 'sm_80'\n\
        ptxas info    : Function properties for one\n    \
            24 bytes stack frame, 20 bytes spill stores, 60 bytes spill loads\n\
        ptxas info    : Used 255 registers, used 1 barriers, 24 bytes cumulative stack size\n\
        ptxas info    : Compiling entry function 'two' for 'sm_80'\n\
        ptxas info    : Function properties for two\n    \
            0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
        ptxas info    : Used 40 registers, used 0 barriers\n";
    let one = Resources { kernel: "one".to_owned(), stack_bytes: 24, spilled_bytes: 80, registers: 255 };
    let two = Resources { kernel: "two".to_owned(), stack_bytes: 0, spilled_bytes: 0, registers: 40 };
    assert_eq!(resources(output), [one, two]);
}
