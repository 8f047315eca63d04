//! Sends the content of a file like the hub.

use std::io::{self, Write};
use std::net::TcpStream;
use std::time::Duration;

use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::manner::{Encoding, Etag, Fault, Length, Manner, Ranges, Redirect};
use super::request::{Request, refuse};
use super::state::State;

/// A file of a commit, and whether it lies in the hub's store rather than in the repository.
pub struct File<'a> {
    pub commit: &'a str,
    pub content: Vec<u8>,
    pub is_stored: bool,
}

impl State {
    pub fn send(
        &self,
        request: &Request,
        out: &mut dyn Write,
        raw: &TcpStream,
        manner: Manner,
        file: File,
    ) -> io::Result<bool> {
        let File { commit, mut content, is_stored } = file;
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
            Fault::Limited(seconds) => {
                let limits = format!("RateLimit: \"resolvers\";r=0;t={seconds}\r\n");
                return refuse(out, request, 429, &limits);
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
            // This makes closing the connection reset it.
            socket2::SockRef::from(raw).set_linger(Some(Duration::ZERO))?;
        }
        Ok(sent == content.len() && matches!(manner.length, Length::Announced | Length::Chunked))
    }
}

pub fn git_hash(content: &[u8]) -> String {
    let header = format!("blob {}\0", content.len());
    hex(&Sha1::new_with_prefix(header).chain_update(content).finalize())
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
