//! Connects the processes of a run: rank 0 listens, and the others connect.

use super::communicator::Communicator;
use super::greeting::{CHALLENGE, Greeting, keys, new_nonce, nonce_of};
#[cfg(feature = "nccl")]
use super::nccl::Nccl;
use super::reception::Reception;
use super::secret::Secret;
use super::sockets::{MessageKind, Peer, RANK_IS_TAKEN, Sockets};
use crate::error::{Error, Result};
use candle_core::Device;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The time limit for rank 0's challenge; whoever listens in silence is another program.
const CHALLENGE_TIME: Duration = Duration::from_secs(5);
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
    /// What all ranks know and nobody else. Without it, anyone who reaches the address can be a rank.
    pub secret: Option<Secret>,
    /// Whether to meet without a secret at an address that other machines reach.
    pub insecure: bool,
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
        let addresses = self.addresses();
        if self.secret.is_none() && !self.insecure {
            let is_outside = |address: &&SocketAddr| !address.ip().is_loopback();
            if let Some(outside) = addresses.iter().flatten().find(is_outside) {
                return Err(Error::Setting(format!(
                    "rendezvous: other machines reach {outside}, where anyone could join a run without a secret; expected \
                     --secret-file FILE, or an address of this machine alone such as 127.0.0.1:29500"
                )));
            }
        }
        if self.rank == 0 {
            let listener = TcpListener::bind(&self.address).map_err(Error::io(&self.address))?;
            self.listen(&listener)
        } else {
            self.connect()
        }
    }

    /// Rank 0's part, on an existing listener. Strangers neither end it nor delay it.
    ///
    /// # Errors
    /// If the others do not come in time.
    pub fn listen(&self, listener: &TcpListener) -> Result<Sockets> {
        listener.set_nonblocking(true).map_err(Error::io(&self.address))?;
        let start = Instant::now();
        let mut reception = Reception::new(self.secret.as_ref());
        let mut peers = BTreeMap::new();
        while peers.len() + 1 < self.ranks {
            for (greeting, peer) in reception.look(listener).map_err(Error::io(&self.address))? {
                self.admit(greeting, peer, &mut peers);
            }
            if peers.len() + 1 == self.ranks {
                // One that has left in the meantime may come again.
                peers.retain(|_, peer: &mut Peer| peer.is_there());
                continue;
            }
            if start.elapsed() >= self.patience {
                let missing = (1..self.ranks).find(|rank| !peers.contains_key(rank));
                let problem = format!("did not come to {} within {:?}", self.address, self.patience);
                return Err(Error::Rank { rank: missing.unwrap_or_default(), problem });
            }
            sleep(LOOK_EVERY);
        }
        for peer in peers.values() {
            peer.set_patience(None)?;
            peer.send(MessageKind::Welcome, &[])?;
        }
        Ok(Sockets::new(0, self.ranks, peers.into_values().collect()))
    }

    /// Lets a peer in, or tells it why not.
    fn admit(&self, greeting: Greeting, peer: Peer, peers: &mut BTreeMap<usize, Peer>) {
        let rank = peer.rank;
        if greeting.ranks != self.ranks as u64 || !(1..self.ranks).contains(&rank) {
            tracing::warn!("rank {rank} of {}: sent away, expected one of {}", greeting.ranks, self.ranks);
            peer.refuse(self.ranks);
        } else if peers.get(&rank).is_some_and(Peer::is_there) {
            tracing::warn!("rank {rank}: sent away, for another process has this rank");
            peer.refuse(RANK_IS_TAKEN);
        } else {
            peers.insert(rank, peer);
        }
    }

    /// The part of any other rank.
    fn connect(&self) -> Result<Sockets> {
        let start = Instant::now();
        let first = loop {
            match self.try_connect(start) {
                Ok(peer) => break peer,
                // Waiting does not make an invalid address valid.
                Err(error) if error.kind() == ErrorKind::InvalidInput || start.elapsed() >= self.patience => {
                    let problem = format!("cannot be reached at {}: {error}", self.address);
                    return Err(Error::Rank { rank: 0, problem });
                }
                Err(_) => sleep(LOOK_EVERY),
            }
        };
        first.set_patience(Some(self.left(start)))?;
        first.receive(MessageKind::Welcome, &mut [])?;
        first.set_patience(None)?;
        Ok(Sockets::new(self.rank, self.ranks, vec![first]))
    }

    /// A name may have several addresses, one of which is listened on.
    fn try_connect(&self, start: Instant) -> io::Result<Peer> {
        let mut result = Err(ErrorKind::AddrNotAvailable.into());
        for address in self.addresses()? {
            let stream = TcpStream::connect_timeout(&address, self.left(start));
            result = stream.and_then(|stream| self.greet(stream, start));
            if result.is_ok() {
                break;
            }
        }
        result
    }

    /// Answers rank 0's challenge.
    fn greet(&self, mut stream: TcpStream, start: Instant) -> io::Result<Peer> {
        let mut challenge = [0; CHALLENGE];
        stream.set_read_timeout(Some(self.left(start).min(CHALLENGE_TIME)))?;
        stream.read_exact(&mut challenge)?;
        let of_first = nonce_of(&challenge)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "another program listens there"))?;
        let greeting = Greeting { rank: self.rank as u64, ranks: self.ranks as u64, nonce: new_nonce() };
        stream.write_all(&greeting.to_bytes(self.secret.as_ref(), &of_first))?;
        let keys = keys(self.secret.as_ref(), &of_first, &greeting.nonce, false);
        Peer::new(0, stream, keys).map_err(io::Error::other)
    }

    fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        Ok(self.address.to_socket_addrs()?.collect())
    }

    /// The remaining time, never zero, which sockets do not accept.
    fn left(&self, start: Instant) -> Duration {
        self.patience.saturating_sub(start.elapsed()).max(LOOK_EVERY)
    }
}
