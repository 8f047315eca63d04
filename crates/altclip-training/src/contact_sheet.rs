//! Lays the images of a tensor out on a contact sheet.

use candle_core::{DType, Result, Tensor};
use image::RgbImage;
use model_files::candle_error;

/// Channels-last images (n, height, width, 3) from −1 to 1 side by side, `columns` to a row, with a white margin.
///
/// # Errors
/// If there are no images, or a tensor operation fails.
pub fn contact_sheet(images: &Tensor, columns: usize) -> Result<RgbImage> {
    let (_, height, width, _) = images.dims4()?;
    let pixels: Vec<u8> =
        ((images.clamp(-1., 1.)? + 1.)? * 127.5)?.round()?.to_dtype(DType::U8)?.flatten_all()?.to_vec1()?;
    let image = |pixels: &[u8]| RgbImage::from_raw(width as u32, height as u32, pixels.to_vec());
    let images: Option<Vec<RgbImage>> = pixels.chunks_exact((height * width * 3).max(1)).map(image).collect();
    let Some(images) = images else {
        candle_core::bail!("expected images of three channels, found {width} × {height} pixels of others")
    };
    altdiffusion_pipeline::contact_sheet(&images, columns).map_err(candle_error::carry)
}
