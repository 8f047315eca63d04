//! Decodes group 3 fax compression, in one dimension (ITU-T T.4).

use std::io::Cursor;

use ::tiff::decoder::Decoder;
use ::tiff::tags::{PhotometricInterpretation, Tag};
use fax::Color;
use fax::decoder::{Group3Decoder, pels};

use super::one_line;

/// In `T4Options`: rows may be encoded as differences from the previous one.
const TWO_DIMENSIONS: u32 = 1;
/// In `FillOrder`: the lowest bit of a byte comes first.
const LOWEST_FIRST: u16 = 2;

/// The pixels, 0 or 1, 1 for white.
pub(super) fn decode(
    file: &mut Decoder<Cursor<&[u8]>>,
    bytes: &[u8],
    width: u32,
    height: u32,
) -> Result<Vec<u8>, String> {
    if file.find_tag_unsigned::<u32>(Tag::Unknown(292)).map_err(one_line)?.unwrap_or(0) & TWO_DIMENSIONS != 0
    {
        return Err("compressed as a fax of group 3 in two dimensions, which is not read here".to_owned());
    }
    let columns =
        u16::try_from(width).map_err(|_| format!("a fax of {width} columns, expected at most 65535"))?;
    let is_reversed = file.find_tag_unsigned::<u16>(Tag::FillOrder).map_err(one_line)? == Some(LOWEST_FIRST);
    let kind = file.find_tag_unsigned::<u16>(Tag::PhotometricInterpretation).map_err(one_line)?;
    let is_white_one = kind == Some(PhotometricInterpretation::BlackIsZero.to_u16());
    let rows_of_strip =
        file.find_tag_unsigned::<u32>(Tag::RowsPerStrip).map_err(one_line)?.unwrap_or(height).max(1);
    let offsets = file.get_tag_u64_vec(Tag::StripOffsets).map_err(one_line)?;
    let lengths = file.get_tag_u64_vec(Tag::StripByteCounts).map_err(one_line)?;

    let mut pixels = Vec::new();
    let mut rows_left = height;
    for (offset, length) in offsets.into_iter().zip(lengths) {
        let range = usize::try_from(offset)
            .ok()
            .zip(offset.checked_add(length).and_then(|end| usize::try_from(end).ok()));
        let strip = range.and_then(|(start, end)| bytes.get(start..end)).ok_or("cut short")?;
        let strip =
            strip.iter().map(|&byte| Ok::<_, ()>(if is_reversed { byte.reverse_bits() } else { byte }));
        let mut decoder = Group3Decoder::new(strip).map_err(|_| "a fax that does not begin as one")?;
        for _ in 0..rows_left.min(rows_of_strip) {
            // A strip may end without a mark after its last row.
            let ended = decoder.advance().is_err();
            if ended && decoder.transitions().last() != Some(&columns) {
                return Err("cut short".to_owned());
            }
            // A fax's white is 0; the photometric interpretation says what that means.
            let bit = |color| u8::from((color == Color::Black) == is_white_one);
            pixels.extend(pels(decoder.transitions(), columns).map(bit));
        }
        rows_left = rows_left.saturating_sub(rows_of_strip);
    }
    match rows_left {
        0 => Ok(pixels),
        _ => Err("cut short".to_owned()),
    }
}
