//! Opens the database of a library: nothing in the file is trusted.
//!
//! A `file` is a path; what it holds is its `content`, which is embedded once, however many files hold it. Files that are
//! moved keep their content. A vector's place says which cell of the approximate search it is in.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::problem::{at, problem_at};
use crate::error::{DatabaseProblem, Result};

/// Marks the databases of this program, in the header of the file.
const APPLICATION: i32 = i32::from_be_bytes(*b"aDix");
/// The format, which the header calls the user's version.
const FORMAT: i32 = 1;
/// How long to wait for another process between its transactions.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest text or vector in bytes.
const LONGEST_VALUE: i32 = 1 << 24;
/// Several vectors fit in a page.
const PAGE_BYTES: usize = 1 << 14;

/// The tables. A file is refused unless it defines them with exactly these words.
const TABLES: [(&str, &str); 6] = [
    (
        "model",
        "CREATE TABLE model (id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL, revision TEXT, \
         background TEXT NOT NULL, width INTEGER NOT NULL, precision TEXT NOT NULL, probe BLOB NOT NULL, \
         sorted INTEGER NOT NULL DEFAULT 0) STRICT",
    ),
    ("folders", "CREATE TABLE folders (path TEXT PRIMARY KEY) STRICT, WITHOUT ROWID"),
    (
        "contents",
        "CREATE TABLE contents (id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, cell INTEGER NOT NULL, \
         width INTEGER NOT NULL, height INTEGER NOT NULL, taken TEXT, description TEXT) STRICT",
    ),
    (
        "files",
        "CREATE TABLE files (path TEXT PRIMARY KEY, size INTEGER NOT NULL, modified INTEGER NOT NULL, \
         content INTEGER REFERENCES contents (id), problem TEXT, caption TEXT, caption_modified INTEGER) STRICT",
    ),
    ("cells", "CREATE TABLE cells (id INTEGER PRIMARY KEY, center BLOB NOT NULL) STRICT"),
    ("vectors", "CREATE TABLE vectors (place INTEGER PRIMARY KEY, vector BLOB NOT NULL) STRICT"),
];
const INDEX: &str = "CREATE INDEX files_by_content ON files (content)";

/// What the connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
    /// Writing, to a new file if there is none.
    Create,
}

/// Opens the database at `path`.
pub(super) fn open(path: &Path, access: Access) -> Result<Connection> {
    if !path.exists() {
        return Err(problem_at(path, DatabaseProblem::Missing));
    }
    check_file(path)?;
    let connection = connect(path, access)?;
    match marks(&connection).map_err(at(path))? {
        (APPLICATION, _) => check(path, &connection)?,
        (0, 0) => return Err(problem_at(path, DatabaseProblem::NoIndex("an empty file".to_owned()))),
        _ => return Err(problem_at(path, foreign())),
    }
    if access == Access::Write && connection.is_readonly("main").map_err(at(path))? {
        return Err(problem_at(path, DatabaseProblem::ReadOnly));
    }
    Ok(connection)
}

/// Makes the database at `path`, which `fill` fills, in one transaction. There may be an empty file, such as a killed
/// process leaves.
pub(super) fn create(
    path: &Path,
    fill: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> Result<Connection> {
    check_file(path)?;
    let connection = connect(path, Access::Create)?;
    let at = at(path);
    match marks(&connection).map_err(&at)? {
        (0, 0) => {}
        (APPLICATION, _) => {
            return Err(problem_at(
                path,
                DatabaseProblem::NoIndex("an index that is there already".to_owned()),
            ));
        }
        _ => return Err(problem_at(path, foreign())),
    }
    let tables: Vec<&str> = TABLES.iter().map(|(_, words)| *words).chain([INDEX]).collect();
    let marks = format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}");
    let make = || -> rusqlite::Result<()> {
        let transaction = connection.unchecked_transaction()?;
        transaction.execute_batch(&format!("{}; {marks}", tables.join("; ")))?;
        fill(&transaction)?;
        transaction.commit()
    };
    make().map_err(&at)?;
    Ok(connection)
}

/// Whether there is no file at `path`, or one that a killed process left before it was an index.
pub(super) fn is_unbegun(path: &Path) -> bool {
    match path.metadata() {
        Ok(metadata) if !metadata.is_file() => false,
        Ok(metadata) if metadata.len() == 0 => true,
        Ok(_) => connect(path, Access::Read)
            .is_ok_and(|connection| marks(&connection).is_ok_and(|marks| marks == (0, 0))),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn check_file(path: &Path) -> Result<()> {
    match path.exists() && !path.is_file() {
        true => Err(problem_at(path, DatabaseProblem::NoIndex("no file".to_owned()))),
        false => Ok(()),
    }
}

fn foreign() -> DatabaseProblem {
    DatabaseProblem::NoIndex("a database of another program".to_owned())
}

/// The program that made a database, and the number of its tables and the like.
fn marks(connection: &Connection) -> rusqlite::Result<(i32, i64)> {
    let application = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    Ok((application, connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?))
}

fn connect(path: &Path, access: Access) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX
        | match access {
            // Read-only connections would leave the files by which they coordinate. A file that cannot be written is
            // opened for reading in any case.
            Access::Read | Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
            Access::Create => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        };
    let at = at(path);
    let connection = Connection::open_with_flags(path, flags).map_err(&at)?;
    match prepare(&connection, access) {
        // A read-only folder has no room for the file by which readers and writers coordinate, and no writer either.
        Err(error)
            if access == Access::Read
                && error.sqlite_error_code() == Some(rusqlite::ErrorCode::CannotOpen) =>
        {
            let connection =
                Connection::open_with_flags(unchanging(path), flags | OpenFlags::SQLITE_OPEN_URI)
                    .map_err(&at)?;
            prepare(&connection, access).map_err(&at)?;
            Ok(connection)
        }
        Err(error) => Err(at(error)),
        Ok(()) => Ok(connection),
    }
}

/// The file as a URI that declares it unchanging.
fn unchanging(path: &Path) -> String {
    let path = path.display().to_string();
    let escaped: String = path
        .chars()
        .map(|c| match c {
            '%' | '?' | '#' => format!("%{:02x}", u32::from(c)),
            other => other.to_string(),
        })
        .collect();
    format!("file:{escaped}?immutable=1")
}

/// Shields the connection from what a stranger may have put into the file.
fn prepare(connection: &Connection, access: Access) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, LONGEST_VALUE)?;
    for (setting, value) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true),
    ] {
        connection.set_db_config(setting, value)?;
    }
    connection.pragma_update(None, "cell_size_check", true)?;
    if access == Access::Read {
        connection.pragma_update(None, "query_only", true)?;
    } else {
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
        // Readers go on while a batch is written; what a killed process had not committed is gone at the next opening.
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "normal")?;
    }
    // Reads the file for the first time.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// Refuses what is of another format, and definitions by which a file could run anything.
fn check(path: &Path, connection: &Connection) -> Result<()> {
    let at = at(path);
    let format: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(&at)?;
    if format > FORMAT {
        return Err(problem_at(path, DatabaseProblem::Newer { found: format, known: FORMAT }));
    }
    let damaged = |what: &str| Err(problem_at(path, DatabaseProblem::Damaged(what.to_owned())));
    let words = |kind: &str, name: &str| {
        let query = "SELECT sql FROM sqlite_schema WHERE type = ?1 AND name = ?2";
        connection.query_row(query, [kind, name], |row| row.get::<_, Option<String>>(0)).optional()
    };
    let expected = TABLES.iter().map(|(name, words)| ("table", *name, *words)).chain([(
        "index",
        "files_by_content",
        INDEX,
    )]);
    for (kind, name, expected) in expected {
        if words(kind, name).map_err(&at)?.flatten().as_deref() != Some(expected) {
            return damaged(&format!("the {kind} {name} is not defined as it should be"));
        }
    }
    let others: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema WHERE type IN ('trigger', 'view')", [], |row| {
            row.get(0)
        })
        .map_err(&at)?;
    if others > 0 {
        return damaged("it has triggers or views, which an index has not");
    }
    Ok(())
}
