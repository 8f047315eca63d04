//! Converts the decoder's pixels to images.

use candle_core::{Device, Tensor};
use fused_ops::to_bytes;
use image::RgbImage;

use crate::latents::all_finite;
use crate::{Error, Result};

/// Converts pixels (images, 3, height, width), −1 to 1, to 8-bit RGB images, clamping values outside and rounding
/// halves to even as diffusers does.
///
/// # Errors
/// If there are not three channels, or a value is not finite.
pub fn to_images(pixels: &Tensor) -> Result<Vec<RgbImage>> {
    let &[images, 3, height, width] = pixels.dims() else {
        return Err(Error::Shape {
            tensor: "pixels",
            expected: "(images, 3, height, width)".to_owned(),
            found: format!("{:?}", pixels.dims()),
        });
    };
    images_of(&pixels.permute((0, 2, 3, 1))?, (images, height, width))
}

/// Converts pixels (images, height, width, 3).
pub(crate) fn channels_last_to_images(pixels: &Tensor) -> Result<Vec<RgbImage>> {
    let &[images, height, width, 3] = pixels.dims() else {
        return Err(Error::Shape {
            tensor: "pixels",
            expected: "(images, height, width, 3)".to_owned(),
            found: format!("{:?}", pixels.dims()),
        });
    };
    images_of(pixels, (images, height, width))
}

fn images_of(pixels: &Tensor, (images, height, width): (usize, usize, usize)) -> Result<Vec<RgbImage>> {
    if !all_finite(pixels)? {
        return Err(Error::NotFinite {
            place: "the decoded image is".to_owned(),
            remedy: "f16 may have overflowed; use bf16 or f32",
        });
    }
    let bytes = to_bytes(pixels)?.to_device(&Device::Cpu)?;
    (0..images)
        .map(|image| {
            let bytes = bytes.get(image)?.flatten_all()?.to_vec1()?;
            let sizes = u32::try_from(width).ok().zip(u32::try_from(height).ok());
            sizes.and_then(|(width, height)| RgbImage::from_raw(width, height, bytes)).ok_or_else(|| {
                Error::Shape {
                    tensor: "pixels",
                    expected: "sizes that an image can have".to_owned(),
                    found: format!("{height} × {width}"),
                }
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use candle_core::DType;

    use super::*;

    #[test]
    fn rows_columns_and_channels_keep_their_places() -> Result<()> {
        let values: Vec<f32> = (0..2 * 3 * 2 * 4).map(|value| value as f32 / 127.5 - 1.0).collect();
        let images = to_images(&Tensor::from_vec(values, (2, 3, 2, 4), &Device::Cpu)?)?;
        assert_eq!(images.len(), 2);
        assert_eq!(images[1].dimensions(), (4, 2));
        // Image 1, row 1, column 2: 24 + channel · 8 + 4 + 2.
        assert_eq!(images[1].get_pixel(2, 1).0, [30, 38, 46]);
        Ok(())
    }

    #[test]
    fn what_is_no_image_is_an_error() -> Result<()> {
        let pixels = Tensor::full(f32::NAN, (1, 3, 2, 2), &Device::Cpu)?;
        assert!(matches!(to_images(&pixels), Err(Error::NotFinite { .. })));
        let pixels = Tensor::zeros((1, 4, 2, 2), DType::F32, &Device::Cpu)?;
        assert!(matches!(to_images(&pixels), Err(Error::Shape { .. })));
        Ok(())
    }
}
