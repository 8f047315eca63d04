//! Detects truncated files.
//!
//! The JPEG decoder silently fills what is missing with grey, as browsers do, where Pillow refuses the file. The PNG
//! decoder refuses a file that lacks only its end chunk, which Pillow reads.

use std::borrow::Cow;

/// Whether a JPEG file has its end marker. Markers have to be walked, since an Exif thumbnail has one too.
pub(super) fn jpeg(bytes: &[u8]) -> bool {
    const END: u8 = 0xD9;
    let mut rest = bytes;
    loop {
        // A marker is FF and a type byte. FF 00 and FF D0 to D7 are compressed data, and further FF bytes are
        // padding.
        let Some(at) = rest.windows(2).position(|pair| pair[0] == 0xFF && !is_data(pair[1])) else {
            return false;
        };
        let (marker, after) = (rest[at + 1], &rest[at + 2..]);
        let length = match marker {
            END => return true,
            // Start of image, and a private marker without parameters.
            0xD8 | 0x01 => 0,
            _ => match after {
                [high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
                _ => return false,
            },
        };
        let Some(next) = after.get(length..) else { return false };
        rest = next;
    }
}

/// A PNG file, with its end chunk added if it ends after a whole chunk without one.
pub(super) fn png(bytes: &[u8]) -> Cow<'_, [u8]> {
    const SIGNATURE: usize = 8;
    const END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";
    let mut rest = bytes.get(SIGNATURE..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk() {
        // A chunk has a length, a name, data and a checksum.
        let next = usize::try_from(u32::from_be_bytes(*length)).ok().and_then(|length| length.checked_add(8));
        match next.and_then(|next| after.get(next..)) {
            Some(_) if after.starts_with(b"IEND") => break,
            Some([]) => return Cow::Owned([bytes, END].concat()),
            Some(next) => rest = next,
            None => break,
        }
    }
    Cow::Borrowed(bytes)
}

fn is_data(second: u8) -> bool {
    matches!(second, 0x00 | 0xD0..=0xD7 | 0xFF)
}
