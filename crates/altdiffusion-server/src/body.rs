//! Reads the bodies of requests within their limits.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use crate::problem::Problem;
use crate::state::{Shared, shown};

/// A body, and its share of the room for all bodies.
pub(crate) struct ReadBody {
    pub(crate) bytes: Bytes,
    pub(crate) room: Room,
}

/// A request's share of the room for all bodies, which it keeps until it is answered.
pub(crate) struct Room(#[allow(dead_code, reason = "held")] Vec<OwnedSemaphorePermit>);

/// Reads a body.
///
/// # Errors
/// If it is compressed, larger than a body may be, there is no room for it now, or it takes too long.
pub(crate) async fn read(state: &Shared, headers: &HeaderMap, body: Body) -> Result<ReadBody, Problem> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let encoding = shown(&String::from_utf8_lossy(encoding.as_bytes()));
        let problem = format!("the body: Content-Encoding {encoding}, expected none");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem));
    }
    let limits = &state.options.limits;
    let most = limits.body_bytes;
    let too_large = || Problem::too_large(format!("the body: expected at most {most} bytes"));
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > most) {
        return Err(too_large());
    }
    let collect = async {
        let (mut bytes, mut room) = (Vec::new(), Vec::new());
        let mut taken = 0;
        let mut body = body;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Problem::invalid(format!("the body: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > most {
                return Err(too_large());
            }
            let needed = (bytes.len() + data.len()).div_ceil(1 << 10);
            if needed > taken {
                let more = u32::try_from(needed - taken).unwrap_or(u32::MAX);
                let Ok(permit) = state.body_room.clone().try_acquire_many_owned(more) else {
                    let problem = "the requests that are being read fill the room for them";
                    return Err(Problem::busy(problem, Duration::from_secs(1)));
                };
                room.push(permit);
                taken = needed;
            }
            bytes.extend_from_slice(&data);
        }
        Ok(ReadBody { bytes: bytes.into(), room: Room(room) })
    };
    match tokio::time::timeout(limits.body_time, collect).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let problem =
                format!("the body did not arrive within {} seconds", limits.body_time.as_secs_f64());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, problem))
        }
    }
}

/// Reads a body of JSON.
///
/// # Errors
/// Also if it is not JSON of this form; the message names the field.
pub(crate) async fn json<T: DeserializeOwned>(
    state: &Shared,
    request: Request,
) -> Result<(T, Room), Problem> {
    let (parts, body) = request.into_parts();
    let media_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_json = media_type.is_some_and(|value| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case("application/json")
    });
    if !is_json {
        let problem = "expected the header Content-Type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, problem));
    }
    let body = read(state, &parts.headers, body).await?;
    Ok((parse(&body.bytes)?, body.room))
}

/// Parses JSON.
///
/// # Errors
/// If it is not of this form; the message names the field.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Programs on Windows begin texts with it.
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::invalid("expected a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let found = in_words(&error.inner().to_string());
        let problem = Problem::invalid(match path.as_str() {
            "." => found,
            path => format!("{path}: {found}"),
        });
        Problem { field: Some(path).filter(|path| path != "."), ..problem }
    })?;
    json.end().map_err(|error| Problem::invalid(error.to_string()))?;
    Ok(parsed)
}

/// Replaces the names of Rust's types in a message by words.
pub(crate) fn in_words(message: &str) -> String {
    let types = [
        ("expected usize", "expected a whole number from 0"),
        ("expected u64", "expected a whole number from 0"),
        ("expected u32", "expected a whole number from 0"),
        ("expected i64", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected f32", "expected a number"),
        ("expected a sequence", "expected a list"),
        ("expected a map", "expected an object"),
    ];
    types.iter().fold(message.to_owned(), |message, (name, words)| message.replace(name, words))
}
