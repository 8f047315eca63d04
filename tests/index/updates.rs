//! Tests what an update does, and what it leaves alone.

use std::fs;

use super::{Place, age, picture, printed};
use test_support::TestResult;

#[test]
fn only_what_is_new_or_changed_is_embedded() -> TestResult {
    let place = Place::new()?;
    for number in 0..6 {
        place.draw(&format!("{number}.png"), number)?;
    }
    fs::write(place.path("photos/broken.png"), "no image")?;
    age(&place.path("photos/broken.png"))?;
    fs::write(place.path("photos/notes.md"), "")?;
    assert_eq!(place.add()?, [6, 0, 0, 0, 0, 1, 6]);
    // The unreadable one is not tried again.
    assert_eq!(place.add()?, [0, 0, 0, 0, 6, 1, 0]);

    place.draw("new.png", 10)?;
    place.draw("1.png", 11)?;
    fs::create_dir(place.path("photos/moved"))?;
    fs::rename(place.path("photos/2.png"), place.path("photos/moved/two.png"))?;
    fs::remove_file(place.path("photos/3.png"))?;
    fs::copy(place.path("photos/4.png"), place.path("photos/copy.png"))?;
    let summary = place.index(&["add"])?;
    let message = printed(&summary);
    assert_eq!(
        message,
        "index.db: 2 new, 1 changed, 1 renamed, 1 gone, 3 unchanged; 1 unreadable; left out: 1 .md\n"
    );
    assert_eq!(place.json(&["status"])?["vectors"], 6);
    Ok(())
}

#[test]
fn names_that_are_exchanged_keep_their_vectors() -> TestResult {
    let place = Place::new()?;
    place.draw("a.png", 1)?;
    place.draw("b.png", 2)?;
    place.add()?;
    for (from, to) in [("a.png", "c.png"), ("b.png", "a.png"), ("c.png", "b.png")] {
        fs::rename(place.path("photos").join(from), place.path("photos").join(to))?;
    }
    // Size and time may be the same, but not both here: the pictures are of different widths.
    let [new, changed, renamed, gone, unchanged, _, embedded] = place.add()?;
    assert_eq!((new, changed, renamed, gone, unchanged, embedded), (0, 2, 0, 0, 0, 0));
    assert_eq!(place.found(&["--image", "photos/a.png"])?, ["a.png", "b.png"]);
    Ok(())
}

/// A file may change within the resolution of its time; one that is touched is read, but not embedded.
#[test]
fn recent_files_are_read_twice() -> TestResult {
    let place = Place::new()?;
    picture(1).save(place.path("photos/a.png"))?;
    assert_eq!(place.add()?, [1, 0, 0, 0, 0, 0, 1]);
    assert_eq!(place.add()?, [0, 0, 0, 0, 1, 0, 0]);
    Ok(())
}

#[test]
fn a_missing_folder_is_no_empty_one() -> TestResult {
    let place = Place::new()?;
    place.draw("a.png", 1)?;
    place.add()?;
    fs::rename(place.path("photos"), place.path("elsewhere"))?;
    let message = place.refused(&["add"])?;
    assert!(message.contains("photos: No such file or directory"), "{message}");
    assert_eq!(place.json(&["status"])?["images"], 1);

    fs::create_dir(place.path("photos"))?;
    assert_eq!(place.add()?, [0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(place.json(&["status"])?["vectors"], 0);
    Ok(())
}

/// What is recorded as unreadable is the same for both; what could not be opened is named, and not recorded.
#[cfg(unix)]
#[test]
fn updates_and_status_agree_on_what_is_unreadable() -> TestResult {
    let place = Place::new()?;
    place.draw("a.png", 1)?;
    fs::write(place.path("photos/text.png"), "no image")?;
    age(&place.path("photos/text.png"))?;
    std::os::unix::fs::symlink("nowhere.png", place.path("photos/link.png"))?;
    for _ in 0..2 {
        let summary = place.json(&["add", "photos"])?;
        assert_eq!((&summary["unreadable"], &summary["skipped"]), (&1.into(), &1.into()));
        assert_eq!(place.json(&["status"])?["unreadable"], 1);
    }
    let words = printed(&place.index(&["add"])?);
    assert!(
        words.contains("; 1 unreadable; skipped 1: ") && words.contains("link.png: No such file"),
        "{words}"
    );
    Ok(())
}

#[test]
fn folders_are_taken_out() -> TestResult {
    let place = Place::new()?;
    place.draw("a.png", 1)?;
    place.draw("deep/b.png", 2)?;
    place.add()?;
    let message = printed(&place.index(&["remove", "photos/deep"])?);
    assert_eq!(message, "photos/deep: 1 file taken out\n");
    assert_eq!(place.json(&["status"])?["images"], 1);
    assert!(place.refused(&["remove", "photos/none"])?.contains("not in this index"));
    let removed = place.json(&["remove", "photos"])?;
    assert_eq!(removed, serde_json::json!([{ "path": "photos", "files": 1, "error": null }]));
    assert_eq!(place.json(&["status"])?["folders"].as_array().map(Vec::len), Some(0));
    Ok(())
}

/// What is there is taken out, whatever stands before it, and the output is one document.
#[test]
fn each_path_is_taken_out_or_named() -> TestResult {
    let place = Place::new()?;
    for (name, number) in [("a.png", 1), ("b.png", 2), ("c.png", 3)] {
        place.draw(name, number)?;
    }
    place.add()?;
    let output = place.index(&["remove", "photos/a.png", "none", "photos/b.png", "nowhere", "--json"])?;
    let stderr = String::from_utf8(output.stderr)?;
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let errors: Vec<&str> = stderr.lines().collect();
    assert!(
        matches!(errors.as_slice(), [one, other] if one.starts_with("error: ") && one.ends_with("none: not in this index")
            && other.starts_with("error: ") && other.ends_with("nowhere: not in this index")),
        "{stderr}"
    );
    let removed: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let files: Vec<_> = removed.as_array().into_iter().flatten().map(|path| path["files"].as_u64()).collect();
    assert_eq!(files, [Some(1), Some(0), Some(1), Some(0)]);
    assert!(removed[0]["error"].is_null());
    assert!(removed[1]["error"].as_str().is_some_and(|error| error.ends_with("none: not in this index")));
    assert_eq!(place.json(&["status"])?["images"], 1);

    let output = place.index(&["remove", "none", "photos/c.png"])?;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stdout)?, "photos/c.png: 1 file taken out\n");
    assert_eq!(place.json(&["status"])?["images"], 0);
    Ok(())
}

#[test]
fn captions_and_dates_are_kept() -> TestResult {
    let place = Place::new()?;
    place.draw("a.png", 1)?;
    fs::write(place.path("photos/a.txt"), "一只猫\n")?;
    place.add()?;
    let hits = place.json(&["search", "猫"])?;
    assert_eq!(hits[0]["caption"], "一只猫");
    assert!(hits[0]["date"].as_str().is_some_and(|date| date.len() == 19), "{hits}");
    assert_eq!((hits[0]["width"].as_u64(), hits[0]["height"].as_u64()), (Some(25), Some(20)));

    fs::write(place.path("photos/a.txt"), "a cat")?;
    assert_eq!(place.add()?, [0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(place.json(&["search", "猫"])?[0]["caption"], "a cat");
    Ok(())
}

#[test]
fn vectors_of_embed_are_taken_over() -> TestResult {
    let place = Place::new()?;
    for number in 0..4 {
        place.draw(&format!("{number}.png"), number)?;
    }
    let embed = ["embed", "--image", "photos", "--text", "a cat", "--output", "old.safetensors"];
    printed(&super::common::run(place.0.path(), &embed)?);
    fs::remove_file(place.path("photos/3.png"))?;
    let summary = place.json(&["import", "old.safetensors"])?;
    let expected = serde_json::json!({"imported": 3, "known": 0, "skipped": 1, "texts": 1});
    assert_eq!(summary, expected);
    assert_eq!(place.json(&["import", "old.safetensors"])?["known"], 3);
    assert_eq!(place.add()?, [0, 0, 0, 0, 3, 0, 0]);
    assert_eq!(place.found(&["--image", "photos/2.png"])?[0], "2.png");
    Ok(())
}
