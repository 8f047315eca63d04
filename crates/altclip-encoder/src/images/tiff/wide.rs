//! Reads grey samples of 32 bits, integers or floating-point numbers, in the range of 8 bits.
//!
//! Pillow opens such files as `I` or `F`, and its conversion to RGB cuts numbers off at 0 and 255, without scaling.

use ::tiff::ColorType;
use ::tiff::tags::SampleFormat;

/// Grey samples of 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WideSamples {
    /// Unsigned ones too, which Pillow takes for signed ones.
    Integers,
    Floats,
}

impl WideSamples {
    /// The kind of an image's samples, if they are of 32 bits; `format` has one value for each sample, or none.
    ///
    /// # Errors
    /// If samples of this kind are not read.
    pub(super) fn of(color: ColorType, format: &[u16], is_white_zero: bool) -> Result<Option<Self>, String> {
        let is_all = |kind: SampleFormat| format.iter().all(|format| *format == kind.to_u16());
        let bits = color.bit_depth();
        let is_wide = matches!(color, ColorType::Gray(32)) && !is_white_zero;
        let name = if is_all(SampleFormat::Uint) {
            match bits {
                0..=16 => return Ok(None),
                _ if is_wide => return Ok(Some(Self::Integers)),
                _ => "unsigned integers",
            }
        } else if is_all(SampleFormat::Int) {
            if is_wide {
                return Ok(Some(Self::Integers));
            }
            "signed integers"
        } else if is_all(SampleFormat::IEEEFP) {
            if is_wide {
                return Ok(Some(Self::Floats));
            }
            "floating-point numbers"
        } else {
            "neither integers nor floating-point numbers"
        };
        let white = if is_white_zero { " where 0 is white" } else { "" };
        Err(format!(
            "samples are {name} of {bits} bits{white}, in the colours {color:?}: expected unsigned integers of at most 16 bits, \
             or grey of 32 bits where 0 is black"
        ))
    }

    /// The samples, 4 bytes each in the machine's order, in 8 bits each.
    pub(super) fn in_eight_bits(self, values: &[u8]) -> Vec<u8> {
        let (samples, _) = values.as_chunks::<4>();
        let in_eight_bits = |sample: &[u8; 4]| match self {
            Self::Integers => u8::try_from(i32::from_ne_bytes(*sample).clamp(0, 255)).unwrap_or(u8::MAX),
            // NaN becomes 0.
            Self::Floats => f32::from_ne_bytes(*sample).clamp(0., 255.) as u8,
        };
        samples.iter().map(in_eight_bits).collect()
    }
}
