//! Connects ranks over TCP, through rank 0.
//!
//! For training on CPUs, on one machine or several, and for the few bytes that ranks with GPUs exchange besides
//! gradients. Every exchange goes to rank 0, which combines the ranks in order and sends all of them the result, so
//! sums are always taken in the same order.
//!
//! A rank may be busy for hours while the others wait, such as rank 0 filling a cache, so there is no time limit. A
//! process that ends closes its connection, and a machine that is gone does not answer the system's probes: both are
//! errors that name the rank. Messages are neither encrypted nor signed, as is usual for such programs: use a trusted
//! network.

use super::communicator::Communicator;
use crate::error::{Error, Result};
use candle_core::Tensor;
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

/// Silence after which a peer is probed.
const PROBE_AFTER: Duration = Duration::from_secs(30);
/// Time between probes; after several of them, nine on Linux, the peer is lost.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// Ranks connected by TCP.
#[derive(Debug)]
pub struct Sockets {
    rank: usize,
    ranks: usize,
    /// On rank 0 all others, in order; on the others rank 0.
    peers: Vec<Peer>,
}

impl Sockets {
    pub(super) fn new(rank: usize, ranks: usize, peers: Vec<Peer>) -> Self {
        Self { rank, ranks, peers }
    }

    /// Sends `own` to rank 0, which combines what all send, in order of rank, and sends everyone the result.
    fn exchange(
        &self,
        kind: MessageKind,
        own: Vec<u8>,
        result_len: usize,
        join: impl Fn(&mut Vec<u8>, &[u8]),
    ) -> Result<Vec<u8>> {
        if self.rank != 0 {
            return self.ask(kind, &own, result_len);
        }
        let result = self.answer(kind, own, join);
        if let Err(Error::Rank { rank, .. }) = &result {
            // Otherwise the others would only see that rank 0 is gone.
            for peer in self.peers.iter().filter(|peer| peer.rank != *rank) {
                let _ = peer.send_header(MessageKind::Lost, *rank);
            }
            self.peers.iter().for_each(Peer::close);
        }
        result
    }

    fn answer(&self, kind: MessageKind, own: Vec<u8>, join: impl Fn(&mut Vec<u8>, &[u8])) -> Result<Vec<u8>> {
        let mut received = vec![0; own.len()];
        let mut result = own;
        for peer in &self.peers {
            peer.receive(kind, &mut received)?;
            join(&mut result, &received);
        }
        for peer in &self.peers {
            peer.send(kind, &result)?;
        }
        Ok(result)
    }

    fn ask(&self, kind: MessageKind, own: &[u8], result_len: usize) -> Result<Vec<u8>> {
        let mut result = vec![0; result_len];
        for peer in &self.peers {
            let said = peer.send(kind, own);
            if said.is_err() {
                peer.close();
            }
            // Rank 0 may have given up, after reporting which rank it lost.
            peer.receive(kind, &mut result)?;
            said?;
        }
        Ok(result)
    }
}

impl Communicator for Sockets {
    fn rank(&self) -> usize {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.ranks
    }

    fn sum(&self, values: &Tensor) -> Result<Tensor> {
        let own: Vec<f32> = values.flatten_all()?.to_vec1()?;
        let own = own.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
        let len = own.len();
        let sum = self.exchange(MessageKind::Sum, own, len, |sum, other| add(sum, other))?;
        let (sum, _) = sum.as_chunks();
        let sum: Vec<f32> = sum.iter().copied().map(f32::from_le_bytes).collect();
        Ok(Tensor::from_vec(sum, values.shape(), values.device())?)
    }

    fn gather(&self, word: u64) -> Result<Vec<u64>> {
        let own = word.to_le_bytes();
        let len = own.len() * self.ranks;
        let words = self.exchange(MessageKind::Gather, own.to_vec(), len, |all, other| all.extend(other))?;
        let (words, _) = words.as_chunks();
        Ok(words.iter().copied().map(u64::from_le_bytes).collect())
    }
}

/// Adds f32 values in their wire format.
fn add(sum: &mut [u8], other: &[u8]) {
    let (sum, _) = sum.as_chunks_mut();
    let (other, _) = other.as_chunks();
    for (sum, other) in sum.iter_mut().zip(other) {
        *sum = (f32::from_le_bytes(*sum) + f32::from_le_bytes(*other)).to_le_bytes();
    }
}

/// The kind of a message. It starts with this and a number, two little-endian words; the number is the length of what
/// follows or, for `Lost`, the rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageKind {
    /// Rank 0 ends because of that rank.
    Lost = 1,
    /// All ranks have connected.
    Welcome,
    Gather,
    Sum,
}

/// Another rank and its connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub rank: usize,
    stream: TcpStream,
}

impl Peer {
    /// # Errors
    /// If the system does not allow the probes.
    pub(super) fn new(rank: usize, stream: TcpStream) -> Result<Self> {
        let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY);
        let set = stream.set_nodelay(true).and_then(|()| SockRef::from(&stream).set_tcp_keepalive(&probes));
        let peer = Self { rank, stream };
        set.map_err(|error| peer.lost(&error))?;
        Ok(peer)
    }

    /// Sets a time limit, or none.
    pub(super) fn set_patience(&self, patience: Option<Duration>) -> Result<()> {
        self.stream.set_read_timeout(patience).map_err(|error| self.lost(&error))
    }

    pub(super) fn send(&self, kind: MessageKind, payload: &[u8]) -> Result<()> {
        self.send_header(kind, payload.len())?;
        (&self.stream).write_all(payload).map_err(|error| self.lost(&error))
    }

    fn send_header(&self, kind: MessageKind, number: usize) -> Result<()> {
        let mut words = [0; 16];
        let (kind_word, number_word) = words.split_at_mut(8);
        kind_word.copy_from_slice(&(kind as u64).to_le_bytes());
        number_word.copy_from_slice(&(number as u64).to_le_bytes());
        (&self.stream).write_all(&words).map_err(|error| self.lost(&error))
    }

    /// Fills `payload` with the peer's message, which must have this kind and length.
    pub(super) fn receive(&self, kind: MessageKind, payload: &mut [u8]) -> Result<()> {
        let mut words = [0; 16];
        (&self.stream).read_exact(&mut words).map_err(|error| self.lost(&error))?;
        let (words, _) = words.as_chunks();
        let mut words = words.iter().copied().map(u64::from_le_bytes);
        let (said, number) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if said == MessageKind::Lost as u64 {
            let problem = "was lost, as rank 0 says".to_owned();
            return Err(Error::Rank { rank: usize::try_from(number).unwrap_or(usize::MAX), problem });
        }
        if (said, number) != (kind as u64, payload.len() as u64) {
            let expected = payload.len();
            let problem = format!(
                "does something else: expected a {kind:?} of {expected} bytes, found message {said} of {number}; all \
                 ranks need the same program, settings and data"
            );
            return Err(Error::Rank { rank: self.rank, problem });
        }
        (&self.stream).read_exact(payload).map_err(|error| self.lost(&error))
    }

    fn close(&self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    fn lost(&self, error: &io::Error) -> Error {
        let problem = match error.kind() {
            ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe => "was lost: its process has ended, and may have said why".to_owned(),
            ErrorKind::WouldBlock | ErrorKind::TimedOut => "was lost: it does not answer".to_owned(),
            _ => format!("was lost: {error}"),
        };
        Error::Rank { rank: self.rank, problem }
    }
}
