//! Tests that a run that is killed loses nothing, and that the next one repeats nothing.

use std::process::Stdio;
use std::time::Duration;

use super::{Place, altdiffusion, counts};
use test_support::TestResult;

const IMAGES: u32 = 300;

#[test]
fn killed_runs_add_up() -> TestResult {
    let place = Place::new()?;
    for number in 0..IMAGES {
        place.draw(&format!("{number}.png"), number)?;
    }
    let mut before = 0;
    for kill in 0..8_u64 {
        let mut command = altdiffusion(place.0.path());
        command.args(["index", "add", "photos", "--database", "index.db"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(150 + 370 * kill % 1500));
        child.kill()?;
        child.wait()?;
        if place.path("index.db").exists() {
            let output = place.index(&["status", "--json"])?;
            // A file that was killed before it was an index is made again.
            if output.status.success() {
                let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
                let images = status["images"].as_u64().ok_or("images")?;
                assert!(images >= before, "{images} after {before}");
                assert_eq!(status["vectors"], images);
                before = images;
            }
        }
    }
    let [new, _, _, gone, unchanged, unreadable, embedded] = counts(&place.json(&["add", "photos"])?)?;
    assert_eq!((new + unchanged, gone, unreadable), (IMAGES.into(), 0, 0));
    assert_eq!((unchanged, embedded), (before, u64::from(IMAGES) - before));
    assert_eq!(place.add()?, [0, 0, 0, 0, IMAGES.into(), 0, 0]);
    Ok(())
}
