//! Defines how a mock hub answers.

/// How a mock hub answers.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub ranges: Ranges,
    pub encoding: Encoding,
    pub redirect: Redirect,
    pub etag: Etag,
    pub length: Length,
    /// The path prefix of a mirror.
    pub prefix: &'static str,
    /// Whether there is an API that lists files.
    pub api: bool,
    /// Whether answers name the commit of a file.
    pub commit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ranges {
    Honoured,
    Ignored,
    /// Honoured, without `Content-Range`.
    Unsaid,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Encoding {
    Plain,
    /// Compressed for clients that accept it.
    Gzip,
    /// Always compressed.
    AlwaysGzip,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Redirect {
    No,
    Relative,
    /// To the same server under another name.
    OtherHost,
    Loop,
    /// From https:// to http://.
    Unprotected,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Etag {
    Sha256,
    Sha1,
    Git,
    Weak,
    Opaque,
    Absent,
    /// A path that leads out of the cache.
    Escaping,
    /// The hash of something else.
    Wrong,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    Announced,
    Chunked,
    /// The end of the connection marks the end of the file.
    Unsaid,
    /// One byte too many.
    Wrong,
}

/// What happens to content requests, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// The connection ends after this many bytes.
    EndsAfter(usize),
    /// The connection is reset after this many bytes.
    ResetAfter(usize),
    /// A status, with `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// Too many requests, as the hub itself says it: the limit is lifted in so many seconds.
    Limited(u64),
    Silence,
    /// One byte is wrong.
    Garbled,
}

impl Default for Manner {
    /// Like the hub itself, with an API, and hashes as ETags.
    fn default() -> Self {
        Self {
            ranges: Ranges::Honoured,
            encoding: Encoding::Plain,
            redirect: Redirect::No,
            etag: Etag::Sha256,
            length: Length::Announced,
            prefix: "",
            api: true,
            commit: true,
        }
    }
}
