//! Greets connections side by side, so that none can delay the others.

use super::greeting::{GREETING, Greeting, Nonce, Stranger, challenge, keys, new_nonce};
use super::secret::Secret;
use super::sockets::{OTHER_SECRET, Peer};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The time limit for a greeting; silent connections are not ranks.
const GREETING_TIME: Duration = Duration::from_secs(5);
/// The most connections that may be silent at a time; the oldest makes room.
const MOST_WAITING: usize = 256;

/// A connection whose greeting has not arrived.
struct Waiting {
    stream: TcpStream,
    address: SocketAddr,
    nonce: Nonce,
    greeting: [u8; GREETING],
    received: usize,
    since: Instant,
}

/// Connections that are being greeted.
pub(super) struct Reception<'a> {
    secret: Option<&'a Secret>,
    waiting: Vec<Waiting>,
    /// Strangers without the secret; only the first is worth a warning.
    strangers: usize,
}

impl<'a> Reception<'a> {
    pub(super) fn new(secret: Option<&'a Secret>) -> Self {
        Self { secret, waiting: Vec::new(), strangers: 0 }
    }

    /// Takes up new connections, and returns those that have greeted. What goes wrong with one concerns no other.
    ///
    /// # Errors
    /// If the listener itself fails.
    pub(super) fn look(&mut self, listener: &TcpListener) -> io::Result<Vec<(Greeting, Peer)>> {
        // Those that wait are served between any two bursts of new ones.
        for _ in 0..MOST_WAITING {
            match listener.accept() {
                Ok((stream, address)) => self.challenge(stream, address),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // A client that left before it was accepted, or no file descriptors until others leave.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted || is_shortage(&error) => break,
                Err(error) => return Err(error),
            }
        }
        let mut greeted = Vec::new();
        for mut one in std::mem::take(&mut self.waiting) {
            match one.read() {
                Ok(true) => greeted.extend(self.verify(one)),
                Ok(false) if one.since.elapsed() < GREETING_TIME => self.waiting.push(one),
                Ok(false) => tracing::debug!("{}: said nothing in time", one.address),
                Err(error) => tracing::debug!("{}: {error}", one.address),
            }
        }
        Ok(greeted)
    }

    fn challenge(&mut self, mut stream: TcpStream, address: SocketAddr) {
        let nonce = new_nonce();
        let sent = stream.set_nonblocking(true).and_then(|()| stream.write_all(&challenge(&nonce)));
        if let Err(error) = sent {
            tracing::debug!("{address}: {error}");
            return;
        }
        if self.waiting.len() >= MOST_WAITING {
            self.waiting.remove(0);
        }
        let (greeting, since) = ([0; GREETING], Instant::now());
        self.waiting.push(Waiting { stream, address, nonce, greeting, received: 0, since });
    }

    /// A peer that knows the secret.
    fn verify(&mut self, one: Waiting) -> Option<(Greeting, Peer)> {
        let Waiting { stream, address, nonce, greeting, .. } = one;
        let verified = Greeting::verified(&greeting, self.secret, &nonce);
        let rank = verified.map_or(0, |greeting| usize::try_from(greeting.rank).unwrap_or(usize::MAX));
        let keys = verified.ok().and_then(|greeting| keys(self.secret, &nonce, &greeting.nonce, true));
        let peer = stream.set_nonblocking(false).ok().and_then(|()| Peer::new(rank, stream, keys).ok())?;
        match verified {
            Ok(greeting) => Some((greeting, peer)),
            Err(Stranger::Secret) => {
                if self.strangers == 0 {
                    tracing::warn!("{address}: sent away, it does not know this run's secret");
                }
                self.strangers += 1;
                peer.refuse(OTHER_SECRET);
                None
            }
            Err(Stranger::Other) => {
                tracing::debug!("{address}: sent away, it is no rank");
                None
            }
        }
    }
}

impl Waiting {
    /// Reads what has arrived. Whether the greeting is complete.
    fn read(&mut self) -> io::Result<bool> {
        while self.received < GREETING {
            let rest = self.greeting.get_mut(self.received..).unwrap_or_default();
            match self.stream.read(rest) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.received += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Whether this process or the system has no file descriptors or memory left at the moment.
fn is_shortage(error: &io::Error) -> bool {
    // EMFILE and ENFILE have these numbers on all Unix systems.
    matches!(error.raw_os_error(), Some(23 | 24)) || error.kind() == ErrorKind::OutOfMemory
}
