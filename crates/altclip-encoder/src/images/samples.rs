//! Decodes into the memory that the image takes in the end: samples are spread out and packed in place.

use image::{ColorType, DynamicImage, RgbImage, RgbaImage};

/// Pixels that are moved at a time.
const AT_ONCE: usize = 4096;

/// The place of the high byte in a sample of 16 bits in the machine's byte order.
pub(super) const HIGH_BYTE: usize = if cfg!(target_endian = "little") { 1 } else { 0 };

/// Samples at the end of a buffer, which is as large as they or the image in 8 bits, whichever is larger.
pub(super) struct Samples {
    width: u32,
    height: u32,
    pixels: usize,
    channels: usize,
    /// Bytes of a pixel.
    of_pixel: usize,
    buffer: Vec<u8>,
}

impl Samples {
    /// Room for an image of a size that was checked.
    ///
    /// # Errors
    /// If a channel has more than 16 bits.
    pub(super) fn new((width, height): (u32, u32), color: ColorType) -> Result<Self, String> {
        let (channels, of_pixel) = (usize::from(color.channel_count()), usize::from(color.bytes_per_pixel()));
        if of_pixel > 2 * channels {
            return Err(format!("expected at most 16 bits per channel, found {color:?}"));
        }
        let room = of_pixel.max(if color.has_alpha() { 4 } else { 3 });
        let pixels = (width as usize).checked_mul(height as usize);
        let (Some(pixels), Some(bytes)) = (pixels, pixels.and_then(|pixels| pixels.checked_mul(room))) else {
            return Err("more pixels than this machine can address".to_owned());
        };
        Ok(Self { width, height, pixels, channels, of_pixel, buffer: vec![0; bytes] })
    }

    /// Where a decoder writes the samples, those of 16 bits in the machine's byte order.
    pub(super) fn room(&mut self) -> &mut [u8] {
        let start = self.buffer.len() - self.pixels * self.of_pixel;
        &mut self.buffer[start..]
    }

    /// The image in 8 bits per channel, the high ones: RGBA if a pixel is not opaque, and RGB otherwise.
    ///
    /// # Errors
    /// If there are too few samples.
    pub(super) fn into_image(mut self) -> Result<DynamicImage, String> {
        let sample_bytes = self.of_pixel / self.channels;
        let channels = match self.channels {
            1 => [0, 0, 0, 0],
            2 => [0, 0, 0, 1],
            3 => [0, 1, 2, 0],
            _ => [0, 1, 2, 3],
        };
        let high_byte = if sample_bytes == 2 { HIGH_BYTE } else { 0 };
        let [red, green, blue, alpha] = channels.map(|channel| channel * sample_bytes + high_byte);
        let of_pixel = self.of_pixel;
        let has_alpha = self.channels.is_multiple_of(2);
        let is_transparent =
            has_alpha && self.room().chunks_exact(of_pixel).any(|pixel| pixel[alpha] != u8::MAX);
        let Self { width, height, pixels, buffer, .. } = self;
        let image = if is_transparent {
            let bytes = packed(buffer, pixels, of_pixel, [red, green, blue, alpha]);
            RgbaImage::from_raw(width, height, bytes).map(DynamicImage::ImageRgba8)
        } else {
            let bytes = packed(buffer, pixels, of_pixel, [red, green, blue]);
            RgbImage::from_raw(width, height, bytes).map(DynamicImage::ImageRgb8)
        };
        image.ok_or_else(|| "fewer pixels than its size says".to_owned())
    }
}

/// Drops transparency, in the memory of the image.
pub(super) fn without_alpha(image: RgbaImage) -> RgbImage {
    let (width, height) = image.dimensions();
    let bytes = image.into_raw();
    let pixels = bytes.len() / 4;
    RgbImage::from_raw(width, height, packed(bytes, pixels, 4, [0, 1, 2])).unwrap_or_default()
}

/// Keeps of each pixel, of `of_pixel` bytes at the end of a buffer, the bytes at `places`, and moves them to the
/// buffer's start.
pub(super) fn packed<const KEPT: usize>(
    mut buffer: Vec<u8>,
    pixels: usize,
    of_pixel: usize,
    places: [usize; KEPT],
) -> Vec<u8> {
    if of_pixel == KEPT && places.into_iter().eq(0..KEPT) {
        return buffer;
    }
    let start = buffer.len() - pixels * of_pixel;
    let mut some = vec![0; AT_ONCE.min(pixels) * of_pixel];
    for first in (0..pixels).step_by(AT_ONCE) {
        let count = AT_ONCE.min(pixels - first);
        // Only what was read before is written over, because the buffer has room for the image behind what is read.
        let from = &mut some[..count * of_pixel];
        from.copy_from_slice(&buffer[start + first * of_pixel..][..count * of_pixel]);
        let to = buffer[first * KEPT..][..count * KEPT].as_chunks_mut::<KEPT>().0;
        for (to, from) in to.iter_mut().zip(from.chunks_exact(of_pixel)) {
            *to = places.map(|place| from[place]);
        }
    }
    buffer.truncate(pixels * KEPT);
    buffer.shrink_to_fit();
    buffer
}

#[cfg(test)]
mod tests {
    use image::ImageBuffer;

    use super::*;
    use crate::images::background::eight_bits;

    /// Larger than what is moved at a time, and not a multiple of it.
    const SIZE: (u32, u32) = (100, 70);

    fn random_samples(color: ColorType, is_opaque: bool) -> Samples {
        let mut samples = Samples::new(SIZE, color).unwrap();
        let mut state = 1_u32;
        for byte in samples.room() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        if color.has_alpha() && is_opaque {
            let of_pixel = samples.of_pixel;
            let alpha = of_pixel - of_pixel / samples.channels;
            samples.room().chunks_exact_mut(of_pixel).for_each(|pixel| pixel[alpha..].fill(u8::MAX));
        }
        samples
    }

    #[test]
    fn samples_of_every_kind_become_the_same_pixels_as_in_memory_of_their_own() {
        let (width, height) = SIZE;
        for color in [
            ColorType::L8,
            ColorType::La8,
            ColorType::Rgb8,
            ColorType::Rgba8,
            ColorType::L16,
            ColorType::La16,
            ColorType::Rgb16,
            ColorType::Rgba16,
        ] {
            for is_opaque in [false, true] {
                let mut samples = random_samples(color, is_opaque);
                let bytes = samples.room().to_vec();
                let wide: Vec<u16> =
                    bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_ne_bytes(*pair)).collect();
                let whole = match color {
                    ColorType::L8 => {
                        ImageBuffer::from_raw(width, height, bytes).map(DynamicImage::ImageLuma8)
                    }
                    ColorType::La8 => {
                        ImageBuffer::from_raw(width, height, bytes).map(DynamicImage::ImageLumaA8)
                    }
                    ColorType::Rgb8 => {
                        ImageBuffer::from_raw(width, height, bytes).map(DynamicImage::ImageRgb8)
                    }
                    ColorType::Rgba8 => {
                        ImageBuffer::from_raw(width, height, bytes).map(DynamicImage::ImageRgba8)
                    }
                    ColorType::L16 => {
                        ImageBuffer::from_raw(width, height, wide).map(DynamicImage::ImageLuma16)
                    }
                    ColorType::La16 => {
                        ImageBuffer::from_raw(width, height, wide).map(DynamicImage::ImageLumaA16)
                    }
                    ColorType::Rgb16 => {
                        ImageBuffer::from_raw(width, height, wide).map(DynamicImage::ImageRgb16)
                    }
                    _ => ImageBuffer::from_raw(width, height, wide).map(DynamicImage::ImageRgba16),
                };
                let (found, expected) = (samples.into_image().unwrap(), eight_bits(whole.unwrap()));
                assert!(found == expected, "{color:?}, opaque: {is_opaque}");
                assert_eq!(found.color().has_alpha(), color.has_alpha() && !is_opaque);
            }
        }
    }

    #[test]
    fn more_bits_are_refused() {
        let error = Samples::new(SIZE, ColorType::Rgb32F).err().unwrap();
        assert_eq!(error, "expected at most 16 bits per channel, found Rgb32F");
    }
}
