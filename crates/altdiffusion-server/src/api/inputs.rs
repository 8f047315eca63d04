//! Checks and decodes the inputs of requests.

use image::DynamicImage;

use crate::image_data::{GivenImage, ImageRoom};
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

/// Decodes several images in base64 or data URIs, and gives their shares of the room for images.
///
/// # Errors
/// If there are none or too many, or one cannot be decoded.
pub(crate) async fn given_images(
    state: &Shared,
    field: &str,
    texts: Vec<String>,
) -> Result<(Vec<DynamicImage>, Vec<ImageRoom>), Problem> {
    check_count(state, field, texts.len())?;
    let (mut images, mut rooms) = (Vec::with_capacity(texts.len()), Vec::new());
    for (index, text) in texts.into_iter().enumerate() {
        let GivenImage { image, room } =
            GivenImage::of_text(&state.decoding, &format!("{field}[{index}]"), text).await?;
        images.push(image);
        rooms.push(room);
    }
    Ok((images, rooms))
}
