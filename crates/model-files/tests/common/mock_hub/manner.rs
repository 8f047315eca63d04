//! Says how a hub answers.

/// How a hub answers.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub ranges: Ranges,
    pub encoding: Encoding,
    pub redirect: Redirect,
    pub etag: Etag,
    pub length: Length,
    /// The path that a mirror is under.
    pub prefix: &'static str,
    /// Whether there is an API that lists files.
    pub api: bool,
    /// Whether it says of which commit a file is.
    pub commit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ranges {
    Honoured,
    Ignored,
    /// Honoured, without saying which.
    Unsaid,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Encoding {
    Plain,
    /// Compressed for those who accept it.
    Gzip,
    /// Compressed for all.
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
    /// A path out of the cache.
    Escaping,
    /// The hash of something else.
    Wrong,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    Announced,
    Chunked,
    /// The end of the connection is the end of the file.
    Unsaid,
    /// One byte more than there is.
    Wrong,
}

/// What happens to a request for content, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// The connection ends after so many bytes.
    EndsAfter(usize),
    /// The connection is reset after so many bytes.
    ResetAfter(usize),
    /// A status, with `Retry-After` in seconds.
    Status(u16, Option<u64>),
    Silence,
    /// A byte is another.
    Garbled,
}

impl Default for Manner {
    /// As the hub itself, with an API, and hashes for ETags.
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
