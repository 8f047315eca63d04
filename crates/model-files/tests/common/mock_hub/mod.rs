//! Serves models on this machine like the hub, like mirrors and proxies, and like broken servers.
//!
//! A root directory holds `org/name/<commit>/<files>`, and `refs.json` such as `{"org/name": {"main": "<commit>"}}`.

#![allow(dead_code, unused_imports, reason = "not all tests need everything")]

mod content;
mod manner;
mod proxy;
mod request;
mod state;

use std::fs;
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

pub use content::hex;
use content::{File, git_hash};
pub use manner::{Encoding, Etag, Fault, Length, Manner, Ranges, Redirect};
pub use proxy::Proxy;
pub use request::Request;
use request::{read_request, refuse};
use state::State;

trait Connection: Read + Write {}
impl<T: Read + Write> Connection for T {}

/// A hub that runs until the process ends.
pub struct Hub {
    pub address: SocketAddr,
    pub is_encrypted: bool,
    state: Arc<State>,
}

impl Hub {
    /// Serves `root` on a free port.
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
                // A client that hangs up early is not the hub's failure.
                std::thread::spawn(move || state.serve(connection, tls).ok());
            }
        });
        Self { address, is_encrypted, state }
    }

    /// The URL for HF_ENDPOINT.
    pub fn endpoint(&self) -> String {
        format!("{}://localhost:{}{}", self.state.scheme, self.address.port(), self.manner().prefix)
    }

    pub fn manner(&self) -> Manner {
        *self.state.manner.lock().unwrap()
    }

    pub fn set_manner(&self, manner: Manner) {
        *self.state.manner.lock().unwrap() = manner;
    }

    /// Sets what happens to the next content requests.
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

    /// Answers, and returns whether to keep the connection.
    fn answer(&self, request: &Request, out: &mut dyn Connection, raw: &TcpStream) -> io::Result<bool> {
        let manner = *self.manner.lock().unwrap();
        let required = self.authorization.lock().unwrap().clone();
        // The host that files are redirected to must not get a token.
        let is_stored = request.target.contains("/stored/");
        if let Some(required) = required
            && !is_stored
            && request.header("authorization") != Some(&required)
        {
            let message = "X-Error-Message: Invalid credentials in Authorization header\r\n";
            return refuse(out, request, 401, message);
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
                    Ok(content) => {
                        self.send(request, out, raw, manner, File { commit: &commit, content, is_stored })
                    }
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
}

fn decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}
