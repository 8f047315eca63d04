//! Forwards to a hub like a proxy.

use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::Hub;
use super::request::{Request, read_request};

/// A proxy that forwards to one hub, whatever host is asked for.
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

/// Forwards one connection: a tunnel after CONNECT, otherwise requests with whole URLs.
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
        // One request per connection is enough here.
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
