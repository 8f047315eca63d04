//! Connects ranks over TCP, through rank 0.
//!
//! For training on CPUs, on one machine or several, and for the few bytes that ranks with GPUs exchange besides
//! gradients. Every exchange goes to rank 0, which combines the ranks in order and sends all of them the result, so
//! sums are always taken in the same order.
//!
//! A rank may be busy for hours while the others wait, such as rank 0 filling a cache, so there is no time limit. A
//! process that ends closes its connection, and a machine that is gone does not answer the system's probes: both are
//! errors that name the rank. With a secret, every message has a tag, so that nobody between two ranks can change one.
//! None is encrypted: gradients can be read on the way.

use super::communicator::Communicator;
use super::secret::{MessageKeys, TAG};
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

/// The time for telling a peer that it is not let in.
const REFUSAL_TIME: Duration = Duration::from_millis(100);
/// Bytes before a message.
const HEADER: usize = 16;

/// Numbers in a refusal, beside the expected number of ranks.
pub(super) const OTHER_SECRET: usize = usize::MAX;
pub(super) const RANK_IS_TAKEN: usize = usize::MAX - 1;

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
            let sent = peer.send(kind, own);
            if sent.is_err() {
                peer.close();
            }
            // Rank 0 may have given up, after reporting which rank it lost.
            peer.receive(kind, &mut result)?;
            sent?;
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
    /// This process is not let in; the number says why.
    Refused,
}

/// Another rank and its connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub rank: usize,
    stream: TcpStream,
    /// None without a secret: messages have no tags then.
    keys: Option<MessageKeys>,
}

impl Peer {
    /// # Errors
    /// If the system does not allow the probes.
    pub(super) fn new(rank: usize, stream: TcpStream, keys: Option<MessageKeys>) -> Result<Self> {
        let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY);
        let set = stream.set_nodelay(true).and_then(|()| SockRef::from(&stream).set_tcp_keepalive(&probes));
        let peer = Self { rank, stream, keys };
        set.map_err(|error| peer.lost(&error))?;
        Ok(peer)
    }

    /// Sets a time limit, or none.
    pub(super) fn set_patience(&self, patience: Option<Duration>) -> Result<()> {
        self.stream.set_read_timeout(patience).map_err(|error| self.lost(&error))
    }

    /// Whether the connection is still open, as far as is known here.
    pub(super) fn is_there(&self) -> bool {
        let looked = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut [0]));
        let is_open = match looked {
            Ok(bytes) => bytes > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };
        is_open && self.stream.set_nonblocking(false).is_ok()
    }

    /// Says that the peer is not let in. It need not hear it.
    pub(super) fn refuse(&self, number: usize) {
        let _ = self.stream.set_write_timeout(Some(REFUSAL_TIME));
        let _ = (&self.stream).write_all(&header(MessageKind::Refused, number));
    }

    pub(super) fn send(&self, kind: MessageKind, payload: &[u8]) -> Result<()> {
        self.write(&header(kind, payload.len()), payload).map_err(|error| self.lost(&error))
    }

    fn send_header(&self, kind: MessageKind, number: usize) -> Result<()> {
        self.write(&header(kind, number), &[]).map_err(|error| self.lost(&error))
    }

    fn write(&self, header: &[u8; HEADER], payload: &[u8]) -> io::Result<()> {
        let mut stream = &self.stream;
        stream.write_all(header)?;
        stream.write_all(payload)?;
        match &self.keys {
            Some(keys) => stream.write_all(&keys.send.tag(header, payload)),
            None => Ok(()),
        }
    }

    /// Fills `payload` with the peer's message, which must have this kind and length.
    pub(super) fn receive(&self, kind: MessageKind, payload: &mut [u8]) -> Result<()> {
        let mut words = [0; HEADER];
        (&self.stream).read_exact(&mut words).map_err(|error| self.lost(&error))?;
        let (found, number) = numbers(&words);
        if found == MessageKind::Refused as u64 && kind == MessageKind::Welcome {
            return Err(Error::Rank { rank: self.rank, problem: refusal(number) });
        }
        if found == MessageKind::Lost as u64 {
            self.verify(&words, &[])?;
            let problem = "was lost, as rank 0 says".to_owned();
            return Err(Error::Rank { rank: usize::try_from(number).unwrap_or(usize::MAX), problem });
        }
        if (found, number) != (kind as u64, payload.len() as u64) {
            let expected = payload.len();
            let problem = format!(
                "does something else: expected a {kind:?} of {expected} bytes, found message {found} of {number}; all \
                 ranks need the same program, settings and data"
            );
            return Err(Error::Rank { rank: self.rank, problem });
        }
        (&self.stream).read_exact(payload).map_err(|error| self.lost(&error))?;
        self.verify(&words, payload)
    }

    /// Checks a message's tag, which follows it.
    fn verify(&self, header: &[u8; HEADER], payload: &[u8]) -> Result<()> {
        let Some(keys) = &self.keys else { return Ok(()) };
        let mut tag = [0; TAG];
        (&self.stream).read_exact(&mut tag).map_err(|error| self.lost(&error))?;
        if keys.receive.is_tag(header, payload, &tag) {
            return Ok(());
        }
        let problem = "sent a message that was changed on the way, or does not know the secret".to_owned();
        Err(Error::Rank { rank: self.rank, problem })
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

fn header(kind: MessageKind, number: usize) -> [u8; HEADER] {
    let mut words = [0; HEADER];
    let (kind_word, number_word) = words.split_at_mut(8);
    kind_word.copy_from_slice(&(kind as u64).to_le_bytes());
    number_word.copy_from_slice(&(number as u64).to_le_bytes());
    words
}

/// The kind and the number in a header.
fn numbers(header: &[u8; HEADER]) -> (u64, u64) {
    let (words, _) = header.as_chunks();
    let mut words = words.iter().copied().map(u64::from_le_bytes);
    (words.next().unwrap_or_default(), words.next().unwrap_or_default())
}

/// Why rank 0 does not let this process in.
fn refusal(number: u64) -> String {
    match usize::try_from(number).unwrap_or(OTHER_SECRET) {
        OTHER_SECRET => "has another secret, or none".to_owned(),
        RANK_IS_TAKEN => "has another process of this rank already".to_owned(),
        ranks => format!("was started as one of {ranks}, expected the same --ranks on all"),
    }
}
