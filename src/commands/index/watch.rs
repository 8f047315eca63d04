//! Waits for changes of folders.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use crate::progress::warn;

/// Files are often written in several steps, and many at a time.
const QUIET: Duration = Duration::from_millis(500);
/// How long to wait for quiet.
const PATIENCE: Duration = Duration::from_secs(10);

/// Changes of folders, as the system reports them.
pub struct Changes {
    reported: Receiver<()>,
    /// Reports end when it is dropped. Without it, time alone ends the wait.
    _watcher: Option<RecommendedWatcher>,
    every: Duration,
}

impl Changes {
    /// Watches folders. A system that cannot report changes of all is asked for none; then they are looked for at
    /// intervals.
    ///
    /// The database may be in one of them: its own changes are none.
    pub fn of(folders: &[String], database: &Path, every: Duration) -> Self {
        let (sender, reported) = channel();
        let database = database.canonicalize().unwrap_or_else(|_| database.to_owned());
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // An error may hide a change.
            if !event.is_ok_and(|event| !is_change(&event, &database)) {
                let _ = sender.send(());
            }
        });
        let watcher = watcher.and_then(|mut watcher| {
            for folder in folders {
                watcher.watch(Path::new(folder), RecursiveMode::Recursive)?;
            }
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            warn(&format!("changes are looked for every {}: {error}", humantime::format_duration(every)));
        }
        Self { reported, _watcher: watcher.ok(), every }
    }

    /// Waits until something has changed and all is quiet again, or for the interval.
    pub fn wait(&self) {
        let waited_for = |time| match self.reported.recv_timeout(time) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(time);
                false
            }
        };
        if !waited_for(self.every) {
            return;
        }
        let first = Instant::now();
        while first.elapsed() < PATIENCE && waited_for(QUIET) {}
    }
}

/// Whether an event may be a change. Reading a file is none, nor is what happens to the database. The event for a queue
/// that overflowed has no paths, and stands for changes that were lost.
fn is_change(event: &Event, database: &Path) -> bool {
    let name = |path: &Path| path.file_name().unwrap_or_default().as_encoded_bytes().to_owned();
    let is_of_database =
        |path: &PathBuf| path.parent() == database.parent() && name(path).starts_with(&name(database));
    let is_none = matches!(event.kind, EventKind::Access(_)) || event.paths.iter().all(is_of_database);
    event.need_rescan() || !is_none
}

#[cfg(test)]
mod tests {
    use notify::event::Flag;

    use super::*;

    #[test]
    fn a_queue_that_overflowed_stands_for_changes() {
        let database = Path::new("/photos/index.db");
        assert!(is_change(&Event::new(EventKind::Other).set_flag(Flag::Rescan), database));
        assert!(is_change(&Event::new(EventKind::Any).add_path("/photos/a.png".into()), database));
        assert!(!is_change(&Event::new(EventKind::Any).add_path("/photos/index.db-wal".into()), database));
    }

    #[test]
    fn a_new_file_ends_the_wait() -> std::io::Result<()> {
        let folder = tempfile::tempdir()?;
        let long = Duration::from_secs(60);
        let root = folder.path().canonicalize()?;
        let database = root.join("index.db");
        let changes = Changes::of(&[root.display().to_string()], &database, long);
        std::fs::write(root.join("index.db-wal"), "")?;
        assert!(changes.reported.recv_timeout(QUIET).is_err());
        std::fs::write(root.join("a.png"), "")?;
        let begun = Instant::now();
        changes.wait();
        assert!(begun.elapsed() < long);
        Ok(())
    }

    #[test]
    fn without_reports_time_ends_the_wait() {
        let short = Duration::from_millis(50);
        let changes = Changes::of(&["/no such folder".to_owned()], Path::new("index.db"), short);
        let begun = Instant::now();
        changes.wait();
        assert!(begun.elapsed() >= short);
    }
}
