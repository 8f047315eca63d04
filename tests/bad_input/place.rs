//! Runs the program in an empty directory, and checks its errors.

use crate::common::run;
use std::fs;
use std::path::Path;
use std::process::Output;
use tempfile::TempDir;
use test_support::TestResult;

/// Asserts that the program failed with `code` and a line that contains all of `parts`.
#[track_caller]
pub fn refused(output: &Output, code: i32, parts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let line = stderr.lines().next().unwrap_or_default();
    assert!(line.starts_with("error: "), "{stderr}");
    for part in parts {
        assert!(line.contains(part), "no {part:?} in {stderr}");
    }
    // Clap adds a hint to its line.
    let others = stderr.lines().skip(1).filter(|line| !line.is_empty());
    let unexpected: Vec<_> = others.filter(|line| code == 1 || !line.contains("--help")).collect();
    assert!(unexpected.is_empty(), "{stderr}");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A directory in which nothing may be created.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> TestResult<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Tries to draw with a model.
    #[track_caller]
    pub fn generate_refused(&self, model: &str, arguments: &[&str], code: i32, parts: &[&str]) -> TestResult {
        let all = [&["generate", "a cat", "--model", model], arguments].concat();
        self.refused(&all, code, parts)
    }

    #[track_caller]
    pub fn refused(&self, arguments: &[&str], code: i32, parts: &[&str]) -> TestResult {
        let files = || -> TestResult<usize> { Ok(fs::read_dir(self.path())?.count()) };
        let before = files()?;
        refused(&run(self.path(), arguments)?, code, parts);
        assert_eq!(files()?, before, "{arguments:?} left a file behind");
        Ok(())
    }
}
