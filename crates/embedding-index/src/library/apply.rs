//! Carries out the plan of an update.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::{Duration, Instant};

use altclip_encoder::embedder::Embedder;
use rusqlite::{Connection, Transaction};

use super::cells::{self, Cells};
use super::metadata::{self, Facts, Hash};
use super::plan::{Candidate, UpdatePlan};
use super::problem::{at, problem_at};
use super::reading::SharedFindings;
use super::{ImageLibrary, MadeWith, rows};
use crate::error::{Error, Result};
use crate::item::ItemKind;
use crate::job::{JobObserver, is_of_the_image};
use crate::readers::{IgnoredFiles, Skipped};

/// How often work is committed: what a process does after it is lost if the process is killed.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// What an update found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UpdateSummary {
    /// Files that were not there before. Copies of known images are not embedded again.
    pub new: usize,
    /// Files with another content than before.
    pub changed: usize,
    /// Files that were there before under another path.
    pub renamed: usize,
    /// Files that are no longer there.
    pub gone: usize,
    /// Files with the same content as before.
    pub unchanged: usize,
    /// Files that are no images or damaged, now or since an earlier update. They are not tried again until they change.
    pub unreadable: Skipped,
    /// Files and folders that cannot be listed, opened or recorded. The next update tries them again.
    pub skipped: Skipped,
    /// Images that were embedded.
    pub embedded: usize,
    /// Transparent images without a background, whose hidden colours were used.
    pub transparent: usize,
    /// Files that are not images.
    pub ignored: IgnoredFiles,
}

impl ImageLibrary {
    /// Carries out a plan. Images are embedded with `embedder`, which must be the model that made the library; a plan
    /// without files to read needs none.
    ///
    /// Work is committed every second. If this fails, or the process is killed, the next plan goes on from there.
    ///
    /// # Errors
    /// If there is no embedder but files to read; [`Error::Database`] if it is another model, or the database cannot be
    /// written. [`Error::Stopped`] if the observer stopped it. Also if the model fails.
    pub fn apply(
        &mut self,
        plan: UpdatePlan,
        embedder: Option<&Embedder>,
        observer: &mut dyn JobObserver,
    ) -> Result<UpdateSummary> {
        let embedder = match embedder {
            Some(embedder) => {
                let checked = self.made_with.check_weights(embedder)?;
                checked.map_err(|problem| problem_at(&self.file, problem))?;
                Some(embedder.clone().with_background(self.made_with.background))
            }
            None if plan.candidates.is_empty() => None,
            None => return Err(Error::Input("expected an embedder, for there are files to read".to_owned())),
        };
        let mut update = Update {
            made_with: &self.made_with,
            cells: Cells::read(&self.connection, &self.made_with).map_err(at(&self.file))?,
            candidates: &plan.candidates,
            summary: UpdateSummary {
                unchanged: plan.unchanged,
                ignored: plan.scan.ignored.clone(),
                ..UpdateSummary::default()
            },
            done: 0,
            copies: Vec::new(),
            failed: HashMap::new(),
            found_again: Vec::new(),
        };
        for (path, problem) in &plan.scan.unlisted {
            update.summary.skipped.add(|| format!("{}: {problem}", path.display()));
        }
        for (path, problem) in &plan.still_unreadable {
            update.summary.unreadable.add(|| format!("{path}: {problem}"));
        }
        let mut batch = Batch::begin(&self.connection, &self.file)?;
        update.prepare(&batch, &plan).map_err(at(&self.file))?;
        if let Some(embedder) = &embedder {
            update.embed(&mut batch, embedder, observer)?;
        }
        update.finish(&batch, &plan.gone).map_err(at(&self.file))?;
        batch.commit()?;
        let summary = update.summary;
        cells::sort_if_due(&self.connection, &self.made_with, &self.file)?;
        Ok(summary)
    }
}

/// A transaction, which is committed and begun again.
struct Batch<'a> {
    file: &'a Path,
    transaction: Transaction<'a>,
    begun: Instant,
}

impl<'a> Batch<'a> {
    fn begin(connection: &'a Connection, file: &'a Path) -> Result<Self> {
        let transaction = connection.unchecked_transaction().map_err(at(file))?;
        Ok(Self { file, transaction, begun: Instant::now() })
    }

    fn commit(self) -> Result<()> {
        self.transaction.commit().map_err(at(self.file))
    }

    fn commit_if_due(&mut self) -> Result<bool> {
        if self.begun.elapsed() < COMMIT_EVERY {
            return Ok(false);
        }
        self.transaction.execute_batch("COMMIT; BEGIN").map_err(at(self.file))?;
        self.begun = Instant::now();
        Ok(true)
    }
}

impl std::ops::Deref for Batch<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.transaction
    }
}

/// An update at work.
struct Update<'a> {
    made_with: &'a MadeWith,
    cells: Cells,
    candidates: &'a [Candidate],
    summary: UpdateSummary,
    /// Candidates that are done.
    done: usize,
    /// Copies of images whose vectors have not come yet.
    copies: Vec<(usize, Facts)>,
    /// Contents that are no images, and why.
    failed: HashMap<Hash, String>,
    /// The contents of new files that were known before: the files may have been renamed.
    found_again: Vec<i64>,
}

impl<'a> Update<'a> {
    fn prepare(&mut self, batch: &Batch<'_>, plan: &UpdatePlan) -> rusqlite::Result<()> {
        for folder in &plan.folders {
            batch.execute("INSERT OR IGNORE INTO folders (path) VALUES (?1)", [folder])?;
        }
        for (path, found) in &plan.recaptioned {
            batch.execute(
                "UPDATE files SET caption = ?2, caption_modified = ?3 WHERE path = ?1",
                (path, metadata::caption(Path::new(path)), found.caption_modified),
            )?;
        }
        Ok(())
    }

    fn embed(
        &mut self,
        batch: &mut Batch<'_>,
        embedder: &Embedder,
        observer: &mut dyn JobObserver,
    ) -> Result<()> {
        let total = self.candidates.len();
        observer.progress(ItemKind::Image, 0, total);
        let known = known_hashes(batch).map_err(at(batch.file))?;
        let findings = SharedFindings::default();
        let paths = self.candidates.iter().map(|candidate| candidate.path.clone()).collect();
        let mut stream = embedder.image_stream(findings.read(paths, known));
        for (path, vector) in stream.by_ref() {
            let Some((number, facts)) = findings.take(&path) else { continue };
            match vector {
                Ok(vector) => self.add(batch, number, &facts, &vector, observer)?,
                Err(error) if is_of_the_image(&error) => {
                    let problem = problem_of(&error, &path);
                    observer.skipped(&error.into());
                    self.fail(batch, number, &facts, &problem).map_err(at(batch.file))?;
                    self.failed.insert(facts.hash, problem);
                }
                Err(source) => {
                    let item = path.display().to_string();
                    return Err(Error::Item { item, source: source.into() });
                }
            }
            self.add_others(batch, &findings, observer)?;
            if batch.commit_if_due()? {
                observer.progress(ItemKind::Image, self.done, total);
                if observer.should_stop() {
                    return Err(Error::Stopped { folder: batch.file.to_owned() });
                }
            }
        }
        self.add_others(batch, &findings, observer)?;
        self.summary.transparent = stream.transparent();
        // Copies of files that are no images.
        for (number, facts) in std::mem::take(&mut self.copies) {
            let problem = self.failed.get(&facts.hash).cloned();
            // Without a reason to record, the next run tries again.
            match problem {
                Some(problem) => self.fail(batch, number, &facts, &problem).map_err(at(batch.file))?,
                None => self.skip(number, "the same image as one whose vector is not finite"),
            }
        }
        observer.progress(ItemKind::Image, self.done, total);
        Ok(())
    }

    /// Adds an image with a new content.
    fn add(
        &mut self,
        batch: &Batch<'_>,
        number: usize,
        facts: &Facts,
        vector: &[f32],
        observer: &mut dyn JobObserver,
    ) -> Result<()> {
        let Some(bytes) = self.made_with.precision.bytes_of(vector) else {
            let problem = "its vector is not finite: f16 may have overflowed, use bf16 or f32; or the weights are damaged";
            if let Some(candidate) = self.candidates.get(number) {
                observer.skipped(&Error::format(&candidate.path, problem));
            }
            self.skip(number, problem);
            return Ok(());
        };
        let cell = self.cells.nearest(&self.made_with.precision.numbers_of(&bytes));
        let added = rows::add_content(batch, facts, cell, &bytes)
            .and_then(|content| self.link(batch, number, facts, content, true));
        added.map_err(at(batch.file))?;
        self.summary.embedded += 1;
        Ok(())
    }

    /// Adds copies of contents that are in the database by now, and counts files that cannot be read.
    fn add_others(
        &mut self,
        batch: &Batch<'_>,
        findings: &SharedFindings,
        observer: &mut dyn JobObserver,
    ) -> Result<()> {
        for (number, problem) in findings.take_unread() {
            if let Some(candidate) = self.candidates.get(number) {
                observer.skipped(&Error::format(&candidate.path, &problem));
            }
            // Not recorded: permissions may change without the file.
            self.skip(number, &problem);
        }
        let waiting = std::mem::take(&mut self.copies);
        for (number, facts) in waiting.into_iter().chain(findings.take_copies()) {
            match rows::content_of(batch, &facts.hash).map_err(at(batch.file))? {
                Some(content) => {
                    self.link(batch, number, &facts, content, false).map_err(at(batch.file))?;
                }
                None => self.copies.push((number, facts)),
            }
        }
        Ok(())
    }

    /// Records that a file has this content.
    fn link(
        &mut self,
        batch: &Batch<'_>,
        number: usize,
        facts: &Facts,
        content: i64,
        is_new_content: bool,
    ) -> rusqlite::Result<()> {
        let Some(Candidate { path, found, before }) = self.candidates.get(number) else { return Ok(()) };
        let caption = found.caption_modified.and_then(|_| metadata::caption(Path::new(path)));
        let caption = (caption.as_deref(), found.caption_modified);
        rows::put_file(batch, path, facts.stamp, Ok(content), caption)?;
        self.done += 1;
        match before {
            Some(before) if *before == Some(content) => self.summary.unchanged += 1,
            Some(_) => self.summary.changed += 1,
            None => {
                self.summary.new += 1;
                if !is_new_content {
                    self.found_again.push(content);
                }
            }
        }
        Ok(())
    }

    /// Records that a file cannot be read, so that it is not tried again until it changes.
    fn fail(
        &mut self,
        batch: &Batch<'_>,
        number: usize,
        facts: &Facts,
        problem: &str,
    ) -> rusqlite::Result<()> {
        if let Some(Candidate { path, found, .. }) = self.candidates.get(number) {
            let caption = (None, found.caption_modified);
            rows::put_file(batch, path, facts.stamp, Err(problem), caption)?;
        }
        let path = self.path_of(number);
        self.summary.unreadable.add(|| format!("{path}: {problem}"));
        self.done += 1;
        Ok(())
    }

    /// Leaves a file to the next update.
    fn skip(&mut self, number: usize, problem: &str) {
        let path = self.path_of(number);
        self.summary.skipped.add(|| format!("{path}: {problem}"));
        self.done += 1;
    }

    fn path_of(&self, number: usize) -> &'a str {
        self.candidates.get(number).map_or("", |candidate| candidate.path.as_str())
    }

    /// Forgets what is gone, and tells files that were renamed from new ones.
    fn finish(&mut self, batch: &Batch<'_>, gone: &[(String, Option<i64>)]) -> rusqlite::Result<()> {
        let mut lost: HashMap<i64, usize> = HashMap::new();
        for (path, content) in gone {
            batch.prepare_cached("DELETE FROM files WHERE path = ?1")?.execute([path])?;
            if let Some(content) = content {
                *lost.entry(*content).or_default() += 1;
            }
        }
        self.summary.gone = gone.len();
        for content in &self.found_again {
            if let Some(count) = lost.get_mut(content).filter(|count| **count > 0) {
                *count -= 1;
                self.summary.renamed += 1;
                self.summary.new -= 1;
                self.summary.gone -= 1;
            }
        }
        rows::drop_orphans(batch)?;
        Ok(())
    }
}

fn known_hashes(connection: &Connection) -> rusqlite::Result<HashSet<Hash>> {
    let mut statement = connection.prepare("SELECT hash FROM contents")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// The error without the path, which is recorded beside it.
fn problem_of(error: &altclip_encoder::Error, path: &Path) -> String {
    let message = error.to_string();
    let prefix = format!("{}: ", path.display());
    message.strip_prefix(&prefix).unwrap_or(&message).to_owned()
}
