//! Checks configurations as they are read, so that errors name the file.

use serde::de::Error;

/// The configuration, if it passes the check.
///
/// # Errors
/// What the check says.
pub(crate) fn checked<C, E: Error>(config: C, check: impl FnOnce(&C) -> Result<(), String>) -> Result<C, E> {
    check(&config).map_err(E::custom)?;
    Ok(config)
}
