//! Configures kernels and freed memory for the whole process.
//!
//! The defaults are the fastest that are always correct. Environment variables are read when the first operation
//! runs, unless the program has [installed](Settings::install) settings before.

use crate::memory;
use std::ffi::OsStr;
use std::fmt;
use std::sync::OnceLock;

/// How operations run in this process.
///
/// ```
/// use fused_ops::{Instructions, Settings};
///
/// // Those of the environment, but for one.
/// let settings = Settings { instructions: Instructions::Portable, ..Settings::from_env()? };
/// settings.install()?;
/// assert_eq!(Settings::current()?, settings);
/// # Ok::<_, fused_ops::SettingsError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// `FUSED_OPS_INSTRUCTIONS`: the instruction set of the CPU kernels.
    pub instructions: Instructions,
    /// `FUSED_OPS_BF16`: how layers with bf16 weights compute on the CPU.
    pub bf16: Bf16Arithmetic,
    /// `FUSED_OPS_ATTENTION`: which kernels compute attention over many keys on a GPU.
    pub attention: AttentionKernels,
    /// `FUSED_OPS_CONVOLUTION`: which convolutions run on a GPU in f16 and bf16.
    pub convolution: ConvolutionKernels,
    /// `FUSED_OPS_FREED_MEMORY`: what happens to large freed blocks of memory.
    pub freed_memory: FreedMemory,
}

/// The instruction sets that the CPU kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Instructions {
    /// `widest`: the widest that the processor has, up to AVX-512.
    #[default]
    Widest,
    /// `avx2`: AVX2 and FMA.
    Avx2,
    /// `portable`: what every processor of the architecture has.
    Portable,
}

/// How layers with bf16 weights compute on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bf16Arithmetic {
    /// `default`: in bf16 with sums in f32, where the processor does that faster than f32.
    #[default]
    Default,
    /// `f32`: in f32.
    F32,
    /// `portable`: in bf16, by instructions that every processor has. Slow: it is what the fast kernels are checked against.
    Portable,
}

/// The kernels for attention over many keys on a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AttentionKernels {
    /// `default`: those for every GPU.
    #[default]
    Default,
    /// `hopper`: those for compute capability 9.0 only, where they cover the shape.
    Hopper,
    /// `measured`: the faster one for each shape, measured on first use. If they are close, another run may choose
    /// differently and differ in the last bits.
    Measured,
}

/// The kernels for convolutions on a GPU in f16 and bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ConvolutionKernels {
    /// `default`: `cudnn` if it is installed, otherwise `own`.
    #[default]
    Default,
    /// `own`: those of this crate.
    Own,
    /// `cudnn`: what cuDNN considers fastest, where it covers the shape; always the same for a shape.
    Cudnn,
    /// `measured`: the faster one for each shape, measured on first use. If they are close, another run may choose
    /// differently and differ in the last bits.
    Measured,
}

/// What happens to large freed blocks of memory, if the C library is glibc. Elsewhere it is up to the allocator.
///
/// By default glibc returns them to the system and asks for new ones, whose pages the system clears on first use. A
/// model frees and allocates the same few sizes in every layer, which takes a fifth of a Stable Diffusion 1.x step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FreedMemory {
    /// `keep`: kept for reuse, from the first operation on. The peak stays about the same, but memory is not returned
    /// between images.
    #[default]
    Keep,
    /// `return`: returned to the system.
    Return,
}

/// Invalid settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A variable has an invalid value.
    #[error("{variable}: expected {}, found {found:?}", Alternatives(allowed))]
    Value {
        /// Its name.
        variable: &'static str,
        /// Its value.
        found: String,
        /// The valid values.
        allowed: Vec<&'static str>,
    },
    /// The processor lacks these instructions.
    #[error("{0} instructions were asked for, which this processor does not have")]
    Unsupported(&'static str),
    /// Operations have already run with other settings.
    #[error("operations have run with other settings already: a program installs its own before the first")]
    InUse,
}

impl From<SettingsError> for candle_core::Error {
    fn from(error: SettingsError) -> Self {
        Self::wrap(error)
    }
}

/// `a, b or c`
struct Alternatives<'a>(&'a [&'static str]);

impl fmt::Display for Alternatives<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.0 {
            [first @ .., last] if !first.is_empty() => write!(f, "{} or {last}", first.join(", ")),
            all => f.write_str(&all.concat()),
        }
    }
}

static IN_USE: OnceLock<Result<Settings, SettingsError>> = OnceLock::new();

impl Settings {
    /// Reads settings from the environment, with defaults for missing ones.
    ///
    /// # Errors
    /// If a variable has a value other than those listed at the types above.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::read(std::env::var_os)
    }

    fn read(value: impl Fn(&'static str) -> Option<std::ffi::OsString>) -> Result<Self, SettingsError> {
        use {
            AttentionKernels as A, Bf16Arithmetic as B, ConvolutionKernels as C, FreedMemory as F,
            Instructions as I,
        };
        let default = Self::default();
        let instructions = [("widest", I::Widest), ("avx2", I::Avx2), ("portable", I::Portable)];
        let bf16 = [("default", B::Default), ("f32", B::F32), ("portable", B::Portable)];
        let attention = [("default", A::Default), ("hopper", A::Hopper), ("measured", A::Measured)];
        let convolution =
            [("default", C::Default), ("own", C::Own), ("cudnn", C::Cudnn), ("measured", C::Measured)];
        let freed_memory = [("keep", F::Keep), ("return", F::Return)];
        Ok(Self {
            instructions: one_of(&value, "FUSED_OPS_INSTRUCTIONS", &instructions, default.instructions)?,
            bf16: one_of(&value, "FUSED_OPS_BF16", &bf16, default.bf16)?,
            attention: one_of(&value, "FUSED_OPS_ATTENTION", &attention, default.attention)?,
            convolution: one_of(&value, "FUSED_OPS_CONVOLUTION", &convolution, default.convolution)?,
            freed_memory: one_of(&value, "FUSED_OPS_FREED_MEMORY", &freed_memory, default.freed_memory)?,
        })
    }

    /// Uses these settings from now on, instead of the environment's.
    ///
    /// # Errors
    /// If the processor lacks the instructions, or operations have already run with other settings.
    pub fn install(self) -> Result<(), SettingsError> {
        let taken = IN_USE.get_or_init(|| self.taken());
        match taken {
            Ok(taken) if *taken == self => Ok(()),
            Ok(_) => Err(SettingsError::InUse),
            Err(error) => Err(error.clone()),
        }
    }

    /// The settings in use: the installed ones, or else the environment's, which are then fixed.
    ///
    /// # Errors
    /// See [`from_env`](Self::from_env); also if the processor lacks the instructions.
    pub fn current() -> Result<Self, SettingsError> {
        IN_USE.get_or_init(|| Self::from_env()?.taken()).clone()
    }

    /// Validates and applies them once.
    fn taken(self) -> Result<Self, SettingsError> {
        if self.instructions == Instructions::Avx2 && !has_avx2() {
            return Err(SettingsError::Unsupported("AVX2"));
        }
        if self.freed_memory == FreedMemory::Keep {
            memory::keep_freed();
        }
        Ok(self)
    }
}

#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    pulp::x86::V3::try_new().is_some()
}

#[cfg(not(target_arch = "x86_64"))]
fn has_avx2() -> bool {
    false
}

fn one_of<T: Copy>(
    value: impl Fn(&'static str) -> Option<std::ffi::OsString>,
    variable: &'static str,
    values: &[(&'static str, T)],
    default: T,
) -> Result<T, SettingsError> {
    let Some(found) = value(variable) else { return Ok(default) };
    match values.iter().find(|(name, _)| found == OsStr::new(name)) {
        Some((_, value)) => Ok(*value),
        None => Err(SettingsError::Value {
            variable,
            found: found.to_string_lossy().into_owned(),
            allowed: values.iter().map(|(name, _)| *name).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variable: &str, value: &str) -> Result<Settings, SettingsError> {
        Settings::read(|asked| (asked == variable).then(|| value.into()))
    }

    #[test]
    fn variables_are_read() -> Result<(), SettingsError> {
        assert_eq!(Settings::read(|_| None)?, Settings::default());
        assert_eq!(read("FUSED_OPS_INSTRUCTIONS", "avx2")?.instructions, Instructions::Avx2);
        assert_eq!(read("FUSED_OPS_BF16", "portable")?.bf16, Bf16Arithmetic::Portable);
        assert_eq!(read("FUSED_OPS_ATTENTION", "hopper")?.attention, AttentionKernels::Hopper);
        assert_eq!(read("FUSED_OPS_CONVOLUTION", "own")?.convolution, ConvolutionKernels::Own);
        assert_eq!(read("FUSED_OPS_FREED_MEMORY", "return")?.freed_memory, FreedMemory::Return);
        Ok(())
    }

    #[test]
    fn a_misspelt_value_is_an_error_that_lists_what_is_allowed() {
        for (variable, allowed) in [
            ("FUSED_OPS_INSTRUCTIONS", "widest, avx2 or portable"),
            ("FUSED_OPS_BF16", "default, f32 or portable"),
            ("FUSED_OPS_ATTENTION", "default, hopper or measured"),
            ("FUSED_OPS_CONVOLUTION", "default, own, cudnn or measured"),
            ("FUSED_OPS_FREED_MEMORY", "keep or return"),
        ] {
            for found in ["", "Default", "hoper"] {
                let error = read(variable, found).expect_err(found).to_string();
                assert_eq!(error, format!("{variable}: expected {allowed}, found {found:?}"));
            }
        }
    }
}
