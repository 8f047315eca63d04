//! Converts emoji images to channels-last tensors from −1 to 1.

use crate::dataset::{Dataset, IMAGE_SIZE};
use candle_core::{DType, Device, Result, Tensor};
use rand::{Rng, RngExt};
use rand_distr::StandardNormal;

/// Converts 8-bit pixels (n, size, size, 3) to a channels-last tensor from −1 to 1.
///
/// # Errors
/// If `pixels` is not a multiple of such images.
pub fn to_tensor(pixels: &[u8], size: usize, device: &Device) -> Result<Tensor> {
    let n = pixels.len() / (size * size * 3).max(1);
    let values: Vec<f32> = pixels.iter().map(|&p| f32::from(p) / 127.5 - 1.).collect();
    Tensor::from_vec(values, (n, size, size, 3), device)
}

/// Converts images from −1 to 1, of any shape, to 8-bit values: the reverse of [`to_tensor`].
///
/// # Errors
/// If a tensor operation fails.
pub fn to_bytes(images: &Tensor) -> Result<Vec<u8>> {
    let levels = ((images.clamp(-1., 1.)? + 1.)? * 127.5)?.round()?;
    levels.to_dtype(DType::U8)?.flatten_all()?.to_vec1()
}

/// Appends a channels-last square image, shifted over white by up to `max_shift` pixels and with Gaussian noise of a
/// standard deviation of up to `max_noise`, so that an encoder does not rely on single pixels.
pub fn disturb(
    rng: &mut impl Rng,
    image: &[f32],
    size: usize,
    max_shift: usize,
    max_noise: f32,
    out: &mut Vec<f32>,
) {
    let reach = max_shift as i64;
    let (dx, dy) = (rng.random_range(-reach..=reach), rng.random_range(-reach..=reach));
    let noise = rng.random_range(0f32..=1.) * max_noise;
    for y in 0..size as i64 {
        for x in 0..size as i64 {
            let (sx, sy) = (x - dx, y - dy);
            let inside = (0..size as i64).contains(&sx) && (0..size as i64).contains(&sy);
            let start = inside.then(|| (sy as usize * size + sx as usize) * 3);
            for channel in 0..3 {
                let value = start.map_or(1., |start| image[start + channel]);
                out.push(value + noise * rng.sample::<f32, _>(StandardNormal));
            }
        }
    }
}

/// The mean peak signal-to-noise ratio in dB of channels-last images from −1 to 1, as stored: rounded to 8 bits.
///
/// # Errors
/// If the shapes differ.
pub fn mean_psnr(a: &Tensor, b: &Tensor) -> Result<f64> {
    let quantise = |x: &Tensor| ((x.clamp(-1., 1.)? + 1.)? * 127.5)?.round();
    let error = (quantise(a)? - quantise(b)?)?.sqr()?.flatten_from(1)?.mean(1)?.to_dtype(DType::F64)?;
    let psnr: Vec<f64> =
        error.to_vec1::<f64>()?.iter().map(|e| 10. * (255. * 255. / e.max(1e-10)).log10()).collect();
    Ok(psnr.iter().sum::<f64>() / psnr.len().max(1) as f64)
}

/// The images in the given drawing styles, channels-last from −1 to 1, with the concept of each.
///
/// # Errors
/// If there are none.
pub fn training_images(
    data: &Dataset,
    vendors: &[String],
    device: &Device,
) -> crate::Result<(Tensor, Vec<usize>)> {
    let (mut pixels, mut owners) = (Vec::new(), Vec::new());
    for (concept, entry) in data.concepts().iter().enumerate() {
        for image in entry.images.iter().filter(|image| vendors.contains(&image.vendor)) {
            pixels.extend_from_slice(data.image(image.index).unwrap_or_default());
            owners.push(concept);
        }
    }
    if owners.is_empty() {
        return Err(crate::Error::Setting(format!(
            "vendors {vendors:?}: the data set has no image of theirs"
        )));
    }
    Ok((to_tensor(&pixels, IMAGE_SIZE, device)?, owners))
}
