//! Tests `altdiffusion index`: what it keeps, finds and refuses.

#[path = "../common/mod.rs"]
mod common;

mod damage;
mod kills;
mod random_changes;
mod searches;
mod updates;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, SystemTime};

use common::{altdiffusion, failed, succeeded};
use image::{Rgb, RgbImage};
use serde_json::Value;
use tempfile::TempDir;
use test_support::TestResult;

/// A directory with a folder of images, and an index beside it.
pub struct Place(pub TempDir);

impl Place {
    pub fn new() -> TestResult<Self> {
        let place = Self(tempfile::tempdir()?);
        fs::create_dir(place.path("photos"))?;
        Ok(place)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Draws a picture of which only this number is like it.
    pub fn draw(&self, name: &str, number: u32) -> TestResult {
        let path = self.path("photos").join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        picture(number).save(&path)?;
        age(&path)
    }

    /// Runs `altdiffusion index` with the database of this place.
    pub fn index(&self, arguments: &[&str]) -> TestResult<Output> {
        let mut command = altdiffusion(self.0.path());
        let (subcommand, rest) = arguments.split_first().ok_or("a subcommand")?;
        command.args(["index", subcommand, "--database", "index.db"]).args(rest);
        Ok(command.output()?)
    }

    /// Runs it, and parses what it prints.
    pub fn json(&self, arguments: &[&str]) -> TestResult<Value> {
        let output = self.index(&[arguments, &["--json"]].concat())?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Updates the index, and returns how many files are new, changed, renamed, gone, unchanged and unreadable, and how
    /// many images were embedded.
    pub fn add(&self) -> TestResult<[u64; 7]> {
        counts(&self.json(&["add", "photos"])?)
    }

    /// What a command that should fail says.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> TestResult<String> {
        failed(self.index(arguments)?)
    }

    /// The names of the images found, the best first.
    pub fn found(&self, arguments: &[&str]) -> TestResult<Vec<String>> {
        let hits = self.json(&[&["search"], arguments].concat())?;
        let names = hits.as_array().ok_or("a list")?.iter().map(|hit| name_of(hit));
        names.collect()
    }
}

pub fn counts(summary: &Value) -> TestResult<[u64; 7]> {
    let names = ["new", "changed", "renamed", "gone", "unchanged", "unreadable", "embedded"];
    let mut counts = [0; 7];
    for (count, name) in counts.iter_mut().zip(names) {
        *count = summary[name].as_u64().ok_or_else(|| format!("no {name}: {summary}"))?;
    }
    Ok(counts)
}

pub fn name_of(hit: &Value) -> TestResult<String> {
    let path = Path::new(hit["path"].as_str().ok_or("a path")?);
    Ok(path.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// Pictures of different numbers differ.
pub fn picture(number: u32) -> RgbImage {
    RgbImage::from_fn(24 + number % 5, 20, |x, y| {
        let [r, g, b, _] = number.wrapping_mul(2_654_435_761).to_le_bytes();
        if (x / 6 + y / 5) % 2 == 0 { Rgb([r, g, b]) } else { Rgb([g, b, (number % 251) as u8]) }
    })
}

/// Makes a file an hour old, as files that are indexed usually are.
pub fn age(path: &Path) -> TestResult {
    let file = fs::File::options().write(true).open(path)?;
    Ok(file.set_modified(SystemTime::now() - Duration::from_secs(3600))?)
}

/// The text that a command printed.
pub fn printed(output: &Output) -> String {
    succeeded(output)
}
