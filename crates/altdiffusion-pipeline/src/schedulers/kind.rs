//! Lists the schedulers.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{BetaSchedule, SigmaSpacing};
use crate::{Error, Result};

/// The schedulers of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "&str", try_from = "String")]
pub enum SchedulerKind {
    /// [`Ddpm`](super::Ddpm): the ancestral sampler of the original diffusion models.
    Ddpm,
    /// [`Ddim`](super::Ddim): denoising diffusion implicit models, with or without added noise.
    Ddim,
    /// [`Pndm`](super::Pndm): pseudo numerical methods, with or without Runge-Kutta steps at the start.
    Pndm,
    /// [`LmsDiscrete`](super::LmsDiscrete): a linear multistep method in sigmas.
    LmsDiscrete,
    /// [`HeunDiscrete`](super::HeunDiscrete): Heun steps in sigmas, with two model calls each.
    HeunDiscrete,
    /// [`EulerDiscrete`](super::EulerDiscrete): Euler steps along the probability flow, in sigmas.
    EulerDiscrete,
    /// [`EulerAncestralDiscrete`](super::EulerAncestralDiscrete): Euler steps, each followed by new noise.
    EulerAncestralDiscrete,
    /// [`DpmSolverMultistep`](super::DpmSolverMultistep): DPM-Solver++ using outputs of earlier steps.
    DpmSolverMultistep,
    /// [`DpmSolverMultistep`](super::DpmSolverMultistep) on the stochastic equation.
    DpmSolverMultistepSde,
    /// [`DpmSolverSinglestep`](super::DpmSolverSinglestep): DPM-Solver++ with intermediate outputs between two steps.
    DpmSolverSinglestep,
    /// [`UniPcMultistep`](super::UniPcMultistep): predictor and corrector with one model call.
    UniPcMultistep,
    /// [`Lcm`](super::Lcm): latent consistency models.
    Lcm,
}

impl SchedulerKind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Ddpm,
        Self::Ddim,
        Self::Pndm,
        Self::LmsDiscrete,
        Self::HeunDiscrete,
        Self::EulerDiscrete,
        Self::EulerAncestralDiscrete,
        Self::DpmSolverMultistep,
        Self::DpmSolverMultistepSde,
        Self::DpmSolverSinglestep,
        Self::UniPcMultistep,
        Self::Lcm,
    ];

    /// The option value.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddpm => "ddpm",
            Self::Ddim => "ddim",
            Self::Pndm => "pndm",
            Self::LmsDiscrete => "lms",
            Self::HeunDiscrete => "heun",
            Self::EulerDiscrete => "euler",
            Self::EulerAncestralDiscrete => "euler-a",
            Self::DpmSolverMultistep => "dpm++-2m",
            Self::DpmSolverMultistepSde => "dpm++-2m-sde",
            Self::DpmSolverSinglestep => "dpm++-s",
            Self::UniPcMultistep => "unipc",
            Self::Lcm => "lcm",
        }
    }

    /// The name in the `_class_name` of a `scheduler_config.json`.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Ddpm => "DDPMScheduler",
            Self::Ddim => "DDIMScheduler",
            Self::Pndm => "PNDMScheduler",
            Self::LmsDiscrete => "LMSDiscreteScheduler",
            Self::HeunDiscrete => "HeunDiscreteScheduler",
            Self::EulerDiscrete => "EulerDiscreteScheduler",
            Self::EulerAncestralDiscrete => "EulerAncestralDiscreteScheduler",
            Self::DpmSolverMultistep | Self::DpmSolverMultistepSde => "DPMSolverMultistepScheduler",
            Self::DpmSolverSinglestep => "DPMSolverSinglestepScheduler",
            Self::UniPcMultistep => "UniPCMultistepScheduler",
            Self::Lcm => "LCMScheduler",
        }
    }

    /// The kind with this `_class_name`, if it is known. For two kinds of one class it is the first; the file's
    /// `algorithm_type` decides between them. Flax classes, and those that denoise several timesteps in parallel, map
    /// to the class they are named after.
    pub fn from_class_name(class_name: &str) -> Option<Self> {
        let class_name = class_name.strip_prefix("Flax").unwrap_or(class_name);
        let class_name = match class_name {
            "DDIMParallelScheduler" => "DDIMScheduler",
            "DDPMParallelScheduler" => "DDPMScheduler",
            other => other,
        };
        Self::ALL.into_iter().find(|kind| kind.class_name() == class_name)
    }

    /// Whether its class in diffusers has fields for flow matching, which others ignore.
    pub(super) fn takes_flows(self) -> bool {
        matches!(
            self,
            Self::DpmSolverMultistep
                | Self::DpmSolverMultistepSde
                | Self::DpmSolverSinglestep
                | Self::UniPcMultistep
        )
    }

    /// Whether it supports this spacing of the sigmas.
    pub fn takes_sigma_spacing(self, spacing: SigmaSpacing) -> bool {
        let multistep = matches!(self, Self::DpmSolverMultistep | Self::DpmSolverMultistepSde);
        let in_sigmas = matches!(
            self,
            Self::LmsDiscrete
                | Self::HeunDiscrete
                | Self::EulerDiscrete
                | Self::EulerAncestralDiscrete
                | Self::DpmSolverSinglestep
                | Self::UniPcMultistep
        );
        match spacing {
            SigmaSpacing::Timesteps => true,
            SigmaSpacing::Lu => multistep,
            SigmaSpacing::Karras | SigmaSpacing::Exponential | SigmaSpacing::Beta => multistep || in_sigmas,
        }
    }

    /// Whether its class in diffusers reads the spacing of the sigmas; k-diffusion's sampler takes any.
    pub(super) fn reads_sigma_spacing(self) -> bool {
        self != Self::EulerAncestralDiscrete
    }

    /// Whether `timestep_spacing` affects it.
    pub fn takes_timestep_spacing(self) -> bool {
        !matches!(self, Self::DpmSolverSinglestep | Self::Lcm)
    }

    /// Whether it accepts explicit timesteps.
    pub fn takes_timesteps(self) -> bool {
        matches!(
            self,
            Self::Ddpm
                | Self::HeunDiscrete
                | Self::EulerDiscrete
                | Self::DpmSolverMultistep
                | Self::DpmSolverMultistepSde
                | Self::DpmSolverSinglestep
                | Self::Lcm
        )
    }

    /// Whether it accepts explicit sigmas.
    pub fn takes_sigmas(self) -> bool {
        self == Self::EulerDiscrete
    }

    /// The default first beta, last beta and curve between them.
    pub(super) fn default_betas(self) -> (f64, f64, BetaSchedule) {
        match self {
            Self::HeunDiscrete => (0.00085, 0.012, BetaSchedule::Linear),
            Self::Lcm => (0.00085, 0.012, BetaSchedule::ScaledLinear),
            _ => (0.0001, 0.02, BetaSchedule::Linear),
        }
    }

    /// The names of the kinds for which `is` holds, for messages.
    pub(super) fn names(is: impl Fn(Self) -> bool) -> String {
        let names: Vec<_> = Self::ALL.into_iter().filter(|kind| is(*kind)).map(Self::name).collect();
        names.join(", ")
    }
}

impl fmt::Display for SchedulerKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for SchedulerKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known = Self::names(|_| true);
            Error::option("scheduler", format!("{name:?} is not known; expected one of {known}"))
        })
    }
}

impl From<SchedulerKind> for &str {
    fn from(kind: SchedulerKind) -> Self {
        kind.name()
    }
}

impl TryFrom<String> for SchedulerKind {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}
