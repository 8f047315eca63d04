//! Downloads a file into the cache: resumes, verifies length and hash, and moves it into place only when it is
//! complete.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use ureq::http::HeaderMap;
use ureq::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, TRANSFER_ENCODING};

use super::bar::Bar;
use super::cache::{Lock, RepositoryCache, remove};
use super::client::{Answer, Ask, Client};
use super::decimal_bytes::decimal_bytes;
use super::digest::{Expected, Hasher, name_of};
use super::failure::Failure;
use super::url::Url;

/// Bytes read, hashed and written at a time.
const CHUNK: usize = 1 << 20;

/// A file to download.
#[derive(Clone, Debug)]
pub(crate) struct FileVersion {
    /// The path in the repository.
    pub path: String,
    pub commit: String,
    pub url: Url,
    /// The version's name, if the server has one that no other content has.
    pub etag: Option<String>,
    pub size: Option<u64>,
    pub hash: Option<Expected>,
}

impl FileVersion {
    /// The version's name while it is written.
    fn key(&self) -> String {
        let unnamed = || format!("unnamed-{}", name_of(&format!("{}/{}", self.commit, self.path)));
        self.etag.clone().unwrap_or_else(unnamed)
    }

    /// The bytes still to download, if known.
    pub(super) fn missing_bytes(&self, cache: &RepositoryCache) -> Option<u64> {
        let size = self.size?;
        match cache.has_blob(&self.key(), self.size) {
            true => Some(0),
            false => Some(size.saturating_sub(cache.begun(&self.key()))),
        }
    }
}

/// Downloads a file into the cache, and returns its path there, advancing `bar`.
pub(super) fn download(
    client: &Client,
    cache: &RepositoryCache,
    file: &FileVersion,
    bar: &Bar,
    wait: impl FnOnce(),
) -> Result<PathBuf, Failure> {
    let key = file.key();
    // Hold the lock until the file is in place: another process may be waiting for it.
    let lock = cache.lock(&key, wait)?;
    if cache.has_blob(&key, file.size) {
        bar.inc(file.size.unwrap_or(0));
        return cache.link(&key, &file.commit, &file.path);
    }
    // Without a hash, resuming from another version would go unnoticed.
    let may_resume = file.hash.is_some();
    let mut result = Transfer::begin(client, cache, file, &lock, may_resume, bar)?.run();
    if let Err((Failure::Content(_), resumed)) = &result
        && *resumed > 0
    {
        // The interrupted run's data was wrong, or wrongly resumed.
        result = Transfer::begin(client, cache, file, &lock, false, bar)?.run();
    }
    let (path, sha256) = result.map_err(|(failure, _)| failure)?;
    let etag = file.etag.clone().or(sha256).unwrap_or(key);
    cache.keep(&path, &etag)?;
    cache.link(&etag, &file.commit, &file.path)
}

/// A download in progress.
struct Transfer<'a> {
    client: &'a Client,
    source: &'a FileVersion,
    bar: &'a Bar,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    written: u64,
    /// Bytes from an interrupted run.
    resumed: u64,
    /// The total length, as announced with the content.
    announced: Option<u64>,
}

impl<'a> Transfer<'a> {
    fn begin(
        client: &'a Client,
        cache: &RepositoryCache,
        source: &'a FileVersion,
        lock: &Lock,
        resume: bool,
        bar: &'a Bar,
    ) -> Result<Self, Failure> {
        let path = cache.incomplete(&source.key(), lock, resume)?;
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open.map_err(Failure::local(&path))?;
        let hasher = Hasher::new(source.hash.as_ref(), source.size);
        let mut transfer =
            Self { client, source, bar, path, file, hasher, written: 0, resumed: 0, announced: None };
        transfer.take_up()?;
        Ok(transfer)
    }

    /// Hashes the existing bytes.
    fn take_up(&mut self) -> Result<(), Failure> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = self.file.read(&mut buffer).map_err(Failure::local(&self.path))?;
            if read == 0 {
                break;
            }
            self.hasher.update(&buffer[..read]);
            self.written += read as u64;
        }
        self.bar.inc(self.written);
        if self.source.size.is_some_and(|size| self.written > size) {
            self.restart()?;
        }
        self.resumed = self.written;
        Ok(())
    }

    /// Discards the existing bytes.
    fn restart(&mut self) -> Result<(), Failure> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(Failure::local(&self.path))?;
        self.bar.dec(self.written);
        self.hasher = Hasher::new(self.source.hash.as_ref(), self.source.size);
        self.written = 0;
        Ok(())
    }

    /// Downloads until the file is complete. Returns the path and the SHA-256, or the failure and the bytes from an
    /// interrupted run.
    fn run(mut self) -> Result<(PathBuf, Option<String>), (Failure, u64)> {
        let resumed = self.resumed;
        self.get_all().map_err(|failure| {
            // Without a hash, wrong content would go unnoticed.
            if matches!(failure, Failure::Content(_)) || self.source.hash.is_none() {
                self.forget();
            }
            (failure, resumed)
        })?;
        let Self { hasher, path, bar, written, .. } = self;
        match hasher.finish(&path) {
            Ok(sha256) => Ok((path, sha256)),
            Err(failure) => {
                bar.dec(written);
                remove(&path);
                Err((failure, resumed))
            }
        }
    }

    fn forget(&mut self) {
        self.bar.dec(self.written);
        remove(&self.path);
    }

    fn get_all(&mut self) -> Result<(), Failure> {
        let (mut tries, mut best) = (0, self.written);
        loop {
            let failure = match self.get() {
                Ok(()) => return Ok(()),
                Err(failure) if failure.may_pass(true) => failure,
                Err(failure) => return Err(failure),
            };
            // Keep trying as long as there is progress.
            if self.written > best {
                (tries, best) = (0, self.written);
            }
            if tries >= self.client.retries() {
                return Err(failure);
            }
            tracing::debug!("{}: {failure:?} after {} bytes", self.source.path, self.written);
            self.client.wait(&failure, tries)?;
            tries += 1;
        }
    }

    /// Requests the missing part, and receives it.
    fn get(&mut self) -> Result<(), Failure> {
        let size = self.source.size.or(self.announced);
        if self.written > 0 && size == Some(self.written) {
            return Ok(());
        }
        let mut answer = self.client.follow(&self.source.url, Ask::ContentFrom(self.written))?;
        let is_encoded = is_encoded(&answer.headers);
        match answer.status {
            // Part of a compressed file is not part of the original.
            206 if !is_encoded && range_start(&answer.headers).is_none_or(|first| first == self.written) => {}
            206 | 416 => {
                // It starts elsewhere, or the server says that there is no more, which the hash will verify.
                if answer.status == 416 && size.is_none() && self.source.hash.is_some() {
                    return Ok(());
                }
                self.restart()?;
                answer = self.client.follow(&self.source.url, Ask::ContentFrom(0))?;
            }
            _ => self.restart()?,
        }
        if !(200..300).contains(&answer.status) {
            return Err(Failure::Status {
                status: answer.status,
                code: None,
                message: None,
                retry_after: None,
            });
        }
        self.take(answer)
    }

    fn take(&mut self, answer: Answer) -> Result<(), Failure> {
        let Answer { headers, body, .. } = answer;
        let is_encoded = is_encoded(&headers);
        if !is_encoded {
            let length = number(&headers, CONTENT_LENGTH).map(|length| self.written.saturating_add(length));
            self.announced = length.or(self.announced);
            if let (Some(length), Some(expected)) = (length, self.source.size)
                && length != expected
            {
                return Err(Failure::Content(format!("it sends {length} bytes, expected {expected}")));
            }
        }
        let has_end = headers.contains_key(TRANSFER_ENCODING) || headers.contains_key(CONTENT_LENGTH);
        let body = body.into_reader();
        let mut body: Box<dyn Read> =
            if is_encoded { Box::new(MultiGzDecoder::new(body)) } else { Box::new(body) };

        let size = self.source.size.or(self.announced);
        let mut buffer = vec![0; CHUNK];
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let limit = self.client.download_timeout();
                    return Err(match Failure::of_request(ureq::Error::from(error), limit) {
                        Failure::Silent(limit) => Failure::Silent(limit),
                        // There was a connection, so the server can be reached.
                        _ => self.broken(size),
                    });
                }
            };
            self.written += read as u64;
            self.bar.inc(read as u64);
            if size.is_some_and(|size| self.written > size) {
                let problem = format!("it sends more than the {} bytes expected", size.unwrap_or(0));
                return Err(Failure::Content(problem));
            }
            let bytes = &buffer[..read];
            self.hasher.update(bytes);
            self.file.write_all(bytes).map_err(Failure::local(&self.path))?;
        }
        match size {
            Some(size) if self.written < size => Err(self.broken(Some(size))),
            None if !has_end && self.source.hash.is_none() => Err(Failure::Content(
                "it tells neither length nor hash of the file, so that nobody can know whether all of it came".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    fn broken(&self, size: Option<u64>) -> Failure {
        let whole = size.map_or_else(|| "an unknown number of".to_owned(), |size| size.to_string());
        Failure::Broken(format!("it ended after {} of {whole} bytes", self.written))
    }
}

fn is_encoded(headers: &HeaderMap) -> bool {
    let encoding = headers.get(CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity"))
}

/// The first byte in `Content-Range: bytes 5-9/10`. Some servers leave it out.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    range.trim_start_matches("bytes").trim().split_once('-')?.0.trim().parse().ok()
}

fn number(headers: &HeaderMap, name: ureq::http::HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// The size announced by headers, if they describe the uncompressed file.
pub(super) fn announced_size(headers: &HeaderMap) -> Option<u64> {
    if is_encoded(headers) { None } else { number(headers, CONTENT_LENGTH) }
}

/// Checks that there is room for this many bytes; `path` is used in the error.
pub(super) fn check_space(cache: &RepositoryCache, path: &Path, needed: u64) -> Result<(), Failure> {
    match cache.free_space() {
        Some(free) if free < needed => Err(Failure::Local(format!(
            "{}: not enough space: {} to download, {} free",
            path.display(),
            decimal_bytes(needed),
            decimal_bytes(free)
        ))),
        _ => Ok(()),
    }
}
