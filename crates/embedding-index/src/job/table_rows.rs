//! Sends the rows of a running job to a table.

use std::path::PathBuf;
use std::time::Instant;

use candle_core::DType;

use super::MISSING;
use super::digest::digest_of_bytes;
use super::partial::JobSettings;
use super::row_sink::{Row, RowSink, is_due};
use crate::error::{Error, Result};
use crate::item::ItemKind;
use crate::pgvector::{CopyRows, Mark, PostgresTable, Session, TableRow, VectorType};

/// The longest key. PostgreSQL indexes a little more.
const MOST_KEY_BYTES: usize = 2048;

/// The rows that are not committed yet, and how far the job is with them.
pub(super) struct TableRows {
    session: Session,
    table: String,
    model: String,
    rows: CopyRows,
    mark: Mark,
    /// When the latest mark was committed, and which.
    saved: Option<Instant>,
    saved_mark: Mark,
}

impl TableRows {
    /// Starts a job, or resumes it if `resume` is set.
    ///
    /// # Errors
    /// If the table is for other vectors or another model, or the connection is lost.
    pub(super) fn open(table: &PostgresTable, settings: &JobSettings, resume: bool) -> Result<Self> {
        let job = serde_json::to_vec(settings).map_err(|error| Error::Input(error.to_string()))?;
        let is_half = settings.dtype == DType::F16.as_str();
        let preferred = if is_half { VectorType::Halfvec } else { VectorType::Vector };
        let job = digest_of_bytes(&job);
        let mut session = Session::open(table, job, settings.width, &settings.model, preferred)?;
        if !resume {
            session.forget()?;
        }
        let mark = session.mark()?;
        let rows = CopyRows::new(session.vectors());
        let (table, model) = (table.name().to_owned(), settings.model.clone());
        Ok(Self { session, table, model, rows, mark, saved: None, saved_mark: mark })
    }

    /// Ends the job, and returns what was done.
    ///
    /// # Errors
    /// If the connection is lost.
    pub(super) fn finish(mut self) -> Result<Mark> {
        self.save()?;
        self.session.forget()?;
        Ok(self.mark)
    }
}

impl RowSink for TableRows {
    fn done(&self, kind: ItemKind) -> usize {
        match kind {
            ItemKind::Text => self.mark.texts,
            ItemKind::Image => self.mark.images,
        }
    }

    fn push(&mut self, kind: ItemKind, row: Row<'_>) -> Result<()> {
        let Row { key, item, vector } = row;
        let text = (kind == ItemKind::Text).then_some(item);
        self.rows.push(TableRow { key, kind, text, vector, model: &self.model })?;
        match kind {
            ItemKind::Text => self.mark.texts += 1,
            ItemKind::Image => self.mark.images += 1,
        }
        Ok(())
    }

    fn skip(&mut self, kind: ItemKind) {
        match kind {
            ItemKind::Text => self.mark.texts += 1,
            ItemKind::Image => {
                self.mark.images += 1;
                self.mark.unreadable += 1;
            }
        }
    }

    fn save_if_due(&mut self) -> Result<()> {
        if is_due(self.saved) { self.save() } else { Ok(()) }
    }

    fn save(&mut self) -> Result<()> {
        if self.mark != self.saved_mark {
            self.session.commit(&mut self.rows, self.mark)?;
            self.saved_mark = self.mark;
        }
        self.saved = Some(Instant::now());
        Ok(())
    }

    fn place(&self) -> PathBuf {
        PathBuf::from(&self.table)
    }
}

/// What identifies a text and its key, if the database can store them.
pub(super) fn text_bytes(item: Result<Result<(String, String)>>) -> Result<Vec<u8>> {
    let Ok((key, text)) = item? else { return Ok(vec![MISSING]) };
    check_key(&key)?;
    if text.contains('\0') {
        return Err(Error::Input(format!("{key}: has a zero byte, which PostgreSQL cannot store")));
    }
    Ok([key.as_bytes(), &[0], text.as_bytes()].concat())
}

/// What identifies an image, if the database can store its name.
pub(super) fn image_bytes(path: Result<PathBuf>) -> Result<Vec<u8>> {
    let path = path?;
    check_key(&path.to_string_lossy())?;
    Ok(path.into_os_string().into_encoded_bytes())
}

fn check_key(key: &str) -> Result<()> {
    if key.len() > MOST_KEY_BYTES {
        let start: String = key.chars().take(40).collect();
        return Err(Error::Input(format!(
            "{start}…: a key of {} bytes, expected at most {MOST_KEY_BYTES}, which PostgreSQL can index",
            key.len()
        )));
    }
    if key.contains('\0') {
        return Err(Error::Input(format!("the key {key:?}: has a zero byte, which PostgreSQL cannot store")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_database_cannot_store_is_refused_before_the_work() {
        let text = |key: &str, text: &str| text_bytes(Ok(Ok((key.to_owned(), text.to_owned()))));
        assert!(text("a.txt:1", "猫").is_ok_and(|bytes| bytes == "a.txt:1\0猫".as_bytes()));
        assert!(text(&"k".repeat(2048), "").is_ok());
        for (found, expected) in [
            (text(&"k".repeat(2049), ""), "kkk…: a key of 2049 bytes, expected at most 2048"),
            (text("a.txt:7", "a\0b"), "a.txt:7: has a zero byte"),
            (text("a\0b", ""), "the key \"a\\0b\": has a zero byte"),
            (image_bytes(Ok("i".repeat(3000).into())), "a key of 3000 bytes"),
        ] {
            let error = found.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(expected), "{error}");
        }
    }
}
