//! Hashes bytes with FNV-1a, which is the same on every machine and in every release, so that files can be
//! recognized.

/// The offset basis of 64-bit FNV-1a.
pub const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The 64-bit FNV-1a hash of bytes.
pub fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    hash_from(BASIS, bytes)
}

/// Like [`hash`], with another offset basis.
pub fn hash_from(basis: u64, bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes.into_iter().fold(basis, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

/// The hash of texts, including their boundaries.
pub fn hash_of_texts(texts: &[String]) -> u64 {
    hash(texts.iter().flat_map(|text| text.bytes().chain([0])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two of the published test vectors (Noll, "FNV hash").
    #[test]
    fn hashes_are_those_of_the_reference() {
        assert_eq!([hash(*b""), hash(*b"a")], [BASIS, 0xaf63_dc4c_8601_ec8c]);
        assert_eq!(hash(*b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn where_a_text_ends_counts() {
        let texts = |texts: [&str; 2]| hash_of_texts(&texts.map(str::to_owned));
        assert_ne!(texts(["ab", "c"]), texts(["a", "bc"]));
    }
}
