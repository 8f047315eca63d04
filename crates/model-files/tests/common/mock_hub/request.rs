//! Reads HTTP requests, and rejects bad ones.

use std::collections::HashMap;
use std::io::{self, BufRead, Write};

/// A request as received.
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

/// Reads one request; `None` at the end of a connection.
pub fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
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

pub fn refuse(out: &mut dyn Write, request: &Request, status: u16, headers: &str) -> io::Result<bool> {
    let body = if request.method == "HEAD" { "" } else { "refused" };
    write!(out, "HTTP/1.1 {status} Refused\r\n{headers}Content-Length: 7\r\n\r\n{body}")?;
    out.flush()?;
    Ok(true)
}
