//! Classifies errors by who can fix them.

/// Who can fix an error, so that programs can respond by kind, such as a server with its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller: an invalid argument.
    Input,
    /// A model or another file: missing, damaged, unreadable, or unsupported.
    File,
    /// The network or the hub.
    Network,
    /// Nobody: the caller cancelled.
    Cancelled,
    /// Out of memory, on this machine or its device.
    OutOfMemory,
    /// Anything else, such as an operation that failed on the device.
    Other,
}
