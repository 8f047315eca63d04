//! Connects to servers, directly or through proxies, trusting the system's or the environment's certificates.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::failure::Failure;
use super::options::HubOptions;
use super::proxy::{Proxies, without_credentials};
use super::url::Url;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::config::Config;
use ureq::http::{HeaderValue, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
};
use ureq::{Agent, Proxy};

/// Bytes read from a connection at a time.
const READ_AT_A_TIME: usize = 512 * 1024;
/// The longest headers of an answer. The hub's are a few kilobytes.
const LONGEST_HEADERS: usize = 256 * 1024;

/// Connections to servers, kept open between requests.
pub(super) struct Network {
    proxies: Proxies,
    authorities: Vec<PathBuf>,
    connect_timeout: Duration,
    /// Keyed by TLS and proxy.
    agents: Mutex<HashMap<(bool, Option<String>), Route>>,
}

/// How to reach a server.
#[derive(Clone)]
pub(super) struct Route {
    pub agent: Agent,
    /// The proxy, without its credentials, for errors.
    pub proxy: Option<String>,
    /// For a proxy that handles requests itself, as for plain HTTP.
    pub proxy_authorization: Option<HeaderValue>,
}

impl Network {
    pub(super) fn new(options: &HubOptions) -> Self {
        Self {
            proxies: options.proxies.clone(),
            authorities: options.authorities.clone(),
            connect_timeout: options.metadata_timeout,
            agents: Mutex::default(),
        }
    }

    /// The route to the server of `url`.
    pub(super) fn route_to(&self, url: &Url) -> Result<Route, Failure> {
        let proxy = self.proxies.of(url);
        let has_tls = url.is_encrypted() || proxy.is_some_and(|proxy| proxy.starts_with("https:"));
        let key = (has_tls, proxy.map(str::to_owned));
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(route) = agents.get(&key) {
            return Ok(route.clone());
        }
        let route = self.open(url, proxy, has_tls)?;
        agents.insert(key, route.clone());
        Ok(route)
    }

    fn open(&self, url: &Url, proxy: Option<&str>, has_tls: bool) -> Result<Route, Failure> {
        let proxy =
            proxy.map(|text| Ok((text, Proxy::new(text).map_err(|_| no_proxy(text))?))).transpose()?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // The client follows redirects, since it knows who may get the token.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(self.connect_timeout))
            .timeout_connect(Some(self.connect_timeout))
            .max_response_header_size(LONGEST_HEADERS)
            .input_buffer_size(READ_AT_A_TIME)
            .user_agent(concat!("altdiffusion/", env!("CARGO_PKG_VERSION")))
            // The environment's proxies were read before.
            .proxy(None);
        if has_tls {
            config = config.tls_config(TlsConfig::builder().root_certs(trusted(&self.authorities)?).build());
        }
        let Some((text, proxy)) = proxy else {
            return Ok(Route { agent: config.build().new_agent(), proxy: None, proxy_authorization: None });
        };
        let shown = Some(without_credentials(text));
        let is_http = matches!(proxy.protocol(), ureq::ProxyProtocol::Http | ureq::ProxyProtocol::Https);
        if url.is_encrypted() || !is_http {
            return Ok(Route {
                agent: config.proxy(Some(proxy)).build().new_agent(),
                proxy: shown,
                proxy_authorization: None,
            });
        }
        let address: Uri =
            without_credentials(proxy.uri().to_string().as_str()).parse().map_err(|_| no_proxy(text))?;
        let connector = ForwardConnector { proxy: address.clone(), inner: DefaultConnector::default() };
        let resolver = ProxyResolver { proxy: address, inner: DefaultResolver::default() };
        let authorization =
            proxy.username().map(|user| basic(user, proxy.password().unwrap_or_default())).transpose()?;
        let agent = Agent::with_parts(config.build(), connector, resolver);
        Ok(Route { agent, proxy: shown, proxy_authorization: authorization })
    }
}

fn no_proxy(text: &str) -> Failure {
    let shown = without_credentials(text);
    Failure::Unreachable(format!(
        "expected a proxy as http://host:port or socks5h://host:port, found {shown:?}"
    ))
}

/// A user and a password as a header value.
pub(super) fn basic(user: &str, password: &str) -> Result<HeaderValue, Failure> {
    let mut value =
        HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))))
            .map_err(|_| Failure::Unreachable("a user or password in a URL cannot be sent".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The certificates to trust: those in the given files and directories, or else the system's, or else Mozilla's.
fn trusted(authorities: &[PathBuf]) -> Result<RootCerts, Failure> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for path in authorities {
        let (file, directory) = if path.is_dir() { (None, Some(path)) } else { (Some(path), None) };
        let read = rustls_native_certs::load_certs_from_paths(
            file.map(PathBuf::as_path),
            directory.map(PathBuf::as_path),
        );
        if read.certs.is_empty() {
            problems.push(path.display().to_string());
        }
        for error in read.errors {
            tracing::warn!("certificates: {error}");
        }
        found.extend(read.certs);
    }
    if found.is_empty() && !authorities.is_empty() {
        return Err(Failure::Unreachable(format!(
            "no certificate in {}, which SSL_CERT_FILE, SSL_CERT_DIR, REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE names",
            problems.join(", ")
        )));
    }
    if authorities.is_empty() {
        let system = rustls_native_certs::load_native_certs();
        for error in system.errors {
            tracing::debug!("the system's certificates: {error}");
        }
        found = system.certs;
    }
    if found.is_empty() {
        return Ok(RootCerts::WebPki);
    }
    Ok(found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).into())
}

/// Connects to a proxy for plain HTTP. The HTTP library would ask it for a tunnel, which proxies refuse except for
/// the HTTPS port.
#[derive(Debug)]
struct ForwardConnector {
    proxy: Uri,
    inner: DefaultConnector,
}

impl Connector for ForwardConnector {
    type Out = ForwardTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _: Option<()>,
    ) -> Result<Option<ForwardTransport>, ureq::Error> {
        let to_proxy = ConnectionDetails {
            uri: &self.proxy,
            // Resolved by `ProxyResolver`.
            addrs: details.addrs.clone(),
            resolver: details.resolver,
            config: details.config,
            request_level: details.request_level,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        let Some(inner) = self.inner.connect(&to_proxy, None)? else { return Ok(None) };
        let authority = details.uri.authority().map_or("", |authority| authority.as_str());
        Ok(Some(ForwardTransport { origin: format!("http://{authority}").into_bytes(), inner }))
    }
}

/// Resolves the proxy's address for any host, which only the proxy may know.
#[derive(Debug)]
struct ProxyResolver {
    proxy: Uri,
    inner: DefaultResolver,
}

impl Resolver for ProxyResolver {
    fn resolve(
        &self,
        _: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.inner.resolve(&self.proxy, config, timeout)
    }
}

/// A connection to a proxy, with whole URLs instead of paths (RFC 9112, section 3.2.2).
#[derive(Debug)]
struct ForwardTransport {
    origin: Vec<u8>,
    inner: Box<dyn Transport>,
}

impl Transport for ForwardTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let output = self.inner.buffers().output();
        // A request without a body is sent at once, starting with its method.
        let path = [&b"GET /"[..], b"HEAD /"]
            .iter()
            .find(|start| output.starts_with(start))
            .map(|start| start.len() - 1);
        let Some(path) = path.filter(|path| *path <= amount) else {
            return self.inner.transmit_output(amount, timeout);
        };
        let longer = amount + self.origin.len();
        if longer > output.len() {
            return Err(ureq::Error::Other("the request is too long".into()));
        }
        output.copy_within(path..amount, path + self.origin.len());
        output[path..path + self.origin.len()].copy_from_slice(&self.origin);
        self.inner.transmit_output(longer, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
