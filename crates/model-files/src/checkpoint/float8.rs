//! Decodes 8-bit floating-point numbers.

use safetensors::Dtype;

/// The layout of a type: sign, exponent and fraction.
struct BitLayout {
    exponent_bits: u32,
    bias: i32,
    specials: Specials,
}

/// Which bit patterns are not numbers.
enum Specials {
    /// The highest exponent is infinity or NaN, as in IEEE 754.
    Ieee,
    /// Only all ones are NaN (`fn`: finite, NaN).
    AllOnes,
    /// Only the negative zero is NaN (`fnuz`: finite, NaN, unsigned zero).
    NegativeZero,
}

/// The values of all patterns of an 8-bit type, or `None` for other types. OCP's types are from Micikevicius et al.
/// 2022 (<https://arxiv.org/abs/2209.05433>), `fnuz` from Noune et al. 2022 (<https://arxiv.org/abs/2206.02915>), and
/// E8M0 is the scale of OCP's microscaling formats.
pub(super) fn values(dtype: Dtype) -> Option<[f32; 256]> {
    let format = match dtype {
        Dtype::F8_E4M3 => BitLayout { exponent_bits: 4, bias: 7, specials: Specials::AllOnes },
        Dtype::F8_E5M2 => BitLayout { exponent_bits: 5, bias: 15, specials: Specials::Ieee },
        Dtype::F8_E4M3FNUZ => BitLayout { exponent_bits: 4, bias: 8, specials: Specials::NegativeZero },
        Dtype::F8_E5M2FNUZ => BitLayout { exponent_bits: 5, bias: 16, specials: Specials::NegativeZero },
        Dtype::F8_E8M0 => return Some(of_all_bits(power_of_two)),
        _ => return None,
    };
    Some(of_all_bits(|bits| format.value(bits)))
}

impl BitLayout {
    fn value(&self, bits: u8) -> f32 {
        let fraction_bits = 7 - self.exponent_bits;
        let fraction = bits & ((1 << fraction_bits) - 1);
        let exponent = (bits & 0x7f) >> fraction_bits;
        let is_highest = exponent == (1 << self.exponent_bits) - 1;
        let magnitude = match self.specials {
            Specials::Ieee if is_highest && fraction == 0 => f32::INFINITY,
            Specials::Ieee if is_highest => f32::NAN,
            Specials::AllOnes if bits & 0x7f == 0x7f => f32::NAN,
            Specials::NegativeZero if bits == 0x80 => f32::NAN,
            _ => {
                let (lead, exponent) = if exponent == 0 { (0., 1) } else { (1., i32::from(exponent)) };
                let fraction = f32::from(fraction) / f32::from(1u8 << fraction_bits);
                (lead + fraction) * 2f32.powi(exponent - self.bias)
            }
        };
        if bits & 0x80 == 0 { magnitude } else { -magnitude }
    }
}

fn of_all_bits(value: impl Fn(u8) -> f32) -> [f32; 256] {
    // The places are those of bytes.
    std::array::from_fn(|place| value(u8::try_from(place).unwrap_or_default()))
}

/// 2 to the power of `bits` − 127.
fn power_of_two(bits: u8) -> f32 {
    match bits {
        0xff => f32::NAN,
        // The smallest is subnormal in f32.
        0 => f32::from_bits(1 << 22),
        bits => f32::from_bits(u32::from(bits) << 23),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of `torch.arange(256, dtype=torch.uint8).view(dtype).float()`.
    #[test]
    fn patterns_have_the_values_of_pytorch() {
        for (dtype, patterns) in [
            (
                Dtype::F8_E4M3,
                [(0x01, 2f32.powi(-9)), (0x08, 2f32.powi(-6)), (0x38, 1.), (0x7e, 448.), (0xc1, -2.25)],
            ),
            (
                Dtype::F8_E5M2,
                [(0x01, 2f32.powi(-16)), (0x3c, 1.), (0x7b, 57344.), (0x7c, f32::INFINITY), (0xc1, -2.5)],
            ),
            (
                Dtype::F8_E4M3FNUZ,
                [(0x01, 2f32.powi(-10)), (0x40, 1.), (0x7f, 240.), (0x38, 0.5), (0xc1, -1.125)],
            ),
            (
                Dtype::F8_E5M2FNUZ,
                [(0x01, 2f32.powi(-17)), (0x40, 1.), (0x7f, 57344.), (0x3c, 0.5), (0xc1, -1.25)],
            ),
            (
                Dtype::F8_E8M0,
                [(0, 2f32.powi(-127)), (1, 2f32.powi(-126)), (127, 1.), (128, 2.), (254, 2f32.powi(127))],
            ),
        ] {
            let values = values(dtype).unwrap();
            for (bits, value) in patterns {
                assert_eq!(values[bits], value, "{dtype} {bits:#x}");
            }
        }
        let is_nan = |dtype| move |bits: &usize| values(dtype).unwrap()[*bits].is_nan();
        let nans = |dtype| (0..256).filter(is_nan(dtype)).collect::<Vec<_>>();
        assert_eq!(nans(Dtype::F8_E4M3), [0x7f, 0xff]);
        assert_eq!(nans(Dtype::F8_E5M2), [0x7d, 0x7e, 0x7f, 0xfd, 0xfe, 0xff]);
        assert_eq!(nans(Dtype::F8_E4M3FNUZ), [0x80]);
        assert_eq!(nans(Dtype::F8_E5M2FNUZ), [0x80]);
        assert_eq!(nans(Dtype::F8_E8M0), [0xff]);
        assert!(values(Dtype::U8).is_none());
    }
}
