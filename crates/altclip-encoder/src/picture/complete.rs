//! Whether a file goes on to its end.
//!
//! The JPEG decoder fills what is missing with grey, as browsers do, and says nothing. Pillow refuses such files.

/// Whether a JPEG file has its end marker. The markers in between are walked, since an Exif thumbnail has one too.
pub(super) fn jpeg(bytes: &[u8]) -> bool {
    const END: u8 = 0xD9;
    let mut rest = bytes;
    loop {
        // A marker is FF and a byte that says which. FF 00 and FF D0 to D7 belong to the compressed data, further FF
        // before a marker fill.
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

fn is_data(second: u8) -> bool {
    matches!(second, 0x00 | 0xD0..=0xD7 | 0xFF)
}
