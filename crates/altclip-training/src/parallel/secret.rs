//! Proves that peers know a run's secret, and that messages come from them: HMAC-SHA-256 (RFC 2104).

use crate::error::{Error, Result};
use hmac::{Hmac, Mac};
use model_files::read_input;
use sha2::Sha256;
use std::cell::Cell;
use std::fmt;
use std::path::Path;

/// Bytes of a nonce, and of a tag.
pub(super) const TAG: usize = 32;
/// The shortest secret, in bytes: below it, trying all would be possible.
const SHORTEST: usize = 16;
/// The longest secret, in bytes.
const LONGEST: u64 = 1 << 12;

type HmacSha256 = Hmac<Sha256>;

/// What the processes of a run know and nobody else. It is never sent or shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret of at least 16 bytes; white space around it does not count. `name` is used in errors.
    ///
    /// # Errors
    /// If it is shorter.
    pub fn new(bytes: &[u8], name: &str) -> Result<Self> {
        let bytes = bytes.trim_ascii();
        if bytes.len() < SHORTEST {
            let problem = format!("expected a secret of at least {SHORTEST} bytes, found {}", bytes.len());
            return Err(Error::Setting(format!("{name}: {problem}")));
        }
        Ok(Self(bytes.to_vec()))
    }

    /// Reads a secret from a file.
    ///
    /// # Errors
    /// If the file cannot be read; also like [`new`](Self::new).
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = read_input(path, LONGEST).map_err(Error::io(path))?;
        Self::new(&bytes, &path.display().to_string())
    }
}

/// Without the secret.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The tag of these parts, whose fixed lengths separate them.
pub(super) fn tag(key: Option<&Secret>, parts: &[&[u8]]) -> [u8; TAG] {
    mac(key.map_or(&[], |key| &key.0), parts).finalize().into_bytes().into()
}

/// Whether this is their tag, in a time that does not depend on where it differs.
pub(super) fn is_tag(key: Option<&Secret>, parts: &[&[u8]], tag: &[u8]) -> bool {
    mac(key.map_or(&[], |key| &key.0), parts).verify_slice(tag).is_ok()
}

fn mac(key: &[u8], parts: &[&[u8]]) -> HmacSha256 {
    // HMAC takes keys of any length, so there is no error to handle.
    let mut mac = HmacSha256::new_from_slice(key).unwrap_or_else(|_| HmacSha256::new(&Default::default()));
    parts.iter().for_each(|part| mac.update(part));
    mac
}

/// Tags the messages of one direction of a connection, each with its number, so that none can be changed, repeated or
/// left out.
pub(super) struct MessageKey {
    key: [u8; TAG],
    number: Cell<u64>,
}

impl MessageKey {
    /// The key of a direction, from the nonces of both sides.
    pub(super) fn new(secret: &Secret, direction: &[u8], nonces: [&[u8; TAG]; 2]) -> Self {
        let [first, second] = nonces;
        Self { key: tag(Some(secret), &[direction, first, second]), number: Cell::new(0) }
    }

    pub(super) fn tag(&self, header: &[u8], payload: &[u8]) -> [u8; TAG] {
        self.next(header, payload).finalize().into_bytes().into()
    }

    pub(super) fn is_tag(&self, header: &[u8], payload: &[u8], tag: &[u8]) -> bool {
        self.next(header, payload).verify_slice(tag).is_ok()
    }

    fn next(&self, header: &[u8], payload: &[u8]) -> HmacSha256 {
        let number = self.number.replace(self.number.get() + 1);
        mac(&self.key, &[&number.to_le_bytes(), header, payload])
    }
}

/// Without the key.
impl fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageKey")
    }
}

/// The keys of both directions of a connection.
#[derive(Debug)]
pub(super) struct MessageKeys {
    pub(super) send: MessageKey,
    pub(super) receive: MessageKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new(b" 0123456789abcdef\n", "test").unwrap()
    }

    #[test]
    fn secrets_are_long_enough_and_never_shown() {
        assert_eq!(format!("{:?}", secret()), "Secret");
        assert_eq!(secret().0, b"0123456789abcdef");
        let error = Secret::new(b"short \n", "--secret-file").unwrap_err().to_string();
        assert_eq!(error, "--secret-file: expected a secret of at least 16 bytes, found 5");
    }

    #[test]
    fn a_message_that_is_changed_or_repeated_is_noticed() {
        let key = || MessageKey::new(&secret(), b"to", [&[1; TAG], &[2; TAG]]);
        let tag = key().tag(b"header", b"payload");
        let receiver = key();
        assert!(receiver.is_tag(b"header", b"payload", &tag));
        assert!(!receiver.is_tag(b"header", b"payload", &tag), "repeated");
        for (header, payload) in [(&b"header"[..], &b"Payload"[..]), (b"Header", b"payload")] {
            assert!(!key().is_tag(header, payload, &tag), "changed");
        }
        let other = MessageKey::new(&secret(), b"from", [&[1; TAG], &[2; TAG]]);
        assert!(!other.is_tag(b"header", b"payload", &tag), "another direction");
    }
}
