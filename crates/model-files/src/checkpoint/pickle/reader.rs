//! Reads the arguments of a pickle's operations: numbers, texts and bytes, borrowed from the file.

/// An error is one line; the caller adds the file's name.
pub(super) type Result<T> = std::result::Result<T, String>;

/// A position in a pickle.
pub(super) struct Reader<'a> {
    pickle: &'a [u8],
    pub position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(pickle: &'a [u8]) -> Self {
        Self { pickle, position: 0 }
    }

    pub(super) fn take<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH]> {
        let bytes = self.rest().first_chunk().ok_or_else(truncated)?;
        self.position += LENGTH;
        Ok(*bytes)
    }

    pub(super) fn slice(&mut self, length: usize) -> Result<&'a [u8]> {
        let (bytes, _) = self.rest().split_at_checked(length).ok_or_else(truncated)?;
        self.position += length;
        Ok(bytes)
    }

    /// Bytes after their length, which takes `WIDTH` bytes.
    pub(super) fn counted<const WIDTH: usize>(&mut self) -> Result<&'a [u8]> {
        let mut length = [0; size_of::<u64>()];
        length[..WIDTH].copy_from_slice(&self.take::<WIDTH>()?);
        let length = usize::try_from(u64::from_le_bytes(length)).map_err(|_| truncated())?;
        self.slice(length)
    }

    /// The bytes up to the end of the line, moving past it.
    pub(super) fn line(&mut self) -> Result<&'a [u8]> {
        let length = self.rest().iter().position(|byte| *byte == b'\n').ok_or_else(truncated)?;
        let line = self.slice(length)?;
        self.position += 1;
        Ok(line)
    }

    pub(super) fn text_line(&mut self) -> Result<&'a str> {
        let line = self.line()?;
        str::from_utf8(line).map_err(|error| format!("a line of the pickle is not text: {error}"))
    }

    /// A decimal number, as in protocols 0 and 1.
    pub(super) fn number_line<T: std::str::FromStr>(&mut self) -> Result<T> {
        let line = self.text_line()?;
        line.parse().map_err(|_| format!("expected a number in the pickle, found {line:?}"))
    }

    fn rest(&self) -> &'a [u8] {
        self.pickle.get(self.position..).unwrap_or_default()
    }
}

/// A little-endian two's complement number of any length, if it fits.
pub(super) fn integer(bytes: &[u8]) -> Option<i64> {
    let sign = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
    let mut extended = [sign; size_of::<i64>()];
    extended.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(extended))
}

fn truncated() -> String {
    "the pickle is truncated".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_numbers_are_read_in_twos_complement() {
        assert_eq!(integer(&[]), Some(0));
        assert_eq!(integer(&[0xff]), Some(-1));
        assert_eq!(integer(&[0x00, 0x80, 0x00]), Some(0x8000));
        assert_eq!(integer(&[0xff; 10]), None);
    }

    #[test]
    fn nothing_is_read_past_the_end() {
        assert_eq!(Reader::new(b"\x02ab").counted::<1>().unwrap(), b"ab");
        assert!(Reader::new(b"\x03ab").counted::<1>().is_err());
        assert!(Reader::new(&[0xff; 12]).counted::<8>().is_err());
        assert!(Reader::new(b"no end").line().is_err());
        let mut lines = Reader::new(b"12\n-3\n");
        assert_eq!((lines.number_line::<u32>(), lines.number_line::<i64>()), (Ok(12), Ok(-3)));
    }
}
