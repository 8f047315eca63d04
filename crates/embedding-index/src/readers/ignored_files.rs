//! Counts the files of a folder that are not images, by ending.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use altclip_encoder::images::advice;
use walkdir::DirEntry;

/// Files in a folder of images that are not read, by ending. Hidden files are not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IgnoredFiles(BTreeMap<String, usize>);

impl IgnoredFiles {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each lower-case ending, without its dot, and its number of files.
    pub fn by_ending(&self) -> impl Iterator<Item = (&str, usize)> {
        self.0.iter().map(|(ending, count)| (ending.as_str(), *count))
    }

    /// Counts a file unless it is hidden.
    pub(crate) fn add(&mut self, entry: &DirEntry, ending: String) {
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            *self.0.entry(ending).or_default() += 1;
        }
    }

    /// Resets all counts.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// For example `3 .avif, 2 .heic, 1 .txt (convert .avif and .heic images to PNG or JPEG)`, most frequent first.
impl fmt::Display for IgnoredFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: Vec<_> = self.0.iter().collect();
        counts.sort_by_key(|(_, count)| Reverse(**count));
        let count = |(ending, count): &(&String, &usize)| match ending.as_str() {
            "" => format!("{count} without an ending"),
            ending => format!("{count} .{ending}"),
        };
        match counts.as_slice() {
            [] => f.write_str("no other files"),
            counts => f.write_str(&counts.iter().map(count).collect::<Vec<_>>().join(", ")),
        }?;
        match self.0.keys().find_map(|ending| advice(ending)) {
            Some(advice) => write!(f, " ({advice})"),
            None => Ok(()),
        }
    }
}
