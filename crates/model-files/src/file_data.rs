//! Holds the bytes of a file, mapped, embedded or in memory.

#![allow(unsafe_code, reason = "memory maps")]

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};
use crate::input::open_file;

/// Whether a file is what a clone without Git LFS has in place of every large file.
pub(crate) fn is_lfs_pointer(content: &[u8]) -> bool {
    content.starts_with(b"version https://git-lfs.github.com/spec")
}

/// The bytes of a model's file, with a name for errors. Dereferences to `[u8]`.
pub struct FileData {
    name: String,
    content: Content,
}

enum Content {
    Mapped(Mmap),
    Static(&'static [u8]),
    Owned(Vec<u8>),
}

impl FileData {
    /// Maps the file at `path` into memory for reading or, where that is impossible, reads it. The file must not be
    /// changed while it is mapped.
    ///
    /// # Errors
    /// If `path` is not a readable file.
    pub fn open(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = open_file(path).map_err(Error::io(&name))?;
        // SAFETY: the mapping is read-only and private. That nobody truncates or rewrites a model while it is being
        // loaded is the caller's part, as it is for every reader of memory-mapped weights.
        let content = match unsafe { Mmap::map(&file) } {
            Ok(map) => Content::Mapped(map),
            // There is no room for its content either.
            Err(error) if error.kind() == std::io::ErrorKind::OutOfMemory => {
                return Err(Error::io(&name)(error));
            }
            // Some file systems do not support mapping, and WebAssembly has none at all.
            Err(error) => {
                tracing::debug!("{name}: read, because it cannot be mapped: {error}");
                Content::Owned(read_all(&file).map_err(Error::io(&name))?)
            }
        };
        Ok(Self { name, content })
    }

    /// Bytes embedded in the program.
    pub fn embedded(name: impl Into<String>, bytes: &'static [u8]) -> Self {
        Self { name: name.into(), content: Content::Static(bytes) }
    }

    /// Bytes in memory.
    pub fn owned(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), content: Content::Owned(bytes) }
    }

    /// The file's name in errors: its path or, for an embedded file, its model and its path there.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes the whole file to `writer` in pieces, so that a large one never counts fully as this program's memory.
    ///
    /// # Errors
    /// The errors of `writer`.
    pub fn write_to(&self, writer: &mut dyn Write) -> std::io::Result<()> {
        const PIECE: usize = 8 << 20;
        for (number, piece) in self.chunks(PIECE).enumerate() {
            writer.write_all(piece)?;
            let start = number * PIECE;
            self.release(&(start..start + piece.len()));
        }
        Ok(())
    }

    /// Tells the operating system that the whole file will soon be read, so that it reads ahead.
    pub(crate) fn fetch(&self) {
        #[cfg(unix)]
        if let Content::Mapped(map) = &self.content
            && let Err(error) = map.advise(memmap2::Advice::WillNeed)
        {
            tracing::debug!("{}: cannot fetch ahead: {error}", self.name);
        }
    }

    /// Tells the operating system that the bytes in `range` are no longer needed in memory, so that a converted
    /// tensor and its source do not both count as this program's memory. They can still be read again.
    pub(crate) fn release(&self, range: &Range<usize>) {
        #[cfg(not(unix))]
        let _ = range;
        #[cfg(unix)]
        if let Content::Mapped(map) = &self.content
            && !range.is_empty()
            && range.end <= map.len()
        {
            // SAFETY: the mapping is of a file and never written to, so dropped pages come back with the same content.
            let dropped = unsafe {
                map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len())
            };
            if let Err(error) = dropped {
                tracing::debug!("{}: cannot release bytes {range:?}: {error}", self.name);
            }
        }
    }
}

/// Reads a whole file.
///
/// # Errors
/// The errors of reading, and `OutOfMemory` if there is not enough memory.
fn read_all(mut file: &File) -> std::io::Result<Vec<u8>> {
    let size = usize::try_from(file.metadata()?.len()).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|_| std::io::ErrorKind::OutOfMemory)?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Deref for FileData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.content {
            Content::Mapped(map) => map,
            Content::Static(bytes) => bytes,
            Content::Owned(bytes) => bytes,
        }
    }
}

impl fmt::Debug for FileData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileData({}, {} bytes)", self.name, self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_read_is_the_same_as_one_that_is_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for content in [&b""[..], b"weights"] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(&*FileData::open(&path).unwrap(), content);
            assert_eq!(read_all(&File::open(&path).unwrap()).unwrap(), content);
        }
    }
}
