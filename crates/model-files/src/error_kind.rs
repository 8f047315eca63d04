//! Says whose fault an error is.

/// Whose fault an error is, for programs that answer each kind in another way, such as a server by its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller's: an argument that cannot be.
    Input,
    /// The model's, or that of another file: absent, damaged, not to be read, or of something that is not supported.
    File,
    /// The network's or the hub's.
    Network,
    /// Nobody's: the caller asked for an end.
    Cancelled,
    /// There was not enough memory, on this machine or its device.
    OutOfMemory,
    /// None of these, such as an operation that failed on the device.
    Other,
}
