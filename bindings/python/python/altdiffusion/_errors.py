"""The exceptions: each says in one line what was expected and what was found."""


class Error(Exception):
    """An error of this package."""


class InputError(Error, ValueError):
    """An argument cannot be used."""


class FileError(Error, OSError):
    """A file or a model is damaged, unreadable or not supported."""


class MissingFileError(FileError, FileNotFoundError):
    """A file or a model, or a part of it, is not there."""


class NetworkError(Error, ConnectionError):
    """The network or the hub did not deliver."""


class CancelledError(Error):
    """The work was cancelled."""


class OutOfMemoryError(Error, MemoryError):
    """There is not enough memory, on this machine or its device."""


class ForkError(Error, RuntimeError):
    """The process was forked after the package had started threads, which it lacks."""


class SkippedWarning(UserWarning):
    """Items were skipped, as `on_error="skip"` asks."""
