//! Says whether a launch was made.

use super::super::launch::description::NotCovered;
use candle_core::Result;

/// Why a launch was not made, or that it was.
pub(crate) type Launched = std::result::Result<Result<()>, NotCovered>;
