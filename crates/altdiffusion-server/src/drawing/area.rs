//! Redraws a part of an image at full size: crops it around the mask, and puts the result back.

use image::imageops::{self, FilterType};
use image::{GrayImage, Rgb, RgbImage};

/// Mask values from here on are redrawn, as the sampling loop has it.
const REDRAWN: u8 = 128;

/// The part of an image that is redrawn.
#[derive(Debug, Clone)]
pub(crate) struct RedrawnArea {
    original: RgbImage,
    /// The mask of the whole image.
    mask: GrayImage,
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl RedrawnArea {
    /// The bounding box of the mask and `padding` pixels around it, widened to the proportions of `size`; `None` if
    /// nothing is masked.
    pub(crate) fn around(
        original: RgbImage,
        mask: &GrayImage,
        padding: u32,
        size: (u32, u32),
    ) -> Option<Self> {
        let (image_width, image_height) = original.dimensions();
        let mask = match mask.dimensions() == original.dimensions() {
            true => mask.clone(),
            false => imageops::resize(mask, image_width, image_height, FilterType::Triangle),
        };
        let masked = mask.enumerate_pixels().filter(|(.., value)| value.0[0] >= REDRAWN);
        let corners = masked.fold(None, |corners: Option<[u32; 4]>, (x, y, _)| {
            let [left, top, right, bottom] = corners.unwrap_or([x, y, x, y]);
            Some([left.min(x), top.min(y), right.max(x), bottom.max(y)])
        });
        let [left, top, right, bottom] = corners?;
        let (left, top) = (left.saturating_sub(padding), top.saturating_sub(padding));
        let (right, bottom) = (
            right.saturating_add(padding).min(image_width - 1),
            bottom.saturating_add(padding).min(image_height - 1),
        );
        let (mut width, mut height) = (right - left + 1, bottom - top + 1);
        // Wider or higher, to the proportions of the drawing, as far as the image goes.
        let (asked_width, asked_height) = (u64::from(size.0.max(1)), u64::from(size.1.max(1)));
        if u64::from(width) * asked_height < u64::from(height) * asked_width {
            width = ((u64::from(height) * asked_width / asked_height) as u32).clamp(width, image_width);
        } else {
            height = ((u64::from(width) * asked_height / asked_width) as u32).clamp(height, image_height);
        }
        let left = left.saturating_sub((width - (right - left + 1)) / 2).min(image_width - width);
        let top = top.saturating_sub((height - (bottom - top + 1)) / 2).min(image_height - height);
        Some(Self { original, mask, left, top, width, height })
    }

    /// The part of the image, and of its mask.
    pub(crate) fn cropped(&self) -> (RgbImage, GrayImage) {
        let Self { original, mask, left, top, width, height } = self;
        let image = imageops::crop_imm(original, *left, *top, *width, *height).to_image();
        (image, imageops::crop_imm(mask, *left, *top, *width, *height).to_image())
    }

    /// The whole image, with `drawn` where the mask is, mixed by the mask's values.
    pub(crate) fn put_back(&self, drawn: &RgbImage) -> RgbImage {
        let drawn = imageops::resize(drawn, self.width, self.height, FilterType::Lanczos3);
        let mut image = self.original.clone();
        for (x, y, new) in drawn.enumerate_pixels() {
            let (x, y) = (x + self.left, y + self.top);
            let share = u32::from(self.mask.get_pixel(x, y).0[0]);
            let old = *image.get_pixel(x, y);
            let mix = |old: u8, new: u8| {
                ((u32::from(new) * share + u32::from(old) * (255 - share) + 127) / 255) as u8
            };
            let mixed = [0, 1, 2].map(|channel| mix(old.0[channel], new.0[channel]));
            image.put_pixel(x, y, Rgb(mixed));
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use image::Luma;

    use super::*;

    fn area(mask: impl Fn(u32, u32) -> bool, padding: u32, size: (u32, u32)) -> Option<RedrawnArea> {
        let mask = GrayImage::from_fn(100, 60, |x, y| Luma([if mask(x, y) { 255 } else { 0 }]));
        let image = RgbImage::from_fn(100, 60, |x, y| Rgb([x as u8, y as u8, 0]));
        RedrawnArea::around(image, &mask, padding, size)
    }

    #[test]
    fn the_area_holds_the_mask_in_the_proportions_of_the_drawing() {
        let square = area(|x, y| (40..60).contains(&x) && (20..30).contains(&y), 4, (64, 64));
        let square = square.map(|area| (area.left, area.top, area.width, area.height));
        assert_eq!(square, Some((36, 11, 28, 28)));
        let corner = area(|x, y| x > 95 && y > 55, 32, (128, 64));
        let corner = corner.map(|area| (area.left + area.width, area.top + area.height));
        assert_eq!(corner, Some((100, 60)));
        let all = area(|_, _| true, 0, (64, 64)).map(|area| (area.left, area.top, area.width, area.height));
        assert_eq!(all, Some((0, 0, 100, 60)));
        assert!(area(|_, _| false, 4, (64, 64)).is_none());
    }

    #[test]
    fn only_the_mask_changes() {
        let Some(area) = area(|x, y| (40..60).contains(&x) && (20..30).contains(&y), 8, (64, 64)) else {
            panic!("nothing is masked");
        };
        let (image, mask) = area.cropped();
        assert_eq!((image.dimensions(), mask.dimensions()), ((36, 36), (36, 36)));
        let done = area.put_back(&RgbImage::from_pixel(64, 64, Rgb([9, 9, 9])));
        for (x, y, pixel) in done.enumerate_pixels() {
            let masked = (40..60).contains(&x) && (20..30).contains(&y);
            assert_eq!(pixel.0, if masked { [9, 9, 9] } else { [x as u8, y as u8, 0] }, "{x} {y}");
        }
    }
}
