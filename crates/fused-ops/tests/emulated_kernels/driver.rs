//! Compiles the driver that lets whole programs, built with CUDA, run without a GPU.

use std::io::Write;
use std::path::Path;
use std::process::Command;

#[test]
fn the_emulated_driver_compiles() {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    if Command::new(&compiler).arg("--version").output().is_err() {
        // Written directly, because the test harness captures output.
        let skipped = "SKIPPED: the emulated driver was not compiled, because there is no C++ compiler";
        let _ = writeln!(std::io::stderr(), "{skipped} {compiler}");
        return;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulated_libraries");
    let files = std::fs::read_dir(folder).expect("the folder of the driver").map(|file| file.unwrap().path());
    let sources: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "cpp")).collect();
    assert!(!sources.is_empty());
    let compiled = Command::new(&compiler)
        .args(["-std=c++17", "-fsyntax-only", "-Wall"])
        .args(sources)
        .output()
        .expect("a C++ compiler");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
}
