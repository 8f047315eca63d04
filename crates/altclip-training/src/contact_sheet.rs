//! Arranges image tensors on a contact sheet.

use crate::error::Result;
use candle_core::{DType, Tensor};
use image::RgbImage;

/// Arranges channels-last images (n, height, width, 3) from −1 to 1, `columns` to a row, with white margins. Values
/// outside that range are clamped.
///
/// # Errors
/// If there are no images, or they have another shape.
pub fn contact_sheet(images: &Tensor, columns: usize) -> Result<RgbImage> {
    let &[_, height, width, 3] = images.dims() else {
        let problem = format!("expected images (n, height, width, 3), found {:?}", images.dims());
        return Err(candle_core::Error::Msg(problem).into());
    };
    let pixels: Vec<u8> =
        ((images.clamp(-1., 1.)? + 1.)? * 127.5)?.round()?.to_dtype(DType::U8)?.flatten_all()?.to_vec1()?;
    let image = |pixels: &[u8]| RgbImage::from_raw(width as u32, height as u32, pixels.to_vec());
    let images: Vec<RgbImage> = pixels.chunks_exact((height * width * 3).max(1)).filter_map(image).collect();
    Ok(altdiffusion_pipeline::contact_sheet(&images, columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use image::Rgb;

    #[test]
    fn values_become_pixels_in_rows_and_columns() -> Result<()> {
        let grey = |value: f64| Tensor::full(value as f32, (1, 2, 3, 3), &Device::Cpu);
        let images = Tensor::cat(&[grey(-1.)?, grey(0.)?, grey(7.)?], 0)?;
        let sheet = contact_sheet(&images, 2)?;
        // Two columns of three pixels and two rows of two, with margins of two.
        assert_eq!(sheet.dimensions(), (12, 10));
        let found = [(2, 2), (7, 3), (2, 6), (0, 0)].map(|(x, y)| *sheet.get_pixel(x, y));
        assert_eq!(found, [0, 128, 255, 255].map(|value| Rgb([value; 3])));
        Ok(())
    }
}
