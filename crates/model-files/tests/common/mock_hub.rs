//! Serves models on this machine as the hub does, as mirrors and proxies do, and as none should.
//!
//! A root directory holds `org/name/<commit>/<files>`, and `refs.json` says `{"org/name": {"main": "<commit>"}}`.

#![allow(dead_code, reason = "not all tests need everything")]

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha1::{Digest, Sha1};
use sha2::Sha256;

/// How a hub answers.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub ranges: Ranges,
    pub encoding: Encoding,
    pub redirect: Redirect,
    pub etag: Etag,
    pub length: Length,
    /// The path that a mirror is under.
    pub prefix: &'static str,
    /// Whether there is an API that lists files.
    pub api: bool,
    /// Whether it says of which commit a file is.
    pub commit: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ranges {
    Honoured,
    Ignored,
    /// Honoured, without saying which.
    Unsaid,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Encoding {
    Plain,
    /// Compressed for those who accept it.
    Gzip,
    /// Compressed for all.
    AlwaysGzip,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Redirect {
    No,
    Relative,
    /// To the same server under another name.
    OtherHost,
    Loop,
    /// From https:// to http://.
    Unprotected,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Etag {
    Sha256,
    Sha1,
    Git,
    Weak,
    Opaque,
    Absent,
    /// A path out of the cache.
    Escaping,
    /// The hash of something else.
    Wrong,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    Announced,
    Chunked,
    /// The end of the connection is the end of the file.
    Unsaid,
    /// One byte more than there is.
    Wrong,
}

/// What happens to a request for content, one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    None,
    /// The connection ends after so many bytes.
    EndsAfter(usize),
    /// The connection is reset after so many bytes.
    ResetAfter(usize),
    /// A status, with `Retry-After` in seconds.
    Status(u16, Option<u64>),
    Silence,
    /// A byte is another.
    Garbled,
}

impl Default for Manner {
    /// As the hub itself, with an API, and hashes for ETags.
    fn default() -> Self {
        Self {
            ranges: Ranges::Honoured,
            encoding: Encoding::Plain,
            redirect: Redirect::No,
            etag: Etag::Sha256,
            length: Length::Announced,
            prefix: "",
            api: true,
            commit: true,
        }
    }
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: HashMap<String, String>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// A hub that runs as long as the process.
pub struct Hub {
    pub address: SocketAddr,
    pub is_encrypted: bool,
    state: Arc<State>,
}

struct State {
    root: PathBuf,
    port: u16,
    scheme: &'static str,
    manner: Mutex<Manner>,
    faults: Mutex<VecDeque<Fault>>,
    requests: Mutex<Vec<Request>>,
    /// What a request must have, such as `Bearer hf_right`.
    authorization: Mutex<Option<String>>,
}

trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

impl Hub {
    /// Serves `root` at some free port.
    pub fn start(root: &Path, manner: Manner) -> Self {
        Self::start_at("127.0.0.1:0", root, manner, None)
    }

    /// Serves with the certificate and key in the directory `tls`.
    pub fn start_encrypted(root: &Path, manner: Manner, tls: &Path) -> Self {
        Self::start_at("127.0.0.1:0", root, manner, Some((&tls.join("server.pem"), &tls.join("server.key"))))
    }

    pub fn start_at(address: &str, root: &Path, manner: Manner, tls: Option<(&Path, &Path)>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let tls = tls.map(|(certificate, key)| tls_config(certificate, key));
        let state = Arc::new(State {
            root: root.to_owned(),
            port: address.port(),
            scheme: if tls.is_some() { "https" } else { "http" },
            manner: Mutex::new(manner),
            faults: Mutex::default(),
            requests: Mutex::default(),
            authorization: Mutex::default(),
        });
        let (shared, is_encrypted) = (state.clone(), tls.is_some());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (state, tls) = (shared.clone(), tls.clone());
                // A client that hangs up early is no failure of the hub.
                std::thread::spawn(move || state.serve(connection, tls).ok());
            }
        });
        Self { address, is_encrypted, state }
    }

    /// The URL to give as HF_ENDPOINT.
    pub fn endpoint(&self) -> String {
        format!("{}://localhost:{}{}", self.state.scheme, self.address.port(), self.manner().prefix)
    }

    pub fn manner(&self) -> Manner {
        *self.state.manner.lock().unwrap()
    }

    pub fn set_manner(&self, manner: Manner) {
        *self.state.manner.lock().unwrap() = manner;
    }

    /// What happens to the next requests for content.
    pub fn fail(&self, faults: &[Fault]) {
        *self.state.faults.lock().unwrap() = faults.iter().copied().collect();
    }

    pub fn require(&self, authorization: &str) {
        *self.state.authorization.lock().unwrap() = Some(authorization.to_owned());
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    pub fn forget_requests(&self) {
        self.state.requests.lock().unwrap().clear();
    }
}

fn tls_config(certificate: &Path, key: &Path) -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

/// Reads one request; nothing at the end of a connection.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let mut request = Request {
        method: words.next().unwrap_or_default().to_owned(),
        target: words.next().unwrap_or_default().to_owned(),
        headers: HashMap::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => request.headers.insert(name.to_lowercase(), value.to_owned()),
            None => return Ok(Some(request)),
        };
    }
}

impl State {
    fn serve(&self, socket: TcpStream, tls: Option<Arc<rustls::ServerConfig>>) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let raw = socket.try_clone()?;
        let stream: Box<dyn Connection> = match tls {
            Some(config) => {
                let connection = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
                Box::new(rustls::StreamOwned::new(connection, socket))
            }
            None => Box::new(socket),
        };
        let mut reader = BufReader::new(stream);
        while let Some(request) = read_request(&mut reader)? {
            self.requests.lock().unwrap().push(request.clone());
            let goes_on = self.answer(&request, reader.get_mut(), &raw)?;
            if !goes_on || request.header("connection") == Some("close") {
                break;
            }
        }
        Ok(())
    }

    /// Answers, and says whether the connection can go on.
    fn answer(&self, request: &Request, out: &mut dyn Connection, raw: &TcpStream) -> io::Result<bool> {
        let manner = *self.manner.lock().unwrap();
        let required = self.authorization.lock().unwrap().clone();
        // The other host, to which files are redirected, wants no token.
        let is_stored = request.target.contains("/stored/");
        if let Some(required) = required
            && !is_stored
            && request.header("authorization") != Some(&required)
        {
            return refuse(out, request, 401, "");
        }
        let target = request.target.split('?').next().unwrap_or_default();
        let Some(path) = target.strip_prefix(manner.prefix) else { return refuse(out, request, 404, "") };
        let path = path.strip_prefix("/stored").unwrap_or(path);
        let parts: Vec<String> = path.trim_start_matches('/').split('/').map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            ["api", "models", org, name, "revision", revision] if manner.api => {
                self.list(request, out, &format!("{org}/{name}"), revision)
            }
            [org, name, "resolve", revision, file @ ..] => {
                let repository = format!("{org}/{name}");
                let commit = self.commit(&repository, revision).unwrap_or_else(|| (*revision).to_owned());
                let known = self.root.join(&repository).join(&commit);
                match fs::read(known.join(file.join("/"))) {
                    Ok(content) => self.send(request, out, raw, manner, &commit, content, is_stored),
                    Err(_) if known.is_dir() => refuse(
                        out,
                        request,
                        404,
                        &format!("X-Error-Code: EntryNotFound\r\nX-Repo-Commit: {commit}\r\n"),
                    ),
                    Err(_) if self.root.join(&repository).is_dir() => {
                        refuse(out, request, 404, "X-Error-Code: RevisionNotFound\r\n")
                    }
                    Err(_) => refuse(out, request, 404, "X-Error-Code: RepoNotFound\r\n"),
                }
            }
            _ => refuse(out, request, 404, ""),
        }
    }

    /// The commit of a branch, of a tag, or of the beginning of a commit.
    fn commit(&self, repository: &str, revision: &str) -> Option<String> {
        let refs = fs::read(self.root.join("refs.json")).unwrap_or_default();
        let refs: serde_json::Value = serde_json::from_slice(&refs).unwrap_or_default();
        if let Some(commit) = refs[repository][revision].as_str() {
            return Some(commit.to_owned());
        }
        let names = fs::read_dir(self.root.join(repository)).ok()?.flatten();
        names.filter_map(|entry| entry.file_name().into_string().ok()).find(|name| name.starts_with(revision))
    }

    fn list(
        &self,
        request: &Request,
        out: &mut dyn Connection,
        repository: &str,
        revision: &str,
    ) -> io::Result<bool> {
        if !self.root.join(repository).is_dir() {
            return refuse(out, request, 404, "X-Error-Code: RepoNotFound\r\n");
        }
        let Some(commit) = self.commit(repository, revision) else {
            return refuse(out, request, 404, "X-Error-Code: RevisionNotFound\r\n");
        };
        let root = self.root.join(repository).join(&commit);
        let mut siblings = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)?.flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
                let content = fs::read(&path)?;
                siblings.push(serde_json::json!({
                    "rfilename": name, "size": content.len(), "blobId": git_hash(&content),
                    "lfs": {"size": content.len(), "sha256": hex(&Sha256::digest(&content))},
                }));
            }
        }
        let body = serde_json::json!({"sha": commit, "siblings": siblings}).to_string();
        write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        out.flush()?;
        Ok(true)
    }

    #[allow(clippy::too_many_arguments, reason = "it is one answer")]
    fn send(
        &self,
        request: &Request,
        out: &mut dyn Connection,
        raw: &TcpStream,
        manner: Manner,
        commit: &str,
        mut content: Vec<u8>,
        is_stored: bool,
    ) -> io::Result<bool> {
        let hash = match manner.etag {
            Etag::Sha256 => hex(&Sha256::digest(&content)),
            Etag::Wrong => hex(&Sha256::digest(b"something else")),
            Etag::Sha1 | Etag::Weak => hex(&Sha1::digest(&content)),
            Etag::Git => git_hash(&content),
            Etag::Opaque => format!("{:x}-5f3c", content.len()),
            Etag::Escaping => "../../escaped".to_owned(),
            Etag::Absent => String::new(),
        };
        let etag = match manner.etag {
            Etag::Absent => String::new(),
            Etag::Weak => format!("ETag: W/\"{hash}\"\r\n"),
            _ => format!("ETag: \"{hash}\"\r\n"),
        };
        let commit = if manner.commit { format!("X-Repo-Commit: {commit}\r\n") } else { String::new() };
        if !is_stored || matches!(manner.redirect, Redirect::Loop) {
            let path = format!("{}/stored{}", manner.prefix, &request.target[manner.prefix.len()..]);
            let location = match manner.redirect {
                Redirect::No => None,
                Redirect::Relative => Some(path),
                Redirect::OtherHost => Some(format!("{}://127.0.0.1:{}{path}", self.scheme, self.port)),
                Redirect::Loop => Some(request.target.clone()),
                Redirect::Unprotected => Some(format!("http://localhost:{}{path}", self.port)),
            };
            if let Some(location) = location {
                let linked = match (manner.etag, manner.length) {
                    (Etag::Absent, _) | (_, Length::Chunked | Length::Unsaid) => String::new(),
                    _ => format!("X-Linked-ETag: \"{hash}\"\r\nX-Linked-Size: {}\r\n", content.len()),
                };
                write!(
                    out,
                    "HTTP/1.1 307 Temporary Redirect\r\n{etag}{commit}{linked}Location: {location}\r\n\
                     Content-Length: 0\r\n\r\n"
                )?;
                out.flush()?;
                return Ok(true);
            }
        }
        let is_content = request.method == "GET";
        let fault = match is_content {
            true => self.faults.lock().unwrap().pop_front().unwrap_or(Fault::None),
            false => Fault::None,
        };
        match fault {
            Fault::Status(status, wait) => {
                let wait = wait.map_or(String::new(), |seconds| format!("Retry-After: {seconds}\r\n"));
                return refuse(out, request, status, &wait);
            }
            Fault::Silence => {
                std::thread::sleep(Duration::from_secs(60));
                return Ok(false);
            }
            Fault::Garbled => {
                if let Some(byte) = content.first_mut() {
                    *byte ^= 1;
                }
            }
            Fault::None | Fault::EndsAfter(_) | Fault::ResetAfter(_) => {}
        }

        let (mut status, mut headers) = ("200 OK", format!("{etag}{commit}Accept-Ranges: bytes\r\n"));
        let total = content.len();
        let accepts = request.header("accept-encoding").is_some_and(|encodings| encodings.contains("gzip"));
        let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
        match (manner.encoding, range) {
            (Encoding::AlwaysGzip, _) | (Encoding::Gzip, _)
                if manner.encoding == Encoding::AlwaysGzip || accepts =>
            {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&content)?;
                content = encoder.finish()?;
                headers.push_str("Content-Encoding: gzip\r\n");
            }
            (_, Some((first, last))) if manner.ranges != Ranges::Ignored => {
                let first: usize = first.parse().unwrap();
                let end = last.parse().map_or(total, |last: usize| total.min(last + 1));
                if first >= total {
                    return refuse(out, request, 416, &format!("Content-Range: bytes */{total}\r\n"));
                }
                content = content[first..end].to_vec();
                status = "206 Partial Content";
                if manner.ranges == Ranges::Honoured {
                    headers.push_str(&format!("Content-Range: bytes {first}-{}/{total}\r\n", end - 1));
                }
            }
            _ => {}
        }
        match manner.length {
            Length::Announced => headers.push_str(&format!("Content-Length: {}\r\n", content.len())),
            Length::Wrong => headers.push_str(&format!("Content-Length: {}\r\n", content.len() + 1)),
            Length::Chunked => headers.push_str("Transfer-Encoding: chunked\r\n"),
            Length::Unsaid => headers.push_str("Connection: close\r\n"),
        }
        write!(out, "HTTP/1.1 {status}\r\n{headers}\r\n")?;
        if !is_content {
            out.flush()?;
            return Ok(manner.length != Length::Unsaid);
        }
        let sent = match fault {
            Fault::EndsAfter(bytes) | Fault::ResetAfter(bytes) => content.len().min(bytes),
            _ => content.len(),
        };
        if manner.length == Length::Chunked {
            for chunk in content[..sent].chunks(4096) {
                write!(out, "{:x}\r\n", chunk.len())?;
                out.write_all(chunk)?;
                out.write_all(b"\r\n")?;
            }
            if sent == content.len() {
                out.write_all(b"0\r\n\r\n")?;
            }
        } else {
            out.write_all(&content[..sent])?;
        }
        out.flush()?;
        if matches!(fault, Fault::ResetAfter(_)) {
            // With this, closing the connection resets it.
            socket2::SockRef::from(raw).set_linger(Some(Duration::ZERO))?;
        }
        Ok(sent == content.len() && matches!(manner.length, Length::Announced | Length::Chunked))
    }
}

fn refuse(out: &mut dyn Connection, request: &Request, status: u16, headers: &str) -> io::Result<bool> {
    let body = if request.method == "HEAD" { "" } else { "refused" };
    write!(out, "HTTP/1.1 {status} Refused\r\n{headers}Content-Length: 7\r\n\r\n{body}")?;
    out.flush()?;
    Ok(true)
}

fn git_hash(content: &[u8]) -> String {
    let header = format!("blob {}\0", content.len());
    hex(&Sha1::new_with_prefix(header).chain_update(content).finalize())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A proxy that leads to one hub, whatever host is asked for.
pub struct Proxy {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Proxy {
    pub fn start(hub: &Hub) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (log, hub) = (requests.clone(), hub.address);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let log = log.clone();
                std::thread::spawn(move || pass_on(client, hub, &log).ok());
            }
        });
        Self { address, requests }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

/// Passes one connection on: a tunnel after CONNECT, else requests with whole URLs.
fn pass_on(client: TcpStream, hub: SocketAddr, log: &Mutex<Vec<Request>>) -> io::Result<()> {
    let mut from_client = BufReader::new(client.try_clone()?);
    let (mut to_client, mut server) = (client, TcpStream::connect(hub)?);
    to_client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let Some(request) = read_request(&mut from_client)? else { return Ok(()) };
    log.lock().unwrap().push(request.clone());
    if request.method == "CONNECT" {
        to_client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n")?;
    } else {
        let Some(path) =
            request.target.strip_prefix("http://").and_then(|rest| rest.find('/').map(|at| &rest[at..]))
        else {
            return to_client.write_all(b"HTTP/1.1 400 No URL\r\nContent-Length: 0\r\n\r\n");
        };
        write!(server, "{} {path} HTTP/1.1\r\n", request.method)?;
        for (name, value) in request.headers.iter().filter(|(name, _)| !name.starts_with("proxy-")) {
            write!(server, "{name}: {value}\r\n")?;
        }
        // One request for each connection is enough here.
        write!(server, "Connection: close\r\n\r\n")?;
    }
    let mut from_server = server.try_clone()?;
    let back = std::thread::spawn(move || {
        let copied = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(std::net::Shutdown::Both);
        copied
    });
    if request.method == "CONNECT" {
        io::copy(&mut from_client, &mut server)?;
    }
    let _ = back.join();
    Ok(())
}
