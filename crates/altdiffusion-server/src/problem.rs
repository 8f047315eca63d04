//! Describes why a request cannot be answered; each interface formats it in its own way.

use std::time::Duration;

use altdiffusion_pipeline::ErrorKind;
use axum::http::StatusCode;

/// Why a request cannot be answered.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The field of the request that is at fault.
    pub(crate) field: Option<String>,
    /// When to try again.
    pub(crate) retry_after: Option<Duration>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), field: None, retry_after: None }
    }

    /// A request that can never succeed.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A field of the request has an unusable value.
    pub(crate) fn field(field: &str, message: impl AsRef<str>) -> Self {
        let problem = Self::invalid(format!("{field}: {}", message.as_ref()));
        Self { field: Some(field.to_owned()), ..problem }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// A queue is full.
    pub(crate) fn busy(message: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    /// The model was still being loaded at the deadline.
    pub(crate) fn loading() -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "the model is still being loaded");
        Self { retry_after: Some(Duration::from_secs(10)), ..problem }
    }

    pub(crate) fn late() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "the request took longer than its time limit, and was stopped")
    }

    pub(crate) fn shutting_down() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down")
    }

    /// The thread that did the work is gone, or gave up without saying why.
    pub(crate) fn failed() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the work failed; the server's log says why")
    }

    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same with a message that can be read: it may quote a request at length.
    pub(crate) fn shortened(&self) -> Self {
        const LONGEST: usize = 500;
        let short = |text: &str| match text.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        };
        Self { message: short(&self.message), field: self.field.as_deref().map(short), ..self.clone() }
    }

    /// The name of its kind in metrics.
    pub(crate) fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => "busy",
            StatusCode::SERVICE_UNAVAILABLE => "unavailable",
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => "timeout",
            status if status.is_client_error() => "request",
            _ => "server",
        }
    }

    fn of_kind(kind: ErrorKind, message: String) -> Self {
        if kind == ErrorKind::File {
            // The message names paths of this machine.
            tracing::error!("{message}");
            let problem = "a file of the model or of an adapter cannot be used; the server's log says why";
            return Self::new(StatusCode::INTERNAL_SERVER_ERROR, problem);
        }
        let status = match kind {
            ErrorKind::Input => StatusCode::BAD_REQUEST,
            ErrorKind::OutOfMemory | ErrorKind::Network => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, message)
    }
}

impl From<altdiffusion_pipeline::Error> for Problem {
    fn from(error: altdiffusion_pipeline::Error) -> Self {
        Self::of_kind(error.kind(), error.to_string())
    }
}

impl From<altclip_encoder::Error> for Problem {
    fn from(error: altclip_encoder::Error) -> Self {
        Self::of_kind(error.kind(), error.to_string())
    }
}
