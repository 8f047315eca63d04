//! Decides who may use the server.

use axum::extract::{Request, State as Extract};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use subtle::ConstantTimeEq;

use crate::problem::Problem;
use crate::state::{Shared, State};

/// Paths that need no key: the page, which asks for it, and probes.
const OPEN: [&str; 5] = ["/", "/health", "/ready", "/ping", "/openapi.json"];
const OPEN_FOLDER: &str = "/page/";

/// Lets a request pass if it carries the key, or came from a page that may use a server without one.
pub(crate) async fn check(Extract(state): Extract<Shared>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_open = OPEN.contains(&path) || path.starts_with(OPEN_FOLDER);
    let outcome = match &state.options.api_key {
        Some(key) if !is_open => check_key(key, request.headers()),
        Some(_) => Ok(()),
        None => check_origin(&state, &request),
    };
    match outcome {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            let status = problem.status;
            let mut response = problem.into_response();
            if status == StatusCode::UNAUTHORIZED {
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            }
            response
        }
    }
}

/// Checks `Authorization: Bearer KEY`, or basic authentication with the key as password and any name.
fn check_key(key: &str, headers: &HeaderMap) -> Result<(), Problem> {
    let unauthorized = |problem: &str| Err(Problem::new(StatusCode::UNAUTHORIZED, problem));
    let Some(given) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
        return unauthorized("expected the header Authorization: Bearer with the server's key");
    };
    let (scheme, value) = given.split_once(' ').unwrap_or((given, ""));
    let given = if scheme.eq_ignore_ascii_case("basic") {
        let decoded = BASE64_STANDARD.decode(value.trim()).unwrap_or_default();
        decoded.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default().to_vec()
    } else {
        value.trim().as_bytes().to_vec()
    };
    match bool::from(given.ct_eq(key.as_bytes())) {
        true => Ok(()),
        false => unauthorized("the key is not the server's"),
    }
}

/// Without a key, anything on this machine may connect, and so could any web page in its browser: by a name that it
/// lets point here, which the header `Host` shows, or by a form, which `Origin` shows.
fn check_origin(state: &State, request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let host =
        text(header::HOST).map(str::to_owned).or_else(|| request.uri().authority().map(Authority::to_string));
    let Some(host) = host.and_then(|host| host.parse::<Authority>().ok()) else {
        // HTTP/1.0 has none, and browsers do not speak it.
        return Ok(());
    };
    // A name may end with the dot of the root.
    let name = host.host().trim_matches(['[', ']']);
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_known = name.parse::<std::net::IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || state.options.host_names.iter().any(|known| known.eq_ignore_ascii_case(name));
    if !is_known {
        let problem = format!(
            "the name {name:?} is not one of this server's; expected an address, localhost, or --host-name"
        );
        return Err(Problem::new(StatusCode::FORBIDDEN, problem));
    }
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let allowed = &state.options.allowed_origins;
    let same = origin.split_once("://").is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host.as_str()));
    match same || allowed.iter().any(|known| known == "*" || known == origin) {
        true => Ok(()),
        false => {
            let problem =
                format!("pages of {origin:?} may not use this server; expected --cors with this origin");
            Err(Problem::new(StatusCode::FORBIDDEN, problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_key_is_taken_in_two_forms() {
        let headers = |value: &'static str| {
            HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))])
        };
        let check = |value| check_key("secret", &headers(value)).is_ok();
        // "any:secret" and "any:other"
        assert!(check("Bearer secret") && check("bearer secret") && check("Basic YW55OnNlY3JldA=="));
        for value in
            ["", "Bearer", "Bearer secre", "Bearer secret2", "secret", "Basic YW55Om90aGVy", "Basic x"]
        {
            assert!(!check(value), "{value}");
        }
        assert!(check_key("secret", &HeaderMap::new()).is_err());
    }
}
