//! Parses HTTP URLs, without users and fragments.

use std::borrow::Cow;
use std::net::IpAddr;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use ureq::http::Uri;

/// Characters to encode in a part of a path: all except RFC 3986's unreserved ones and those common in names.
const IN_PART: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'+')
    .remove(b'=')
    .remove(b'@');
/// Characters to encode in a URL from a server.
const IN_LOCATION: &AsciiSet = &CONTROLS.add(b' ');

/// An `http://` or `https://` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    scheme: &'static str,
    /// In lower case; an IPv6 address is in brackets.
    host: String,
    port: u16,
    /// From the first `/` on, including the query.
    path: String,
    text: String,
}

impl Url {
    /// Parses a URL, without its user.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.split_once('#').map_or(text, |(text, _)| text);
        let (scheme, rest) = text.split_once("://")?;
        let (scheme, usual_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => ("http", 80),
            "https" => ("https", 443),
            _ => return None,
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        // Others treat it as a slash, so it could disguise the host.
        if authority.contains('\\') {
            return None;
        }
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let path = match path {
            "" => Cow::Borrowed("/"),
            query if query.starts_with('?') => Cow::Owned(format!("/{query}")),
            path => Cow::Borrowed(path),
        };
        let uri: Uri = format!("{scheme}://{authority}{path}").parse().ok()?;
        let host = uri.host().filter(|host| !host.is_empty())?.to_ascii_lowercase();
        let has_port = authority.len() > host.len();
        let port = if has_port { uri.port_u16()? } else { usual_port };
        Some(Self {
            scheme,
            host,
            port,
            path: uri.path_and_query()?.as_str().to_owned(),
            text: uri.to_string(),
        })
    }

    /// The user and password in a URL, decoded.
    pub(super) fn credentials(text: &str) -> Option<(String, String)> {
        let (_, rest) = text.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let (user, _) = authority.rsplit_once('@')?;
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        let decoded = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Some((decoded(name), decoded(password)))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.scheme == "https"
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The host, if it is an address.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.host.trim_matches(['[', ']']).parse().ok()
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Whether scheme, host and port are equal.
    pub(super) fn is_same_origin(&self, other: &Self) -> bool {
        (self.scheme, &self.host, self.port) == (other.scheme, &other.host, other.port)
    }

    /// A URL below this one. Parts are encoded, so that a `/` in one stays part of it.
    pub(super) fn below<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let mut text = self.text.split('?').next().unwrap_or_default().trim_end_matches('/').to_owned();
        for part in parts {
            text.push('/');
            text.extend(utf8_percent_encode(part, IN_PART));
        }
        Self::parse(&text)
    }

    /// Resolves `location` relative to this URL (RFC 3986, section 5.2).
    pub(super) fn join(&self, location: &str) -> Option<Self> {
        let location = utf8_percent_encode(location.trim(), IN_LOCATION).to_string();
        let before_path = location.split(['/', '?', '#']).next().unwrap_or_default();
        if before_path.contains(':') {
            return Self::parse(&location);
        }
        let end = self.text.len() - self.path.len();
        let (server, path) = self.text.split_at_checked(end)?;
        let path = path.split('?').next().unwrap_or_default();
        match location.as_str() {
            "" => Some(self.clone()),
            other_host if other_host.starts_with("//") => {
                Self::parse(&format!("{}:{other_host}", self.scheme))
            }
            query if query.starts_with('?') => Self::parse(&format!("{server}{path}{query}")),
            absolute if absolute.starts_with('/') => Self::parse(&format!("{server}{absolute}")),
            relative => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                Self::parse(&format!("{server}{}", without_dots(&format!("{folder}/{relative}"))))
            }
        }
    }
}

/// The path without `.` and `..`.
fn without_dots(path: &str) -> String {
    let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}{query}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_others_refused() {
        for (text, shown, host, port) in [
            ("https://Hub.example", "https://hub.example/", "hub.example", 443),
            ("HTTP://hub.example:8080/a?b#c", "http://hub.example:8080/a?b", "hub.example", 8080),
            ("http://me:se@cret@hub.example?b", "http://hub.example/?b", "hub.example", 80),
            ("http://[::1]:8000/a", "http://[::1]:8000/a", "[::1]", 8000),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!(url.as_str().to_lowercase(), shown);
            assert_eq!((url.host(), url.port()), (host, port));
        }
        for bad in [
            "",
            "hub.example",
            "ftp://hub.example",
            "https://",
            "https:///a",
            "http://a b",
            "http://a:x",
            "http://a:",
        ] {
            assert!(Url::parse(bad).is_none(), "{bad}");
        }
        let user = |text| Url::credentials(text);
        assert_eq!(user("https://me:se%40cret@hub/a@b"), Some(("me".into(), "se@cret".into())));
        assert_eq!(user("https://hub/a@b"), None);
    }

    #[test]
    fn origins_are_scheme_host_and_port() {
        let url = |text| Url::parse(text).unwrap();
        assert!(url("https://hub.example/a").is_same_origin(&url("https://HUB.example:443/b")));
        for other in [
            "http://hub.example",
            "https://hub.example:8443",
            "https://a.hub.example",
            "https://hub.example.org",
        ] {
            assert!(!url("https://hub.example").is_same_origin(&url(other)), "{other}");
        }
    }

    #[test]
    fn locations_are_joined() {
        let from = Url::parse("https://hub.example:8443/a/b?c").unwrap();
        for (location, to) in [
            ("/api/c?etag=x", "https://hub.example:8443/api/c?etag=x"),
            ("//cdn.example/c", "https://cdn.example/c"),
            ("c", "https://hub.example:8443/a/c"),
            ("../c/./d", "https://hub.example:8443/c/d"),
            ("../../../c", "https://hub.example:8443/c"),
            ("?d", "https://hub.example:8443/a/b?d"),
            ("", "https://hub.example:8443/a/b?c"),
            ("https://me:secret@cdn.example/c#d", "https://cdn.example/c"),
            ("/a b/版", "https://hub.example:8443/a%20b/%E7%89%88"),
        ] {
            assert_eq!(from.join(location).unwrap().as_str(), to, "{location}");
        }
        for bad in
            ["https://", "file:///etc/passwd", "mailto:me", "https:cdn.example", "//", "https://a\\@b/"]
        {
            assert!(from.join(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn parts_stay_parts() {
        let url = Url::parse("https://hub.example/api/hf/").unwrap();
        let below = url.below(["refs/pr/1", "a b#?%.json", "版"]).unwrap();
        assert_eq!(below.as_str(), "https://hub.example/api/hf/refs%2Fpr%2F1/a%20b%23%3F%25.json/%E7%89%88");
    }
}
