//! Tests that however a folder changed, an index that followed it equals one made anew.

use std::collections::BTreeMap;
use std::fs;

use super::{Place, age, picture};
use rusqlite::Connection;
use test_support::TestResult;

/// The hash and the size of each file's content.
type Contents = BTreeMap<String, (Vec<u8>, u32, u32)>;

fn contents(place: &Place, database: &str) -> TestResult<(Contents, i64)> {
    let connection = Connection::open(place.path(database))?;
    let mut statement = connection.prepare(
        "SELECT path, hash, width, height FROM files JOIN contents ON contents.id = content \
         JOIN vectors ON place = cell * (1 << 40) + contents.id",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?))))?;
    let vectors = connection.query_row("SELECT count(*) FROM vectors", [], |row| row.get(0))?;
    Ok((rows.collect::<rusqlite::Result<_>>()?, vectors))
}

#[test]
fn following_changes_equals_beginning_anew() -> TestResult {
    let place = Place::new()?;
    let mut seed = 11_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for round in 0..10 {
        for _ in 0..12 {
            let name = |number: u64| place.path("photos").join(format!("{}/{number}.png", number % 3));
            let (one, other) = (name(random(20)), name(random(20)));
            fs::create_dir_all(one.parent().ok_or("a folder")?)?;
            fs::create_dir_all(other.parent().ok_or("a folder")?)?;
            match random(6) {
                0 | 1 => picture(random(1000) as u32).save(&one)?,
                2 if one.exists() => fs::rename(&one, &other)?,
                3 if one.exists() => fs::copy(&one, &other).map(drop)?,
                4 if one.exists() => fs::remove_file(&one)?,
                _ => fs::write(&one, format!("no image {}", random(5)))?,
            }
            // Some are old, and some may have been changed this instant.
            if one.exists() && random(2) == 0 {
                age(&one)?;
            }
        }
        place.add()?;
        let anew = place.path("anew.db");
        for leftover in ["anew.db", "anew.db-wal", "anew.db-shm"] {
            let _ = fs::remove_file(place.path(leftover));
        }
        let arguments = ["index", "add", "photos", "--database", "anew.db"];
        assert!(super::altdiffusion(place.0.path()).args(arguments).output()?.status.success());
        assert!(anew.exists());
        assert_eq!(contents(&place, "index.db")?, contents(&place, "anew.db")?, "round {round}");
    }
    Ok(())
}
