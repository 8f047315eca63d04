//! Draws captions in any script, with the system's fonts.

use cosmic_text::{
    Attrs, Buffer, Color, Ellipsize, EllipsizeHeightLimit, FontSystem, Metrics, Shaping, SwashCache, Wrap,
};
use image::{Rgb, RgbImage};

/// Pixels per line of text.
pub(super) const LINE_HEIGHT: u32 = 20;

/// The size of an em, in pixels.
const FONT_SIZE: f32 = 14.;

/// The glyph for a missing character (OpenType, `.notdef`).
const NO_GLYPH: u16 = 0;

/// The system's fonts, and a cache of drawn glyphs.
pub(super) struct Captions {
    fonts: FontSystem,
    glyphs: SwashCache,
}

impl Captions {
    /// Finds the system's fonts; `None` if it has none.
    pub(super) fn new() -> Option<Self> {
        let fonts = FontSystem::new();
        (!fonts.db().is_empty()).then(|| Self { fonts, glyphs: SwashCache::new() })
    }

    /// Draws a line in black with its upper left corner at `(left, top)`. Text longer than `width` pixels ends in an
    /// ellipsis; nothing is drawn outside the image. Returns false, having drawn nothing, if no font has the
    /// characters.
    pub(super) fn draw(
        &mut self,
        image: &mut RgbImage,
        text: &str,
        (left, top): (u32, u32),
        width: u32,
    ) -> bool {
        let mut line = Buffer::new(&mut self.fonts, Metrics::new(FONT_SIZE, LINE_HEIGHT as f32));
        line.set_wrap(Wrap::None);
        line.set_ellipsize(Ellipsize::End(EllipsizeHeightLimit::Lines(1)));
        line.set_size(Some(width as f32), Some(LINE_HEIGHT as f32));
        line.set_text(text, &Attrs::new(), Shaping::Advanced, None);
        line.shape_until_scroll(&mut self.fonts, false);
        if line.layout_runs().any(|run| run.glyphs.iter().any(|glyph| glyph.glyph_id == NO_GLYPH)) {
            return false;
        }
        line.draw(&mut self.fonts, &mut self.glyphs, Color::rgb(0, 0, 0), |x, y, columns, rows, color| {
            for (x, y) in
                (0..rows as i32).flat_map(|row| (0..columns as i32).map(move |column| (x + column, y + row)))
            {
                let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { continue };
                if x >= width || y >= LINE_HEIGHT {
                    continue;
                }
                if let Some(pixel) = image.get_pixel_mut_checked(left + x, top + y) {
                    *pixel = blend(*pixel, color);
                }
            }
        });
        true
    }
}

fn blend(Rgb(below): Rgb<u8>, color: Color) -> Rgb<u8> {
    let (above, alpha) = ([color.r(), color.g(), color.b()], u16::from(color.a()));
    let mixed = |below: u8, above: u8| {
        ((u16::from(above) * alpha + u16::from(below) * (255 - alpha) + 127) / 255) as u8
    };
    Rgb([0, 1, 2].map(|part| mixed(below[part], above[part])))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every line must draw inside its borders and nowhere else, whichever fonts there are.
    #[test]
    fn lines_stay_within_their_borders() {
        let Some(mut captions) = Captions::new() else {
            eprintln!("SKIPPED: there are no fonts to draw captions with");
            return;
        };
        for text in ["a red apple", "一只猫", "قطة", "แมว", "बिल्ली", "x\u{202e}\ty", &"long ".repeat(1000)]
        {
            let mut image = RgbImage::from_pixel(100, 60, Rgb([255; 3]));
            let is_drawn = captions.draw(&mut image, text, (10, 20), 60);
            let marked: Vec<(u32, u32)> = image
                .enumerate_pixels()
                .filter(|(_, _, pixel)| pixel.0 != [255; 3])
                .map(|(x, y, _)| (x, y))
                .collect();
            assert_eq!(!marked.is_empty(), is_drawn, "{text}");
            assert!(marked.iter().all(|(x, y)| (10..70).contains(x) && (20..40).contains(y)), "{text}");
        }
        // A corner outside the image, and no room at all.
        let mut image = RgbImage::new(4, 4);
        captions.draw(&mut image, "a", (3, 3), 50);
        captions.draw(&mut image, "a", (0, 0), 0);
    }
}
