//! Names what models compute in, and says which devices can.

use std::fmt;
use std::str::FromStr;

use candle_core::{DType, Device};

use crate::error::{Error, Result};

/// What a model computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// In numbers of 32 bits.
    F32,
    /// In numbers of 16 bits, 5 of them for the exponent.
    F16,
    /// In numbers of 16 bits, 8 of them for the exponent, as in f32.
    Bf16,
    /// In int8 where its layers can, and else in bf16. Only the CPU can.
    Int8,
}

impl Arithmetic {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::Int8];

    /// Its name, such as `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }

    /// The type of the weights that are not in int8.
    pub fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 | Self::Int8 => DType::BF16,
        }
    }

    /// Checks that a device can compute in it.
    ///
    /// # Errors
    /// [`Error::Input`] if it cannot.
    pub fn check(self, device: &Device) -> Result<()> {
        match self {
            Self::Int8 if !device.is_cpu() => Err(Error::Input(
                "dtype int8: only the CPU computes in it, expected f32, f16 or bf16, or cpu as the device"
                    .to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Takes the names of PyTorch, too. An error says what was expected.
impl FromStr for Arithmetic {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "f32" | "fp32" | "float32" => Ok(Self::F32),
            "f16" | "fp16" | "float16" => Ok(Self::F16),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "int8" => Ok(Self::Int8),
            _ => Err("expected f32, f16, bf16 or int8".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for arithmetic in Arithmetic::ALL {
            assert_eq!(arithmetic.name().parse(), Ok(arithmetic));
            assert!(arithmetic.check(&Device::Cpu).is_ok());
        }
        assert_eq!(Arithmetic::Int8.dtype(), DType::BF16);
        for text in ["", "f64", "i8", "INT8"] {
            assert!(text.parse::<Arithmetic>().is_err(), "{text}");
        }
    }
}
