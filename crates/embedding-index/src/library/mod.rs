//! Keeps the vectors of folders of images in a database, which follows the folders.
//!
//! [`ImageLibrary::plan`] compares the folders with the database, [`ImageLibrary::apply`] embeds what is new, and
//! [`ImageLibrary::search`] finds images. Work is committed every second, so that a process that ends at any time
//! loses no more than that.

// Its numbers come from files and networks: none may be cut.
#![cfg_attr(not(test), warn(clippy::cast_possible_truncation))]

mod apply;
mod cells;
mod duplicates;
mod filter;
mod import;
mod made_with;
mod metadata;
mod plan;
mod problem;
mod query;
mod reading;
mod rows;
mod scan;
mod schema;
mod search;
mod stored_vector;
mod writer;

use std::io::Read;
use std::path::{Path, PathBuf};

use altclip_encoder::embedder::Embedder;
use rusqlite::Connection;

use crate::error::{Error, Result};

pub use self::apply::UpdateSummary;
pub use self::duplicates::DuplicateOptions;
pub use self::filter::LibraryFilter;
pub use self::import::ImportSummary;
pub use self::made_with::MadeWith;
pub use self::plan::UpdatePlan;
pub use self::query::QueryPart;
pub use self::search::{LibraryHit, LibraryImage, LibrarySearch};
pub use self::stored_vector::Precision;
pub use crate::error::DatabaseProblem;

use self::problem::{at, problem_at};
use self::schema::Access;
use self::writer::WriterLock;

/// Images of folders with their vectors, in a SQLite database.
///
/// Images are known by their content: a copy or a renamed file is not embedded again.
pub struct ImageLibrary {
    // Closed before the lock is released.
    connection: Connection,
    file: PathBuf,
    made_with: MadeWith,
    _lock: Option<WriterLock>,
}

/// What a library holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LibraryStatus {
    /// The folders that are followed.
    pub folders: Vec<String>,
    /// Image files that can be found.
    pub images: usize,
    /// Images with a vector: copies of the same content have one.
    pub vectors: usize,
    /// Files that cannot be read as images.
    pub unreadable: usize,
    /// The groups of similar vectors that the approximate search has; 0 if there are too few vectors to need it.
    pub cells: usize,
    /// The bytes of the database.
    pub bytes: u64,
}

impl ImageLibrary {
    /// Opens the library at `file` for searching.
    ///
    /// # Errors
    /// [`Error::Database`] if there is none, it is damaged, or a newer release made it.
    pub fn open(file: &Path) -> Result<Self> {
        Self::with(file, schema::open(file, Access::Read)?, None)
    }

    /// Opens the library at `file` for changing.
    ///
    /// # Errors
    /// Like [`open`](Self::open), and if it is read-only, or another process changes it.
    pub fn open_to_change(file: &Path) -> Result<Self> {
        // Checked first, because the lock is a file beside it.
        schema::open(file, Access::Read)?;
        let lock = WriterLock::take(file)?;
        Self::with(file, schema::open(file, Access::Write)?, Some(lock))
    }

    /// Whether the file is a database, to tell it from files of vectors.
    pub fn is_database(file: &Path) -> bool {
        const BEGIN: &[u8; 16] = b"SQLite format 3\0";
        let mut begin = [0; BEGIN.len()];
        let read = model_files::open_file(file).and_then(|mut file| file.read_exact(&mut begin));
        read.is_ok() && begin == *BEGIN
    }

    /// Whether a library can be made at `file`: there is nothing, or the empty file of a process that was killed as it
    /// began.
    pub fn can_create(file: &Path) -> bool {
        schema::is_unbegun(file)
    }

    /// Makes an empty library at `file` for vectors of a model.
    ///
    /// # Errors
    /// If there is one already, or it cannot be written.
    pub fn create(file: &Path, made_with: MadeWith) -> Result<Self> {
        let lock = WriterLock::take(file)?;
        let connection = schema::create(file, |connection| made_with.write(connection))?;
        Self::with(file, connection, Some(lock))
    }

    fn with(file: &Path, connection: Connection, lock: Option<WriterLock>) -> Result<Self> {
        let made_with = MadeWith::read(&connection).map_err(|problem| problem_at(file, problem))?;
        Ok(Self { connection, file: file.to_owned(), made_with, _lock: lock })
    }

    /// The database.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What made the vectors.
    pub fn made_with(&self) -> &MadeWith {
        &self.made_with
    }

    /// Checks that `embedder` is the model that made the vectors, by a text. [`apply`](Self::apply) also checks an image.
    ///
    /// # Errors
    /// [`Error::Database`] if it is another; also if the model fails.
    pub fn check_embedder(&self, embedder: &Embedder) -> Result<()> {
        self.made_with.check_texts(embedder)?.map_err(|problem| problem_at(&self.file, problem))
    }

    /// What the library holds.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn status(&self) -> Result<LibraryStatus> {
        let count = |query: &str| -> Result<usize> {
            self.connection.query_row(query, [], |row| row.get(0)).map_err(at(&self.file))
        };
        let bytes = ["page_count", "page_size"].map(|name| {
            self.connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0)).map_err(at(&self.file))
        });
        let [pages, page_bytes] = bytes;
        Ok(LibraryStatus {
            folders: self.folders()?,
            images: count("SELECT count(*) FROM files WHERE content IS NOT NULL")?,
            vectors: count("SELECT count(*) FROM contents")?,
            unreadable: count("SELECT count(*) FROM files WHERE content IS NULL")?,
            cells: count("SELECT count(*) FROM cells")?,
            bytes: u64::from(pages?) * u64::from(page_bytes?),
        })
    }

    /// The folders that are followed.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn folders(&self) -> Result<Vec<String>> {
        let read = || {
            let mut statement = self.connection.prepare("SELECT path FROM folders ORDER BY path")?;
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()
        };
        read().map_err(at(&self.file))
    }

    /// Forgets a folder with all images in it, or a single file. Returns the number of files forgotten. The files
    /// themselves stay.
    ///
    /// # Errors
    /// [`Error::Input`] if nothing of it is in the library; also if the database cannot be written.
    pub fn forget(&mut self, path: &Path) -> Result<usize> {
        let shown = path.display().to_string();
        let at = at(&self.file);
        let transaction = self.connection.transaction().map_err(&at)?;
        let (first, end) = rows::below(&shown);
        let files = transaction
            .execute(
                "DELETE FROM files WHERE path = ?1 OR (path >= ?2 AND path < ?3)",
                [&shown, &first, &end],
            )
            .map_err(&at)?;
        let folders = transaction.execute("DELETE FROM folders WHERE path = ?1", [&shown]).map_err(&at)?;
        if files + folders == 0 {
            return Err(Error::Input(format!("{shown}: not in this index")));
        }
        rows::drop_orphans(&transaction).map_err(&at)?;
        transaction.commit().map_err(&at)?;
        Ok(files)
    }
}

impl std::fmt::Debug for ImageLibrary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ImageLibrary({}, {:?})", self.file.display(), self.made_with.model)
    }
}
