//! Sends requests to the hub, following redirects and waiting when it is busy, without giving the token to anybody
//! else.

use std::time::{Duration, SystemTime};

use ureq::Body;
use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, LOCATION, RANGE, RETRY_AFTER};
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request};

use super::failure::Failure;
use super::network::{Network, basic};
use super::options::{HubOptions, Notice};
use super::proxy::without_credentials;
use super::url::Url;
use crate::error::Error;

const MOST_REDIRECTS: usize = 10;
/// The longest wait that a busy server can ask for: the hub limits requests per five minutes, and may ask for these and
/// a second.
const LONGEST_WAIT: Duration = Duration::from_secs(301);
/// The longest wait if the server does not ask for one.
const LONGEST_OWN_WAIT: Duration = Duration::from_secs(8);
/// Longer waits are reported.
const WORTH_TELLING: Duration = Duration::from_secs(2);
const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-error-message");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// A connection to a hub.
pub(super) struct Client {
    endpoint: Url,
    authorization: Option<HeaderValue>,
    network: Network,
    metadata_timeout: Duration,
    download_timeout: Duration,
    retries: u32,
    pause: Duration,
    notice: Notice,
}

/// What to request.
#[derive(Clone, Copy)]
pub(super) enum Ask {
    /// A file's metadata. Redirects to other hosts are not followed: they lead to the content.
    About,
    /// The content from this byte on.
    ContentFrom(u64),
    /// A document of the hub's API.
    Document,
}

/// A response, with the headers of redirects, which may say more about the file.
pub(super) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub on_the_way: Vec<HeaderMap>,
    pub body: Body,
}

impl Client {
    /// # Errors
    /// If the endpoint is not a server's URL, or the token cannot be sent.
    pub(super) fn new(options: &HubOptions) -> Result<Self, Error> {
        let shown = without_credentials(&options.endpoint);
        let wrong = || {
            Error::Input(format!("hub endpoint {shown}: expected a URL that starts with http:// or https://"))
        };
        let endpoint = Url::parse(options.endpoint.trim_end_matches('/')).ok_or_else(wrong)?;
        let authorization = match (Url::credentials(&options.endpoint), &options.token) {
            (None, None) => None,
            (None, Some(token)) => {
                // The HTTP library takes other bytes than ASCII into a value, and then refuses to send it.
                let value = HeaderValue::from_str(&format!("Bearer {token}")).ok();
                let mut value = value.filter(|_| token.is_ascii()).ok_or_else(|| {
                    Error::Input(
                        "HF_TOKEN, or the file with the token: expected letters, digits and underscores, found \
                         other characters"
                            .to_owned(),
                    )
                })?;
                value.set_sensitive(true);
                Some(value)
            }
            // As in requests and curl, a user in the URL takes precedence over a token.
            (Some((user, password)), _) => {
                let header = basic(&user, &password);
                Some(header.map_err(|failure| Error::Input(failure.explain(&shown, false)))?)
            }
        };
        Ok(Self {
            endpoint,
            authorization,
            network: Network::new(options),
            metadata_timeout: options.metadata_timeout,
            download_timeout: options.download_timeout,
            retries: options.retries,
            pause: options.pause,
            notice: options.notice.clone(),
        })
    }

    /// The server without its credentials, for display.
    pub(super) fn endpoint(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }

    /// The URL of a path on the server. Parts are encoded, so that a `/` in one stays part of it.
    pub(super) fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Result<Url, Failure> {
        self.endpoint.below(parts).ok_or_else(|| Failure::NoHub("a file has no URL there".to_owned()))
    }

    /// Sends a request, repeating it if the server is busy or the connection breaks. Redirects and statuses below 400
    /// are answers, and so is 416, "nothing from this byte on".
    pub(super) fn ask(&self, url: &Url, what: Ask) -> Result<Answer, Failure> {
        let mut tries = 0;
        loop {
            match self.follow(url, what) {
                Err(failure) if is_worth_repeating(&failure, what) && tries < self.retries => {
                    self.wait(&failure, tries)?;
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    /// Waits before the next attempt, after `tries` failures in a row.
    ///
    /// # Errors
    /// Returns `failure` if the server asks for too long a wait.
    pub(super) fn wait(&self, failure: &Failure, tries: u32) -> Result<(), Failure> {
        let wait = match failure {
            Failure::Status { retry_after: Some(wait), .. } if *wait > LONGEST_WAIT => {
                return Err(failure.clone());
            }
            Failure::Status { retry_after: Some(wait), .. } => *wait,
            _ => self.pause.saturating_mul(1 << tries.min(16)).min(LONGEST_OWN_WAIT),
        };
        if wait >= WORTH_TELLING {
            let problem = failure.explain(self.endpoint(), self.authorization.is_some());
            (self.notice)(&format!("{problem}: trying again in {} s", wait.as_secs()));
        }
        std::thread::sleep(wait);
        Ok(())
    }

    pub(super) fn retries(&self) -> u32 {
        self.retries
    }

    /// Sends a request once, and follows redirects.
    pub(super) fn follow(&self, url: &Url, what: Ask) -> Result<Answer, Failure> {
        let (mut url, mut on_the_way) = (url.clone(), Vec::new());
        for _ in 0..=MOST_REDIRECTS {
            let (status, headers, body) = self.request(&url, what)?;
            let redirect =
                matches!(status, 301 | 302 | 303 | 307 | 308).then(|| headers.get(LOCATION)).flatten();
            let Some(location) = redirect else {
                return Ok(Answer { status, headers, on_the_way, body });
            };
            let target = redirected(&url, location)?;
            if matches!(what, Ask::About) && !target.is_same_origin(&url) {
                return Ok(Answer { status, headers, on_the_way, body });
            }
            url = target;
            on_the_way.push(headers);
        }
        Err(Failure::NoHub(format!("more than {MOST_REDIRECTS} redirects, one after the other")))
    }

    fn request(&self, url: &Url, what: Ask) -> Result<(u16, HeaderMap, Body), Failure> {
        let (method, limit) = match what {
            Ask::About => (Method::HEAD, self.metadata_timeout),
            Ask::Document => (Method::GET, self.metadata_timeout),
            Ask::ContentFrom(_) => (Method::GET, self.download_timeout),
        };
        let route = self.network.route_to(url)?;
        let mut request = Request::builder()
            .method(method)
            .uri(url.as_str())
            // Compressed files have another length, and ranges mean something else.
            .header(ACCEPT_ENCODING, "identity");
        if let Ask::ContentFrom(first @ 1..) = what {
            request = request.header(RANGE, format!("bytes={first}-"));
        }
        // The token is only for the server that was named, wherever it redirects to.
        if let Some(authorization) = &self.authorization
            && url.is_same_origin(&self.endpoint)
        {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(authorization) = route.proxy_authorization {
            request = request.header("Proxy-Authorization", authorization);
        }
        let request = request.body(()).map_err(|_| Failure::NoHub("a URL cannot be asked for".to_owned()))?;
        let request = route
            .agent
            .configure_request(request)
            .timeout_recv_response(Some(limit))
            .timeout_per_read(Some(limit))
            .timeout_per_write(Some(limit))
            .build();
        let answer = route
            .agent
            .run(request)
            .map_err(|error| Failure::of_request(error, limit).through(route.proxy.as_deref()))?;
        let (parts, body) = answer.into_parts();
        let status = parts.status.as_u16();
        if status >= 400 && status != 416 {
            let text = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok());
            let reset = || text(RATE_LIMIT).filter(|_| status == 429).and_then(until_reset);
            let retry_after =
                text(RETRY_AFTER).and_then(|text| retry_after(text, SystemTime::now())).or_else(reset);
            let [code, message] = [ERROR_CODE, ERROR_MESSAGE].map(|name| text(name).map(str::to_owned));
            return Err(Failure::Status { status, code, message, retry_after });
        }
        Ok((status, parts.headers, body))
    }

    /// How long a download may stall.
    pub(super) fn download_timeout(&self) -> Duration {
        self.download_timeout
    }
}

/// Whether repeating may help. Many mirrors do not have the API, and always fail on it.
fn is_worth_repeating(failure: &Failure, what: Ask) -> bool {
    match (what, failure) {
        (Ask::Document, Failure::Status { status, .. }) => matches!(status, 429 | 503),
        _ => failure.may_pass(false),
    }
}

/// The target of a redirect, which must not lead from HTTPS to HTTP.
fn redirected(from: &Url, location: &HeaderValue) -> Result<Url, Failure> {
    let target = std::str::from_utf8(location.as_bytes()).ok().and_then(|location| from.join(location));
    match target {
        None => Err(Failure::NoHub("a redirect to what is no URL of http:// or https://".to_owned())),
        Some(target) if from.is_encrypted() && !target.is_encrypted() => Err(Failure::NoHub(
            "a redirect from https:// to http://, which anybody could read and change".to_owned(),
        )),
        Some(target) => Ok(target),
    }
}

/// `Retry-After`: seconds, or a date.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let then = httpdate::parse_http_date(text.trim()).ok()?;
            Some(then.duration_since(now).unwrap_or_default())
        }
    }
}

/// The wait in `RateLimit: "api";r=0;t=175`: the hub sends that instead of `Retry-After`. Like huggingface_hub, it is a
/// second longer.
fn until_reset(text: &str) -> Option<Duration> {
    let seconds = text.split([';', ',']).find_map(|part| {
        let (name, value) = part.split_once('=')?;
        value.trim().parse::<u64>().ok().filter(|_| name.trim() == "t")
    })?;
    Some(Duration::from_secs(seconds.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(endpoint: &str) -> Client {
        Client::new(&HubOptions::new(endpoint, "cache")).unwrap()
    }

    #[test]
    fn urls_keep_the_path_of_a_mirror_and_encode_a_revision() {
        let mirror = client("https://me:secret@hub.example/api/hf/");
        let url = mirror.url(["org", "name", "resolve", "refs/pr/1", "config.json"]).unwrap();
        assert_eq!(url.as_str(), "https://hub.example/api/hf/org/name/resolve/refs%2Fpr%2F1/config.json");
        assert_eq!(mirror.endpoint(), "https://hub.example/api/hf");
        assert_eq!(mirror.authorization.unwrap(), "Basic bWU6c2VjcmV0");
    }

    #[test]
    fn redirects_lead_to_no_lesser_protection() {
        let from = Url::parse("https://hub.example/a/b").unwrap();
        let to = |location: &str| redirected(&from, &HeaderValue::from_str(location).unwrap());
        assert_eq!(to("/api/c?etag=x").unwrap().as_str(), "https://hub.example/api/c?etag=x");
        assert_eq!(to("https://cdn.example/c").unwrap().as_str(), "https://cdn.example/c");
        for bad in ["http://hub.example/c", "file:///etc/passwd", "https://"] {
            assert!(to(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn waits_are_seconds_or_dates() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2026 07:28:00 GMT").unwrap();
        assert_eq!(retry_after(" 7 ", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Wed, 21 Oct 2026 07:28:05 GMT", now), Some(Duration::from_secs(5)));
        assert_eq!(retry_after("Wed, 21 Oct 2026 07:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }

    #[test]
    fn waits_are_those_of_the_hubs_limits_too() {
        assert_eq!(until_reset(r#""api";r=0;t=175"#), Some(Duration::from_secs(176)));
        assert_eq!(until_reset(r#""resolvers"; r = 0; t = 0"#), Some(Duration::from_secs(1)));
        for none in ["", r#""api";r=0"#, r#""api";r=0;t=soon"#, r#""t=5";r=0"#] {
            assert_eq!(until_reset(none), None, "{none}");
        }
    }

    #[test]
    fn tokens_that_cannot_be_sent_are_not_shown() {
        for token in ["hf_sec\u{7}ret", "hf_sec版ret", "\u{feff}hf_secret"] {
            let options = HubOptions { token: Some(token.into()), ..HubOptions::new("http://hub", "c") };
            let line = Client::new(&options).err().unwrap().to_string();
            assert!(line.contains("HF_TOKEN") && !line.contains("hf_sec"), "{line}");
        }
    }
}
