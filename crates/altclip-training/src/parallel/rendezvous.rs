//! Connects the processes of a run: rank 0 listens, and the others connect.

use super::communicator::Communicator;
#[cfg(feature = "nccl")]
use super::nccl::Nccl;
use super::sockets::{MessageKind, Peer, Sockets};
use crate::error::{Error, Result};
use candle_core::Device;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What every rank sends first.
const GREETING: &[u8; 8] = b"altranks";
/// The time limit for a greeting; silent connections are not ranks.
const GREETING_TIME: Duration = Duration::from_secs(5);
/// How often to check for new connections.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// More processes than anybody has GPUs for.
const MOST_RANKS: usize = 4096;

/// How the processes of a run meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendezvous {
    /// The rank of this process, from 0.
    pub rank: usize,
    /// The number of ranks.
    pub ranks: usize,
    /// `HOST:PORT` where rank 0 listens, and only there.
    pub address: String,
    /// How long to wait for the others.
    pub patience: Duration,
}

/// Meets the other ranks. If this build has the feature `nccl` and all ranks compute on NVIDIA GPUs, gradients go
/// from GPU to GPU, otherwise through sockets and rank 0.
///
/// # Errors
/// If `rendezvous` has no such rank, the others do not come in time, or only some of the ranks have a GPU.
pub fn join(rendezvous: &Rendezvous, device: &Device) -> Result<Box<dyn Communicator>> {
    let sockets = rendezvous.meet()?;
    let all: &dyn Communicator = &sockets;
    all.agree("kind of device", u64::from(device.is_cuda()))?;
    #[cfg(feature = "nccl")]
    if let Device::Cuda(device) = device {
        return Ok(Box::new(Nccl::new(sockets, device)?));
    }
    #[cfg(not(feature = "nccl"))]
    if device.is_cuda() {
        tracing::warn!("gradients are exchanged through the CPU; a build with `--features nccl` is faster");
    }
    Ok(Box::new(sockets))
}

impl Rendezvous {
    /// Meets the other ranks, waiting for all.
    ///
    /// # Errors
    /// If there is no such rank, the address cannot be used, or the others do not come in time.
    pub fn meet(&self) -> Result<Sockets> {
        if !(1..=MOST_RANKS).contains(&self.ranks) {
            let problem = format!("expected 1 to {MOST_RANKS}, found {}", self.ranks);
            return Err(Error::Setting(format!("ranks: {problem}")));
        }
        if self.rank >= self.ranks {
            let Self { rank, ranks, .. } = self;
            return Err(Error::Setting(format!("rank: expected a number below {ranks}, found {rank}")));
        }
        if self.rank == 0 {
            let listener = TcpListener::bind(&self.address).map_err(Error::io(&self.address))?;
            self.listen(&listener)
        } else {
            self.connect()
        }
    }

    /// Rank 0's part, on an existing listener.
    ///
    /// # Errors
    /// If the others do not come in time, or two have the same rank.
    pub fn listen(&self, listener: &TcpListener) -> Result<Sockets> {
        listener.set_nonblocking(true).map_err(Error::io(&self.address))?;
        let start = Instant::now();
        let mut peers = BTreeMap::new();
        while peers.len() + 1 < self.ranks {
            match listener.accept() {
                Ok((stream, _)) => {
                    let Some(rank) = self.greeted(&stream)? else { continue };
                    if peers.insert(rank, Peer::new(rank, stream)?).is_some() {
                        let problem = "expected one process of this rank, found two".to_owned();
                        return Err(Error::Rank { rank, problem });
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if start.elapsed() >= self.patience {
                        let missing = (1..self.ranks).find(|rank| !peers.contains_key(rank));
                        let problem = format!("did not come to {} within {:?}", self.address, self.patience);
                        return Err(Error::Rank { rank: missing.unwrap_or_default(), problem });
                    }
                    sleep(LOOK_EVERY);
                }
                // A client that left before it was accepted.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(Error::io(&self.address)(error)),
            }
        }
        for peer in peers.values() {
            peer.set_patience(None)?;
            peer.send(MessageKind::Welcome, &[])?;
        }
        Ok(Sockets::new(0, self.ranks, peers.into_values().collect()))
    }

    /// The rank of a new connection; `None` for port scanners.
    fn greeted(&self, mut stream: &TcpStream) -> Result<Option<usize>> {
        let mut greeting = [0; GREETING.len() + 16];
        let read = stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(GREETING_TIME)))
            .and_then(|()| stream.read_exact(&mut greeting));
        let Some(words) = greeting.strip_prefix(GREETING).filter(|_| read.is_ok()) else { return Ok(None) };
        let (words, _) = words.as_chunks();
        let words: Vec<u64> = words.iter().copied().map(u64::from_le_bytes).collect();
        let [rank, ranks] = words[..] else { return Ok(None) };
        let rank = usize::try_from(rank).unwrap_or(usize::MAX);
        if ranks != self.ranks as u64 || !(1..self.ranks).contains(&rank) {
            let problem = format!("was started as one of {ranks}, expected one of {}", self.ranks);
            return Err(Error::Rank { rank, problem });
        }
        Ok(Some(rank))
    }

    /// The part of any other rank.
    fn connect(&self) -> Result<Sockets> {
        let start = Instant::now();
        let stream = loop {
            match self.try_connect(start) {
                Ok(stream) => break stream,
                // Waiting does not make an invalid address valid.
                Err(error) if error.kind() == ErrorKind::InvalidInput || start.elapsed() >= self.patience => {
                    let problem = format!("cannot be reached at {}: {error}", self.address);
                    return Err(Error::Rank { rank: 0, problem });
                }
                Err(_) => sleep(LOOK_EVERY),
            }
        };
        let (rank, ranks) = (self.rank as u64, self.ranks as u64);
        let greeting = [GREETING.as_slice(), &rank.to_le_bytes(), &ranks.to_le_bytes()].concat();
        let sent = (&stream).write_all(&greeting);
        let first = Peer::new(0, stream)?;
        sent.map_err(Error::io(&self.address))?;
        first.set_patience(Some(self.left(start)))?;
        first.receive(MessageKind::Welcome, &mut [])?;
        first.set_patience(None)?;
        Ok(Sockets::new(self.rank, self.ranks, vec![first]))
    }

    /// A name may have several addresses, one of which is listened on.
    fn try_connect(&self, start: Instant) -> std::io::Result<TcpStream> {
        let mut result = Err(ErrorKind::AddrNotAvailable.into());
        for address in self.address.to_socket_addrs()? {
            result = TcpStream::connect_timeout(&address, self.left(start));
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// The remaining time, never zero, which sockets do not accept.
    fn left(&self, start: Instant) -> Duration {
        self.patience.saturating_sub(start.elapsed()).max(LOOK_EVERY)
    }
}
