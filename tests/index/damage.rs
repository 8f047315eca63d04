//! Tests databases that are locked, damaged, of another program, or made by a stranger.

use std::fs;

use super::Place;
use rusqlite::Connection;
use test_support::TestResult;

fn place() -> TestResult<Place> {
    let place = Place::new()?;
    for number in 0..3 {
        place.draw(&format!("{number}.png"), number)?;
    }
    place.add()?;
    Ok(place)
}

#[test]
fn what_is_no_index_is_refused() -> TestResult {
    let place = Place::new()?;
    place.draw("a.png", 1)?;
    assert!(place.refused(&["search", "cat"])?.contains("index.db: no index here"));
    fs::write(place.path("index.db"), "some text, which is no database at all")?;
    for arguments in [&["search", "cat"][..], &["add", "photos"], &["status"]] {
        let message = place.refused(arguments)?;
        let expected = "expected an index that `altdiffusion index add` made, found another kind of file";
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(fs::read(place.path("index.db"))?.len(), 38);
    // What a process leaves that was killed as it began.
    fs::write(place.path("index.db"), "")?;
    assert!(place.refused(&["search", "cat"])?.contains("found an empty file"));
    assert_eq!(place.add()?, [1, 0, 0, 0, 0, 0, 1]);
    fs::remove_file(place.path("index.db"))?;
    Connection::open(place.path("index.db"))?.execute_batch("CREATE TABLE files (path)")?;
    assert!(place.refused(&["add", "photos"])?.contains("a database of another program"));
    Ok(())
}

#[test]
fn other_models_and_newer_formats_are_refused_by_name() -> TestResult {
    let place = place()?;
    let emoji = concat!(env!("CARGO_MANIFEST_DIR"), "/models/emoji");
    for arguments in [&["search", "cat"][..], &["add", "photos"]] {
        let message = place.refused(&[arguments, &["--model", emoji]].concat())?;
        assert!(
            message.contains("made with the built-in model, and --model is") && message.contains(emoji),
            "{message}"
        );
    }
    assert!(place.refused(&["add", "--precision", "f32"])?.contains("its vectors are f16"));
    let changed = |statement: &str| -> TestResult {
        Ok(Connection::open(place.path("index.db"))?.execute_batch(statement)?)
    };
    changed("UPDATE model SET probe = zeroblob(1024)")?;
    assert!(place.refused(&["search", "cat"])?.contains("made with other weights of the built-in model"));
    changed("PRAGMA user_version = 7")?;
    assert!(
        place.refused(&["add"])?.contains("made by a newer release: its format is 7, expected at most 1")
    );
    Ok(())
}

#[test]
fn a_stranger_cannot_make_a_database_do_anything() -> TestResult {
    for (statement, expected) in [
        ("CREATE TRIGGER t AFTER INSERT ON files BEGIN DELETE FROM contents; END", "triggers or views"),
        ("CREATE VIEW v AS SELECT 1", "triggers or views"),
        ("ALTER TABLE files ADD COLUMN more TEXT", "the table files is not defined as it should be"),
        ("DROP INDEX files_by_content", "the index files_by_content"),
        ("UPDATE vectors SET vector = zeroblob(3)", "a vector of 3 bytes, expected 256"),
        ("UPDATE vectors SET vector = zeroblob(30000000)", "damaged"),
        ("UPDATE model SET width = 1000000000", "vectors of 1000000000 numbers"),
        ("UPDATE model SET background = 'plaid'", "damaged"),
        ("DELETE FROM model", "does not say what model"),
    ] {
        let place = place()?;
        Connection::open(place.path("index.db"))?.execute_batch(statement)?;
        let message = place.refused(&["search", "cat"])?;
        assert!(message.contains("damaged") && message.contains(expected), "{statement}: {message}");
    }
    // Numbers that lead nowhere are not followed.
    let place = place()?;
    let change = "PRAGMA foreign_keys = off; UPDATE contents SET id = id + 1000000, cell = -5; UPDATE vectors SET place = -place";
    Connection::open(place.path("index.db"))?.execute_batch(change)?;
    assert_eq!(place.found(&["cat"])?.len(), 0);
    Ok(())
}

#[test]
fn damaged_files_are_one_line() -> TestResult {
    let place = place()?;
    let good = fs::read(place.path("index.db"))?;
    let mut seed = 7_u64;
    for _ in 0..40 {
        let mut bytes = good.clone();
        for _ in 0..20 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (seed >> 20) as usize % bytes.len();
            bytes[at] = (seed >> 56) as u8;
        }
        bytes.truncate(good.len() - (seed >> 33) as usize % 2000);
        fs::write(place.path("index.db"), bytes)?;
        let output = place.index(&["search", "cat", "--json"])?;
        let message = String::from_utf8(output.stderr)?;
        assert!(
            matches!(output.status.code(), Some(0 | 1)) && message.lines().count() <= 1,
            "{:?} {message}",
            output.status
        );
    }
    Ok(())
}

#[test]
fn a_locked_database_is_not_waited_for_in_vain() -> TestResult {
    let place = place()?;
    place.draw("new.png", 50)?;
    let writer = Connection::open(place.path("index.db"))?;
    writer.execute_batch("BEGIN IMMEDIATE")?;
    // Readers go on.
    assert_eq!(place.found(&["cat"])?.len(), 3);
    assert!(place.refused(&["add"])?.contains("another program is writing to it"));
    writer.execute_batch("ROLLBACK")?;

    let lock = fs::File::create(place.path("index.db-writer"))?;
    lock.lock()?;
    assert!(place.refused(&["add"])?.contains("another program is writing to it"));
    drop(lock);
    assert_eq!(place.add()?, [1, 0, 0, 0, 3, 0, 1]);
    Ok(())
}
