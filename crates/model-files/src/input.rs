//! Opens files that users and lists name, which may turn out to be pipes and devices.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

/// How long to wait for somebody to write to a named pipe.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens a regular file.
///
/// # Errors
/// If `path` is anything else, such as a pipe, on which opening may wait forever, or cannot be read.
pub fn open_file(path: &Path) -> io::Result<File> {
    check(&std::fs::metadata(path)?)?;
    File::open(path)
}

/// Opens a file, or a pipe that is to be read once. Devices are refused, since many of them never end.
///
/// # Errors
/// If `path` is neither a file nor a pipe, nobody writes to a named pipe, or it cannot be read.
pub fn open_input(path: &Path) -> io::Result<File> {
    let found = std::fs::metadata(path)?;
    if is_pipe(&found) {
        return open_pipe(path);
    }
    check(&found)?;
    File::open(path)
}

/// Reads a file or a pipe of at most `most` bytes.
///
/// # Errors
/// Like [`open_input`]; also if there are more bytes.
pub fn read_input(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_input(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("expected at most {most} bytes, found more")));
    }
    Ok(bytes)
}

fn check(found: &std::fs::Metadata) -> io::Result<()> {
    let problem = match found.is_dir() {
        _ if found.is_file() => return Ok(()),
        true => "expected a file, found a directory",
        false if is_pipe(found) => "expected a file, found a pipe",
        false => "expected a file, found a device",
    };
    Err(io::Error::other(problem))
}

#[cfg(unix)]
fn is_pipe(found: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_fifo(&found.file_type())
}

#[cfg(not(unix))]
fn is_pipe(_: &std::fs::Metadata) -> bool {
    false
}

/// Opens a pipe. Pipes of a shell, such as `<(command)`, have their writer already; of others it is awaited.
#[cfg(unix)]
fn open_pipe(path: &Path) -> io::Result<File> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    use std::os::unix::fs::OpenOptionsExt;

    let is_of_shell = ["/dev/fd", "/dev/stdin", "/proc"].iter().any(|start| path.starts_with(start));
    if is_of_shell {
        return File::open(path);
    }
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let pipe = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path)?;
    let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    if poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&patience))? == 0 {
        let problem = format!(
            "expected a file or a pipe that is written to, found one that stayed empty for {PATIENCE:?}"
        );
        return Err(io::Error::other(problem));
    }
    fcntl_setfl(&pipe, fcntl_getfl(&pipe)? - OFlags::NONBLOCK)?;
    Ok(pipe)
}

#[cfg(not(unix))]
fn open_pipe(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn devices_and_directories_are_refused() {
        for (path, found) in [("/dev/zero", "a device"), ("/dev/null", "a device"), ("/", "a directory")] {
            for error in [open_file(Path::new(path)).err(), read_input(Path::new(path), 1).err()] {
                assert!(error.is_some_and(|error| error.to_string().ends_with(found)), "{path}");
            }
        }
    }

    #[test]
    fn pipes_are_read_and_have_a_limit() -> io::Result<()> {
        let place = tempfile::tempdir()?;
        let pipe = place.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status()?.success());
        assert!(open_file(&pipe).is_err());
        for (most, is_read) in [(3, true), (2, false)] {
            let path = pipe.clone();
            let writer = std::thread::spawn(move || std::fs::write(path, "cat"));
            let read = read_input(&pipe, most);
            assert_eq!(read.as_deref().ok(), is_read.then_some(&b"cat"[..]));
            writer.join().map_err(|_| io::Error::other("the writer panicked"))??;
        }
        Ok(())
    }
}
