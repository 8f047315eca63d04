//! Lays images out on a contact sheet.

use candle_core::{DType, Result, Tensor};
use image::{Rgb, RgbImage};

/// Channels-last images (n, height, width, 3) from −1 to 1 side by side, `columns` to a row, with a white margin.
///
/// # Errors
/// If a tensor operation fails.
pub fn contact_sheet(images: &Tensor, columns: usize) -> Result<RgbImage> {
    const MARGIN: usize = 2;
    let (n, height, width, _) = images.dims4()?;
    let pixels: Vec<u8> =
        ((images.clamp(-1., 1.)? + 1.)? * 127.5)?.round()?.to_dtype(DType::U8)?.flatten_all()?.to_vec1()?;
    let columns = columns.clamp(1, n.max(1));
    let sheet = |count: usize, size: usize| (count * (size + MARGIN) + MARGIN) as u32;
    let mut sheet =
        RgbImage::from_pixel(sheet(columns, width), sheet(n.div_ceil(columns), height), Rgb([255; 3]));
    for (i, image) in pixels.chunks_exact((height * width * 3).max(1)).enumerate() {
        let left = MARGIN + i % columns * (width + MARGIN);
        let top = MARGIN + i / columns * (height + MARGIN);
        for (p, rgb) in image.chunks_exact(3).enumerate() {
            let (x, y) = (left + p % width, top + p / width);
            sheet.put_pixel(x as u32, y as u32, Rgb([rgb[0], rgb[1], rgb[2]]));
        }
    }
    Ok(sheet)
}
