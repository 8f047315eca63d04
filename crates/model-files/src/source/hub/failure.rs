//! Explains why the hub did not deliver.

use std::io;
use std::path::Path;
use std::time::Duration;

use ureq::Timeout;

use crate::error_kind::ErrorKind;

/// Why the hub did not deliver. None of these contains a token or a password.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// No connection: no network, unknown host, connection refused, or untrusted certificate.
    Unreachable(String),
    /// The server was silent for this long.
    Silent(Duration),
    /// The connection broke.
    Broken(String),
    /// The server's answer was an error; `message` is its own words for people.
    Status { status: u16, code: Option<String>, message: Option<String>, retry_after: Option<Duration> },
    /// The server is not a hub.
    NoHub(String),
    /// The content is not what was announced.
    Content(String),
    /// A local file could not be read or written.
    Local(String),
}

impl Failure {
    /// For `map_err`: `path` could not be read or written.
    pub(super) fn local(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |error| Self::Local(format!("{path}: {error}"))
    }

    /// Converts an error of the HTTP library; `limit` is the timeout.
    pub(super) fn of_request(error: ureq::Error, limit: Duration) -> Self {
        use ureq::Error;
        match error {
            Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
                Self::Unreachable(format!("no connection within {} s", limit.as_secs_f32()))
            }
            Error::Timeout(_) => Self::Silent(limit),
            Error::HostNotFound => Self::Unreachable("there is no host of this name".to_owned()),
            Error::Io(error) => Self::of_io(&error, limit),
            Error::Rustls(error) => Self::Unreachable(untrusted(&error.to_string())),
            Error::Protocol(error) => Self::NoHub(format!("it does not speak HTTP: {error}")),
            Error::LargeResponseHeader(..) => Self::NoHub("its headers have no end".to_owned()),
            error => Self::Unreachable(error.to_string()),
        }
    }

    /// Names the proxy, if the connection was to go through one: it may be the one that cannot be reached.
    pub(super) fn through(self, proxy: Option<&str>) -> Self {
        match (self, proxy) {
            (Self::Unreachable(problem), Some(proxy)) => {
                Self::Unreachable(format!("{problem}; the proxy is {proxy}"))
            }
            (failure, _) => failure,
        }
    }

    fn of_io(error: &io::Error, limit: Duration) -> Self {
        use io::ErrorKind;
        match error.kind() {
            ErrorKind::TimedOut => Self::Silent(limit),
            ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof => Self::Broken(error.to_string()),
            ErrorKind::InvalidData => Self::Unreachable(untrusted(&error.to_string())),
            _ => Self::Unreachable(error.to_string()),
        }
    }

    /// Whether the same request may soon succeed. Failing to connect is temporary only after an earlier connection.
    pub(super) fn may_pass(&self, was_connected: bool) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Unreachable(_) | Self::Silent(_) => was_connected,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::NoHub(_) | Self::Content(_) | Self::Local(_) => false,
        }
    }

    /// Classifies the failure.
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Status { status: 401 | 403 | 404, .. } => ErrorKind::Input,
            Self::Local(_) => ErrorKind::File,
            Self::Unreachable(_)
            | Self::Silent(_)
            | Self::Broken(_)
            | Self::Status { .. }
            | Self::NoHub(_)
            | Self::Content(_) => ErrorKind::Network,
        }
    }

    /// Describes the failure for a hub at `endpoint`, requested with or without a token.
    pub(super) fn explain(&self, endpoint: &str, has_token: bool) -> String {
        match self {
            Self::Unreachable(problem) => format!("cannot reach the hub {endpoint}: {problem}"),
            Self::Silent(limit) => format!("hub {endpoint} sent nothing for {} s", limit.as_secs_f32()),
            Self::Broken(problem) => format!("the connection to the hub {endpoint} broke off: {problem}"),
            Self::Status { status: status @ (401 | 403), message, .. } => format!(
                "hub {endpoint} refuses access (HTTP {status}): the repository is private or gated, or there is none of \
                 this name; {} (HF_TOKEN){}",
                if has_token { "the token given is not enough" } else { "no token is given" },
                // It tells an expired token from conditions to accept and from a repository taken down.
                message.as_ref().map_or_else(String::new, |message| format!("; it says: {message}"))
            ),
            Self::Status { code: Some(code), .. } if code == "RepoNotFound" => {
                format!(
                    "hub {endpoint} has no repository of this name, or hides it without the right HF_TOKEN"
                )
            }
            Self::Status { code: Some(code), .. } if code == "RevisionNotFound" => {
                format!("hub {endpoint} has no such revision of this repository")
            }
            Self::Status { status, retry_after: Some(wait), .. } => format!(
                "hub {endpoint} answers with HTTP status {status}, and asks to wait for {} s",
                wait.as_secs()
            ),
            Self::Status { status, .. } => format!("hub {endpoint} answers with HTTP status {status}"),
            Self::NoHub(problem) => format!("hub {endpoint} does not answer as a hub does: {problem}"),
            Self::Content(problem) => format!("hub {endpoint}: {problem}"),
            Self::Local(problem) => problem.clone(),
        }
    }
}

fn untrusted(problem: &str) -> String {
    if problem.contains("UnknownIssuer") {
        format!("{problem}; name the file of a private authority in SSL_CERT_FILE")
    } else if problem.contains("CaUsedAsEndEntity") {
        // What `openssl req -x509` makes by default.
        "the server's certificate is an authority's (CA:TRUE), expected a server's own; openssl makes one with \
         -addext basicConstraints=critical,CA:FALSE"
            .to_owned()
    } else {
        problem.to_owned()
    }
}
