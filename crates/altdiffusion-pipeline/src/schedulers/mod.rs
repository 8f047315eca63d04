//! Chooses the noise levels of a run, and steps from one to the next.
//!
//! A [`SchedulerConfig`] is read once from a checkpoint's `scheduler_config.json`. It holds what all schedulers
//! share: the betas of the training and the spacing of timesteps. [`SchedulerConfig::build`] makes a new
//! [`Scheduler`] from it for each run.
//!
//! The schedules are those of diffusers 0.31, computed in the same precision (f32 tables, running products in f64
//! like PyTorch's), so that whole trajectories agree, not only their ends.

mod beta_quantile;
mod beta_schedule;
mod build;
mod changes;
mod config;
mod ddim;
mod ddpm;
mod dpm_solver;
mod dpm_solver_multistep;
mod dpm_solver_singlestep;
mod euler_ancestral_discrete;
mod euler_discrete;
mod fields;
mod heun_discrete;
mod kind;
mod lcm;
mod limit;
mod linear;
mod linspace;
mod lms_discrete;
mod noise_schedule;
mod own_scheduler;
mod pndm;
mod prediction;
mod sampler;
mod scheduler;
mod serde_config;
mod sigma_run;
mod sigmas;
mod solver_options;
mod solver_run;
mod steps;
mod tensors;
mod timesteps;
mod uni_pc_multistep;

pub use beta_schedule::BetaSchedule;
pub use config::SchedulerConfig;
pub use ddim::Ddim;
pub use ddpm::Ddpm;
pub use dpm_solver_multistep::DpmSolverMultistep;
pub use dpm_solver_singlestep::DpmSolverSinglestep;
pub use euler_ancestral_discrete::EulerAncestralDiscrete;
pub use euler_discrete::EulerDiscrete;
pub use heun_discrete::HeunDiscrete;
pub use kind::SchedulerKind;
pub use lcm::Lcm;
pub(crate) use linear::{LinearUpdate, Term, linear_updates};
pub use lms_discrete::LmsDiscrete;
pub use noise_schedule::NoiseSchedule;
pub use own_scheduler::SchedulerFactory;
pub use pndm::Pndm;
pub use prediction::PredictionType;
pub use sampler::Sampler;
pub use scheduler::Scheduler;
pub use sigmas::{FinalSigma, SigmaInterpolation, SigmaSpacing};
pub use solver_options::{Algorithm, SolverType, VarianceType};
pub use steps::Steps;
use tensors::{at, divide, noise_like};
pub use timesteps::TimestepSpacing;
pub use uni_pc_multistep::UniPcMultistep;
