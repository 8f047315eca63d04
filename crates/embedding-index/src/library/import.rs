//! Takes the vectors of images from a file that `altdiffusion embed` wrote.

use std::path::{self, Path};

use super::cells::Cells;
use super::metadata;
use super::problem::{at, problem_at};
use super::scan::FoundFile;
use super::{ImageLibrary, rows};
use crate::error::Result;
use crate::item::ItemKind;
use crate::readers::Skipped;
use crate::{Error, Index, JobObserver};

/// What was imported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportSummary {
    /// Images whose vectors were taken over.
    pub imported: usize,
    /// Images that the library had already.
    pub known: usize,
    /// Images that were left out, and why.
    pub skipped: Skipped,
    /// Texts, which a library does not hold.
    pub texts: usize,
}

impl ImageLibrary {
    /// Takes over the images of an index, which the same model must have made. Their files are read to recognize them
    /// later, but not embedded. Relative paths start at `folder`.
    ///
    /// # Errors
    /// [`Error::Database`] if another model made the index, or the database cannot be written.
    pub fn import(
        &mut self,
        index: &Index,
        folder: &Path,
        observer: &mut dyn JobObserver,
    ) -> Result<ImportSummary> {
        if index.width() != self.made_with.width {
            let (width, found) = (self.made_with.width, index.width());
            return Err(Error::Input(format!("vectors of {found} numbers, expected {width}")));
        }
        if let Some(info) = index.info() {
            let checked = self.made_with.check_name(&info.model);
            checked.map_err(|problem| problem_at(&self.file, problem))?;
        }
        let total = index.len(ItemKind::Image);
        let mut summary = ImportSummary { texts: index.len(ItemKind::Text), ..ImportSummary::default() };
        let cells = Cells::read(&self.connection, &self.made_with).map_err(at(&self.file))?;
        let transaction = self.connection.unchecked_transaction().map_err(at(&self.file))?;
        for (done, row) in index.rows(ItemKind::Image).enumerate() {
            let (name, vector) = row?;
            if done.is_multiple_of(64) {
                observer.progress(ItemKind::Image, done, total);
            }
            let path = path::absolute(folder.join(&name)).map_err(Error::io(&name))?;
            let Some(path_name) = path.to_str() else { continue };
            let (facts, _) = match metadata::read(&path) {
                Ok(read) => read,
                Err(problem) => {
                    summary.skipped.add(|| format!("{name}: {problem}"));
                    continue;
                }
            };
            let Some(bytes) = self.made_with.precision.bytes_of(&vector) else {
                summary.skipped.add(|| format!("{name}: its vector is zero or not finite"));
                continue;
            };
            let caption = metadata::caption(&path);
            let add = || -> rusqlite::Result<bool> {
                let known = rows::content_of(&transaction, &facts.hash)?;
                let content = match known {
                    Some(content) => content,
                    None => {
                        let cell = cells.nearest(&self.made_with.precision.numbers_of(&bytes));
                        rows::add_content(&transaction, &facts, cell, &bytes)?
                    }
                };
                let modified = FoundFile::caption_beside(&path);
                rows::put_file(
                    &transaction,
                    path_name,
                    facts.stamp,
                    Ok(content),
                    (caption.as_deref(), modified),
                )?;
                Ok(known.is_none())
            };
            match add().map_err(at(&self.file))? {
                true => summary.imported += 1,
                false => summary.known += 1,
            }
        }
        transaction.commit().map_err(at(&self.file))?;
        Ok(summary)
    }
}
