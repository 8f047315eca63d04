//! Defines what two processes say first: rank 0 a nonce, and the other who it is, with a proof that it knows the
//! run's secret.

use super::secret::{MessageKey, MessageKeys, Secret, TAG, is_tag, tag};
use rand::RngExt;

/// What both sides say first. The digit is the version of the protocol.
const MAGIC: &[u8; 8] = b"altrank2";
/// Bytes of rank 0's challenge and of the answer.
pub(super) const CHALLENGE: usize = MAGIC.len() + TAG;
pub(super) const GREETING: usize = MAGIC.len() + 8 + 8 + TAG + TAG;

const TO_FIRST: &[u8] = b"to rank 0";
const FROM_FIRST: &[u8] = b"from rank 0";

/// A number used once.
pub(super) type Nonce = [u8; TAG];

pub(super) fn new_nonce() -> Nonce {
    rand::rng().random()
}

/// Who answers a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) rank: u64,
    pub(super) ranks: u64,
    pub(super) nonce: Nonce,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stranger {
    /// It speaks another protocol.
    Other,
    /// It does not know the secret.
    Secret,
}

pub(super) fn challenge(nonce: &Nonce) -> [u8; CHALLENGE] {
    let mut bytes = [0; CHALLENGE];
    let (magic, own) = bytes.split_at_mut(MAGIC.len());
    magic.copy_from_slice(MAGIC);
    own.copy_from_slice(nonce);
    bytes
}

/// The nonce in a challenge; `None` if it is none.
pub(super) fn nonce_of(challenge: &[u8; CHALLENGE]) -> Option<Nonce> {
    challenge.strip_prefix(MAGIC)?.try_into().ok()
}

impl Greeting {
    /// The answer to a challenge with `nonce`.
    pub(super) fn to_bytes(self, secret: Option<&Secret>, nonce: &Nonce) -> Vec<u8> {
        let mut bytes =
            [&MAGIC[..], &self.rank.to_le_bytes(), &self.ranks.to_le_bytes(), &self.nonce].concat();
        let proof = tag(secret, &[&bytes, nonce]);
        bytes.extend(proof);
        bytes
    }

    /// Reads and verifies an answer to a challenge with `nonce`.
    pub(super) fn verified(
        bytes: &[u8; GREETING],
        secret: Option<&Secret>,
        nonce: &Nonce,
    ) -> Result<Self, Stranger> {
        let (signed, proof) = bytes.split_at(GREETING - TAG);
        let words = signed.strip_prefix(MAGIC).ok_or(Stranger::Other)?;
        if !is_tag(secret, &[signed, nonce], proof) {
            return Err(Stranger::Secret);
        }
        let (numbers, own) = words.split_at(16);
        let (numbers, _) = numbers.as_chunks();
        let mut numbers = numbers.iter().copied().map(u64::from_le_bytes);
        let (rank, ranks) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        Ok(Self { rank, ranks, nonce: own.try_into().map_err(|_| Stranger::Other)? })
    }
}

/// The keys of a connection, on rank 0 and on the other side; none without a secret.
pub(super) fn keys(
    secret: Option<&Secret>,
    of_first: &Nonce,
    of_other: &Nonce,
    is_first: bool,
) -> Option<MessageKeys> {
    let key = |direction| Some(MessageKey::new(secret?, direction, [of_first, of_other]));
    let (to_first, from_first) = (key(TO_FIRST)?, key(FROM_FIRST)?);
    Some(match is_first {
        true => MessageKeys { send: from_first, receive: to_first },
        false => MessageKeys { send: to_first, receive: from_first },
    })
}
