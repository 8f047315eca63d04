//! Parses the option `--device`, and opens the device.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use candle_core::utils::{cuda_is_available, metal_is_available};
use candle_core::{DType, Device};
use model_files::Arithmetic;

use crate::named::Named;

/// Where a model computes. A number selects one of several devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first available GPU that this build supports, or else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// Without a number, the first GPU or, when several processes train together, each its own.
    Cuda(Option<usize>),
    /// An Apple GPU.
    Metal(usize),
}

/// Parses a device.
pub fn devices() -> Named<DeviceChoice> {
    Named { parser: DeviceChoice::from_str, names: || vec!["auto", "cpu", "cuda", "metal"] }
}

impl DeviceChoice {
    /// Opens the device.
    ///
    /// # Errors
    /// If this build does not support such a device, or there is none.
    pub fn open(self) -> Result<Device> {
        if !self.is_built() {
            let feature = self.to_string();
            let feature = feature.split(':').next().unwrap_or(&feature);
            bail!(
                "--device {self}: this program was built without {feature}; expected cpu, or a build with \
                 `--features {feature}`"
            );
        }
        let device = match self {
            Self::Auto => return Ok(Self::open_any()),
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(number) => fused_ops::cuda_device(number.unwrap_or_default()),
            Self::Metal(number) => Device::new_metal(number),
        };
        // candle's own errors have several lines.
        device.map_err(altclip_encoder::Error::from).with_context(|| format!("--device {self}"))
    }

    /// Opens the device for a model that computes in `arithmetic`, and logs how it will.
    ///
    /// # Errors
    /// Like [`open`](Self::open); also if the device cannot compute in it.
    pub fn open_for(self, arithmetic: Arithmetic) -> Result<Device> {
        let device = self.open()?;
        // The library's error names the option without its dashes.
        arithmetic.check(&device).map_err(|error| anyhow!("--{error}"))?;
        log_arithmetic(arithmetic, &device);
        Ok(device)
    }

    /// The device of one of several processes on a machine: its own GPU, unless specified.
    pub fn of_process(self, number: usize) -> Self {
        match self {
            Self::Auto | Self::Cuda(None) if cuda_is_available() => Self::Cuda(Some(number)),
            other => other,
        }
    }

    fn open_any() -> Device {
        for choice in [Self::Cuda(None), Self::Metal(0)].into_iter().filter(|choice| choice.is_built()) {
            match choice.open() {
                Ok(device) => return device,
                Err(error) => tracing::warn!("using the CPU: {error:#}"),
            }
        }
        Device::Cpu
    }

    fn is_built(self) -> bool {
        match self {
            Self::Auto | Self::Cpu => true,
            Self::Cuda(_) => cuda_is_available(),
            Self::Metal(_) => metal_is_available(),
        }
    }
}

/// Logs how a model computes in int8 and bf16 on the CPU.
fn log_arithmetic(arithmetic: Arithmetic, device: &Device) {
    if arithmetic == Arithmetic::Int8 {
        tracing::info!("int8: computing with {}", fused_ops::int8_instructions());
    }
    if arithmetic.dtype() == DType::BF16 && device.is_cpu() {
        match fused_ops::bf16_support() {
            Some(support) => tracing::info!("bf16: computing with {}", support.instructions),
            None => tracing::info!("bf16: this CPU computes as fast in f32, so bf16 saves memory only"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = match text.split_once(':') {
            Some((kind, number)) => (kind, Some(number)),
            None => (text, None),
        };
        let number_or_first = number.unwrap_or("0").parse();
        match (kind, number, number_or_first) {
            ("auto", None, _) => Ok(Self::Auto),
            ("cpu", None, _) => Ok(Self::Cpu),
            ("cuda", None, _) => Ok(Self::Cuda(None)),
            ("cuda", Some(_), Ok(number)) => Ok(Self::Cuda(Some(number))),
            ("metal", _, Ok(number)) => Ok(Self::Metal(number)),
            _ => Err("expected auto, cpu, cuda, cuda:N, metal or metal:N".to_owned()),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(number)) => write!(f, "cuda:{number}"),
            Self::Metal(number) => write!(f, "metal:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_by_name_and_number() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::Cuda(None)),
            ("cuda:3", DeviceChoice::Cuda(Some(3))),
            ("metal:1", DeviceChoice::Metal(1)),
        ] {
            assert_eq!(text.parse(), Ok(choice));
        }
        for text in ["", "gpu", "cpu:1", "auto:0", "cuda:", "cuda:x", "cuda:-1"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn there_is_always_a_device() {
        assert!(DeviceChoice::Auto.open().is_ok());
    }
}
