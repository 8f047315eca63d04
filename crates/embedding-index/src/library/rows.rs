//! Shares statements in SQL among the parts of a library.

use std::path::MAIN_SEPARATOR;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::metadata::{Facts, Hash, Stamp};
use super::scan::FoundFile;

/// A vector's place is its cell times this, and its content's number.
const PLACES: i64 = 1 << 40;

/// Where the vector of this content in this cell is.
pub(super) fn place(cell: i64, content: i64) -> i64 {
    cell.wrapping_mul(PLACES).wrapping_add(content)
}

/// The first and the last place of a cell.
pub(super) fn places(cell: i64) -> (i64, i64) {
    (place(cell, 0), place(cell, PLACES - 1))
}

/// The content at a place.
pub(super) fn content_at(place: i64) -> i64 {
    place.rem_euclid(PLACES)
}

/// The first and the end of the paths below a folder.
pub(super) fn below(folder: &str) -> (String, String) {
    let folder = folder.trim_end_matches(MAIN_SEPARATOR);
    // The character after the separator.
    let end = char::from_u32(u32::from(MAIN_SEPARATOR) + 1).unwrap_or(char::MAX);
    (format!("{folder}{MAIN_SEPARATOR}"), format!("{folder}{end}"))
}

/// The content with this hash.
pub(super) fn content_of(connection: &Connection, hash: &Hash) -> rusqlite::Result<Option<i64>> {
    let mut statement: CachedStatement<'_> =
        connection.prepare_cached("SELECT id FROM contents WHERE hash = ?1")?;
    statement.query_row([hash], |row| row.get(0)).optional()
}

/// Adds a content with its vector, and returns its number.
pub(super) fn add_content(
    connection: &Connection,
    facts: &Facts,
    cell: i64,
    vector: &[u8],
) -> rusqlite::Result<i64> {
    let (width, height) = facts.size;
    connection
        .prepare_cached(
            "INSERT INTO contents (hash, cell, width, height, taken, description) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![facts.hash, cell, width, height, facts.taken, facts.description])?;
    let content = connection.last_insert_rowid();
    connection
        .prepare_cached("INSERT INTO vectors (place, vector) VALUES (?1, ?2)")?
        .execute(params![place(cell, content), vector])?;
    Ok(content)
}

/// Records a file: either with a content, or with the reason why it has none.
pub(super) fn put_file(
    connection: &Connection,
    path: &str,
    stamp: Stamp,
    outcome: Result<i64, &str>,
    caption: (Option<&str>, Option<i64>),
) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO files (path, size, modified, content, problem, caption, caption_modified) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (path) DO UPDATE SET size = ?2, modified = ?3, \
             content = ?4, problem = ?5, caption = ?6, caption_modified = ?7",
        )?
        .execute(params![
            path,
            stamp.size,
            stamp.modified,
            outcome.ok(),
            outcome.err(),
            caption.0,
            caption.1
        ])?;
    Ok(())
}

/// A file as it is recorded.
#[derive(Debug, Clone)]
pub(super) struct KnownFile {
    pub(super) found: FoundFile,
    pub(super) content: Option<i64>,
    pub(super) problem: Option<String>,
}

/// Removes contents that no file has.
pub(super) fn drop_orphans(connection: &Connection) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare(
        "SELECT id, cell FROM contents WHERE NOT EXISTS (SELECT 1 FROM files WHERE files.content = contents.id)",
    )?;
    let orphans: Vec<(i64, i64)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    let mut drop_vector = connection.prepare("DELETE FROM vectors WHERE place = ?1")?;
    let mut drop_content = connection.prepare("DELETE FROM contents WHERE id = ?1")?;
    for (content, cell) in &orphans {
        drop_vector.execute([place(*cell, *content)])?;
        drop_content.execute([content])?;
    }
    Ok(orphans.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_hold_cell_and_content() {
        let (first, last) = places(3);
        for content in [1, 77, PLACES - 1] {
            let place = place(3, content);
            assert!((first..=last).contains(&place));
            assert_eq!(content_at(place), content);
        }
        assert_eq!(places(4).0, last + 1);
    }

    #[cfg(unix)]
    #[test]
    fn paths_below_a_folder_are_between_its_ends() {
        let (first, end) = below("/photos");
        for (path, is_below) in [
            ("/photos/a", true),
            ("/photos/", true),
            ("/photos", false),
            ("/photos.old/a", false),
            ("/photos0", false),
        ] {
            assert_eq!(first.as_str() <= path && path < end.as_str(), is_below, "{path}");
        }
    }
}
