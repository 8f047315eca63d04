//! Checks the inputs of requests.

use crate::problem::Problem;
use crate::state::Shared;

/// Checks the number of inputs.
///
/// # Errors
/// If there are none, or too many.
pub(crate) fn check_count(state: &Shared, field: &str, count: usize) -> Result<(), Problem> {
    let most = state.options.limits.inputs;
    match count {
        0 => Err(Problem::field(field, "expected at least one, found none")),
        count if count > most => {
            Err(Problem::too_large(format!("{field}: {count}, expected at most {most}")))
        }
        _ => Ok(()),
    }
}

/// Checks the length of a text.
///
/// # Errors
/// If it is too long.
pub(crate) fn check_text(state: &Shared, field: &str, text: &str) -> Result<(), Problem> {
    let most = state.options.limits.text_bytes;
    match text.len() > most {
        true => {
            let problem =
                Problem::too_large(format!("{field}: {} bytes, expected at most {most}", text.len()));
            Err(Problem { field: Some(field.to_owned()), ..problem })
        }
        false => Ok(()),
    }
}

/// Checks several texts.
///
/// # Errors
/// If there are none or too many, or one is too long.
pub(crate) fn check_texts(state: &Shared, field: &str, texts: &[String]) -> Result<(), Problem> {
    check_count(state, field, texts.len())?;
    let texts = texts.iter().enumerate();
    texts.into_iter().try_for_each(|(index, text)| check_text(state, &format!("{field}[{index}]"), text))
}
