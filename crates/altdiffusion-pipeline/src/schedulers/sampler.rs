//! Maps schedulers to the names that other programs give them.

use std::str::FromStr;

use super::{SchedulerKind, SigmaSpacing};
use crate::{Error, Result};

/// A scheduler, a spacing of noise levels, or both: what other programs call a sampler.
///
/// It is parsed from a scheduler's short name, its class in diffusers, or its name in stable-diffusion-webui, ComfyUI
/// and stable-diffusion.cpp, with or without the spacing:
///
/// ```
/// use altdiffusion_pipeline::schedulers::{Sampler, SchedulerKind, SigmaSpacing};
///
/// # fn main() -> Result<(), altdiffusion_pipeline::Error> {
/// let sampler: Sampler = "DPM++ 2M Karras".parse()?;
/// assert_eq!(sampler.kind, Some(SchedulerKind::DpmSolverMultistep));
/// assert_eq!(sampler.spacing, Some(SigmaSpacing::Karras));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// The scheduler, if the name includes one.
    pub kind: Option<SchedulerKind>,
    /// The spacing, if the name includes one.
    pub spacing: Option<SigmaSpacing>,
}

impl FromStr for Sampler {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let kind = text.parse().ok().or_else(|| SchedulerKind::from_class_name(text));
        if kind.is_some() {
            return Ok(Self { kind, spacing: None });
        }
        let name = bare(text);
        for spacing in SigmaSpacing::ALL {
            if let Some(kind) = name.strip_suffix(&bare(spacing.name())) {
                let kind = kind_by_bare_name(kind.trim());
                if kind.is_some() || name == bare(spacing.name()) {
                    return Ok(Self { kind, spacing: Some(spacing) });
                }
            }
        }
        // Their names for a model's default spacing.
        if matches!(name.as_str(), "discrete" | "normal" | "default" | "automatic") {
            return Ok(Self { kind: None, spacing: Some(SigmaSpacing::Timesteps) });
        }
        match kind_by_bare_name(&name) {
            Some(kind) => Ok(Self { kind: Some(kind), spacing: None }),
            None => {
                let known = SchedulerKind::names(|_| true);
                Err(Error::option("sampler", format!("{text:?} is not known; expected one of {known}")))
            }
        }
    }
}

/// A name in lower case, without characters that programs write differently.
fn bare(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric() || *c == '+').flat_map(char::to_lowercase).collect()
}

fn kind_by_bare_name(name: &str) -> Option<SchedulerKind> {
    Some(match name {
        "plms" => SchedulerKind::Pndm,
        "eulera" | "eulerancestral" | "keulera" => SchedulerKind::EulerAncestralDiscrete,
        "keuler" => SchedulerKind::EulerDiscrete,
        "kheun" => SchedulerKind::HeunDiscrete,
        "klms" => SchedulerKind::LmsDiscrete,
        "dpm++2m" | "dpmpp2m" | "kdpmpp2m" | "dpm++2mv1" => SchedulerKind::DpmSolverMultistep,
        "dpm++2msde" | "dpmpp2msde" | "kdpmpp2msde" => SchedulerKind::DpmSolverMultistepSde,
        "unipcbh2" => SchedulerKind::UniPcMultistep,
        _ => return SchedulerKind::ALL.into_iter().find(|kind| bare(kind.name()) == name),
    })
}

impl SchedulerKind {
    /// The name in stable-diffusion-webui, or the [short name](Self::name) if it has none there.
    pub fn sampler_name(self) -> &'static str {
        match self {
            Self::Ddim => "DDIM",
            Self::Pndm => "PLMS",
            Self::LmsDiscrete => "LMS",
            Self::HeunDiscrete => "Heun",
            Self::EulerDiscrete => "Euler",
            Self::EulerAncestralDiscrete => "Euler a",
            Self::DpmSolverMultistep => "DPM++ 2M",
            Self::DpmSolverMultistepSde => "DPM++ 2M SDE",
            Self::UniPcMultistep => "UniPC",
            Self::Lcm => "LCM",
            Self::Ddpm | Self::DpmSolverSinglestep => self.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str) -> Option<(Option<SchedulerKind>, Option<SigmaSpacing>)> {
        name.parse().ok().map(|sampler: Sampler| (sampler.kind, sampler.spacing))
    }

    #[test]
    fn every_scheduler_is_known_by_its_names() {
        for kind in SchedulerKind::ALL {
            assert_eq!(found(kind.name()), Some((Some(kind), None)));
            assert_eq!(found(kind.sampler_name()), Some((Some(kind), None)));
            let of_class = found(kind.class_name()).map(|(kind, _)| kind.map(SchedulerKind::class_name));
            assert_eq!(of_class, Some(Some(kind.class_name())));
            for spacing in SigmaSpacing::ALL {
                let name = format!("{} {}", kind.sampler_name(), spacing.name());
                assert_eq!(found(&name), Some((Some(kind), Some(spacing))), "{name}");
            }
        }
    }

    /// stable-diffusion-webui, ComfyUI, stable-diffusion.cpp.
    #[test]
    fn samplers_of_other_programs_are_known() {
        use SchedulerKind::{DpmSolverMultistep, DpmSolverMultistepSde, EulerAncestralDiscrete, Pndm};
        let karras = Some(SigmaSpacing::Karras);
        for (name, kind, spacing) in [
            ("DPM++ 2M Karras", Some(DpmSolverMultistep), karras),
            ("DPM++ 2M SDE Exponential", Some(DpmSolverMultistepSde), Some(SigmaSpacing::Exponential)),
            ("Euler a", Some(EulerAncestralDiscrete), None),
            ("euler_a", Some(EulerAncestralDiscrete), None),
            ("euler_ancestral", Some(EulerAncestralDiscrete), None),
            ("dpm++2m", Some(DpmSolverMultistep), None),
            ("dpmpp_2m_sde", Some(DpmSolverMultistepSde), None),
            ("PLMS", Some(Pndm), None),
            ("karras", None, karras),
            ("discrete", None, Some(SigmaSpacing::Timesteps)),
        ] {
            assert_eq!(found(name), Some((kind, spacing)), "{name}");
        }
        for name in ["", "DPM++ 3M SDE", "Restart", "DPM2 a", "Euler a Turbo"] {
            assert_eq!(found(name), None, "{name}");
        }
    }
}
