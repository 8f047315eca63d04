//! Defines the outcome of a launch.

use super::super::launch::description::NotCovered;
use candle_core::Result;

/// Launched, failed, or not covered by any kernel.
pub(crate) type Launched = std::result::Result<Result<()>, NotCovered>;
