//! Chooses the proxy for a URL, like curl and requests.

use std::fmt;
use std::net::IpAddr;

use super::url::Url;

/// The proxies from the environment.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `https://`.
    pub https: Option<String>,
    /// For `http://`.
    pub http: Option<String>,
    /// For both, unless set separately.
    pub all: Option<String>,
    /// Hosts to reach directly: names, including everything that ends in `.name`; addresses and networks; `*` for
    /// all.
    pub exceptions: Vec<String>,
}

impl Proxies {
    /// Reads the proxies from variables. Lower case takes precedence, even if it is empty, which means none: as in curl
    /// and Python.
    pub(super) fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let filled = |value: Option<String>| {
            value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
        };
        let either = |name: &str| filled(variable(&name.to_lowercase()).or_else(|| variable(name)));
        // In CGI programs HTTP_PROXY is set by any client that sends a header "Proxy".
        let http = match variable("REQUEST_METHOD") {
            Some(_) => filled(variable("http_proxy")),
            None => either("HTTP_PROXY"),
        };
        let exceptions = either("NO_PROXY").unwrap_or_default();
        let exceptions = exceptions.split([',', ' ']).filter(|entry| !entry.is_empty());
        Self {
            https: either("HTTPS_PROXY"),
            http,
            all: either("ALL_PROXY"),
            exceptions: exceptions.map(str::to_owned).collect(),
        }
    }

    /// The proxy for `url`; `None` to connect directly.
    pub(super) fn of(&self, url: &Url) -> Option<&str> {
        if self.exceptions.iter().any(|entry| excepts(entry, url)) {
            return None;
        }
        let own = if url.is_encrypted() { &self.https } else { &self.http };
        own.as_ref().or(self.all.as_ref()).map(String::as_str)
    }
}

fn excepts(entry: &str, url: &Url) -> bool {
    if entry == "*" {
        return true;
    }
    let address = url.address();
    if let Some(address) = address
        && let Some((network, bits)) = entry.split_once('/')
        && let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>())
    {
        return in_network(address, network, bits);
    }
    if let Ok(entry) = entry.trim_matches(['[', ']']).parse::<IpAddr>() {
        return address == Some(entry);
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => (name, port.parse::<u16>().ok()),
        _ => (entry, None),
    };
    let name = name.trim_start_matches('*').trim_matches('.').to_lowercase();
    let host = url.host().trim_end_matches('.');
    let is_within =
        host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    !name.is_empty() && is_within && port.is_none_or(|port: u16| port == url.port())
}

fn in_network(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            (address.to_bits() ^ network.to_bits()) & mask == 0
        }
        (IpAddr::V6(address), IpAddr::V6(network)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            (address.to_bits() ^ network.to_bits()) & mask == 0
        }
        _ => false,
    }
}

/// A URL without user and password, for display.
pub(super) fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if scheme.is_empty() { format!("{host}{path}") } else { format!("{scheme}://{host}{path}") }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |proxy: &Option<String>| proxy.as_deref().map(without_credentials);
        f.debug_struct("Proxies")
            .field("https", &shown(&self.https))
            .field("http", &shown(&self.http))
            .field("all", &shown(&self.all))
            .field("exceptions", &self.exceptions)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_excepted_as_curl_does_it() {
        for (entry, url, excepted) in [
            ("*", "https://hub.example", true),
            ("hub.example", "https://hub.example/a", true),
            (".example", "https://hub.example", true),
            ("*.example", "https://hub.example", true),
            ("Hub.Example", "https://hub.example", true),
            ("hub.example", "https://cdn.hub.example", true),
            ("hub.example", "https://nohub.example", false),
            ("hub.example.", "https://hub.example", true),
            ("hub.example:8443", "https://hub.example:8443", true),
            ("hub.example:8443", "https://hub.example", false),
            ("hub.example:443", "https://hub.example", true),
            ("10.0.0.0/8", "http://10.1.2.3", true),
            ("10.0.0.0/8", "http://11.1.2.3", false),
            ("0.0.0.0/0", "http://11.1.2.3", true),
            ("127.0.0.1", "http://127.0.0.1:8000", true),
            ("[::1]", "http://[::1]:8000", true),
            ("fe80::/10", "http://[fe80::1]", true),
            (".", "https://hub.example", false),
        ] {
            let proxies = Proxies {
                all: Some("http://proxy".into()),
                exceptions: vec![entry.to_owned()],
                ..Proxies::default()
            };
            assert_eq!(proxies.of(&Url::parse(url).unwrap()).is_none(), excepted, "{entry} {url}");
        }
    }

    #[test]
    fn small_letters_and_schemes_go_first() {
        let variables = |pairs: &'static [(&str, &str)]| {
            Proxies::from_variables(&move |name| {
                pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let of = |proxies: &Proxies, url: &str| proxies.of(&Url::parse(url).unwrap()).map(str::to_owned);
        let both = variables(&[("HTTPS_PROXY", "big"), ("https_proxy", "small"), ("ALL_PROXY", "all")]);
        assert_eq!(of(&both, "https://a").as_deref(), Some("small"));
        assert_eq!(of(&both, "http://a").as_deref(), Some("all"));
        let cgi = variables(&[("HTTP_PROXY", "evil"), ("REQUEST_METHOD", "GET")]);
        assert_eq!(of(&cgi, "http://a"), None);
        let none = variables(&[
            ("HTTPS_PROXY", "big"),
            ("https_proxy", ""),
            ("HTTP_PROXY", "p"),
            ("ALL_PROXY", " "),
        ]);
        assert_eq!(of(&none, "https://a"), None);
        assert_eq!(of(&none, "http://a").as_deref(), Some("p"));
        let excepted = variables(&[("HTTP_PROXY", "p"), ("NO_PROXY", "a.example, b.example")]);
        assert_eq!(of(&excepted, "http://b.example"), None);
        assert_eq!(of(&excepted, "http://c.example").as_deref(), Some("p"));
    }

    #[test]
    fn shown_urls_have_no_credentials() {
        for (url, shown) in [
            ("https://me:se@cret@hub.example/a", "https://hub.example/a"),
            ("me:secret@proxy:3128", "proxy:3128"),
            ("http://hub.example/a@b", "http://hub.example/a@b"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }
}
