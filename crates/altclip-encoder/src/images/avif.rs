//! Reads AVIF files with decoders in pure Rust: `avif-parse` for the container, and Rerun's build of `rav1d` for AV1.
//!
//! Colours are converted like in libavif, which Pillow uses. Images of several tiles (grids) are not supported.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage, RgbaImage};
use re_rav1d::dav1d::pixel::{MatrixCoefficients, YUVRange};
use re_rav1d::dav1d::{Decoder, Error, Picture, PixelLayout, PlanarImageComponent, Plane, Settings};

use super::check_size;

/// Decodes the first image of an AVIF file, and returns its orientation.
///
/// # Errors
/// What is wrong with the file, in one line.
pub(super) fn decode(bytes: &[u8], max_pixels: u64) -> Result<(DynamicImage, Orientation), String> {
    let file = avif_parse::read_avif(&mut Cursor::new(bytes)).map_err(|error| error.to_string())?;
    let header = file.primary_item_metadata().map_err(|error| error.to_string())?;
    check_size(header.max_frame_width.get(), header.max_frame_height.get(), max_pixels)?;
    let color = Frame::decode(&file.primary_item, max_pixels)?;
    let alpha = file.alpha_item.as_ref().map(|item| Frame::decode(item, max_pixels)).transpose()?;

    let (width, height) = (color.frame.width(), color.frame.height());
    check_size(width, height, max_pixels)?;
    let orientation = orientation_of(bytes);
    let Some(alpha) = alpha else {
        let image = RgbImage::from_fn(width, height, |x, y| image::Rgb(to_bytes(color.rgb(x, y))));
        return Ok((DynamicImage::ImageRgb8(image), orientation));
    };
    if (alpha.frame.width(), alpha.frame.height()) != (width, height) {
        return Err("its transparency is of another size than its colours".to_owned());
    }
    let image = RgbaImage::from_fn(width, height, |x, y| {
        let opacity = alpha.luma(x, y).clamp(0., 1.);
        let mut rgb = color.rgb(x, y);
        if file.premultiplied_alpha && opacity > 0. {
            rgb = rgb.map(|part| part / opacity);
        }
        let [red, green, blue] = to_bytes(rgb);
        image::Rgba([red, green, blue, to_byte(opacity)])
    });
    Ok((DynamicImage::ImageRgba8(image), orientation))
}

/// A decoded frame with luma and, unless it is monochrome, chroma.
struct Frame {
    frame: Picture,
    /// Y, U, V; one byte per sample, or two for more than 8 bits.
    planes: Vec<Plane>,
}

impl Frame {
    fn decode(item: &[u8], max_pixels: u64) -> Result<Self, String> {
        let mut settings = Settings::new();
        // Images are decoded in parallel, each on one thread.
        settings.set_n_threads(1);
        settings.set_max_frame_delay(1);
        settings.set_frame_size_limit(u32::try_from(max_pixels).unwrap_or(u32::MAX));
        let mut decoder = Decoder::with_settings(&settings).map_err(|error| error.to_string())?;
        let mut sent = decoder.send_data(item.to_vec(), None, None, None);
        loop {
            match decoder.get_picture() {
                Ok(frame) => {
                    use PlanarImageComponent::{U, V, Y};
                    let parts = match frame.pixel_layout() {
                        PixelLayout::I400 => &[Y][..],
                        _ => &[Y, U, V],
                    };
                    let planes = parts.iter().map(|&part| frame.plane(part)).collect();
                    return Ok(Self { frame, planes });
                }
                // The decoder needs more data before it returns a frame.
                Err(Error::Again) if matches!(sent, Err(Error::Again)) => sent = decoder.send_pending_data(),
                Err(Error::Again) => return Err("cut short".to_owned()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// A sample of a plane as stored; coordinates outside are clamped.
    fn sample(&self, plane: usize, x: u32, y: u32) -> f32 {
        let part = [PlanarImageComponent::Y, PlanarImageComponent::U][plane.min(1)];
        let (stride, height) = self.frame.plane_data_geometry(part);
        let bytes: &[u8] = self.planes.get(plane).map(|plane| &**plane).unwrap_or_default();
        let row = y.min(height.saturating_sub(1)) as usize * stride as usize;
        if self.frame.bit_depth() == 8 {
            return bytes.get(row + x as usize).copied().unwrap_or_default().into();
        }
        let at = row + 2 * x as usize;
        let pair = bytes.get(at..at + 2).and_then(|pair| pair.try_into().ok()).unwrap_or_default();
        u16::from_ne_bytes(pair).into()
    }

    /// Luma, 0 to 1.
    fn luma(&self, x: u32, y: u32) -> f32 {
        let (value, depth) = (self.sample(0, x, y), self.frame.bit_depth());
        let unit = (1u32 << (depth - 8)) as f32;
        match self.frame.color_range() {
            YUVRange::Limited => (value - 16. * unit) / (219. * unit),
            YUVRange::Full => value / (256. * unit - 1.),
        }
    }

    /// Chroma, −0.5 to 0.5, interpolated if subsampled.
    fn chroma(&self, plane: usize, x: u32, y: u32) -> f32 {
        let (half_x, half_y) = match self.frame.pixel_layout() {
            PixelLayout::I420 => (true, true),
            PixelLayout::I422 => (true, false),
            PixelLayout::I400 | PixelLayout::I444 => (false, false),
        };
        // A subsampled position lies between two pixels: the nearer sample counts three times as much as the next.
        let around = |place: u32, is_half: bool, size: u32| {
            let near = if is_half { place / 2 } else { place };
            let last = if is_half { size.div_ceil(2) } else { size }.saturating_sub(1);
            let next = if place.is_multiple_of(2) { near.saturating_sub(1) } else { (near + 1).min(last) };
            [(near, 0.75), (if is_half { next } else { near }, 0.25)]
        };
        let (columns, rows) = (around(x, half_x, self.frame.width()), around(y, half_y, self.frame.height()));
        let mut value = 0.;
        for (row, of_row) in rows {
            for (column, of_column) in columns {
                value += of_row * of_column * self.sample(plane, column, row);
            }
        }
        let unit = (1u32 << (self.frame.bit_depth() - 8)) as f32;
        match self.frame.color_range() {
            YUVRange::Limited => (value - 128. * unit) / (224. * unit),
            YUVRange::Full => (value - 128. * unit) / (256. * unit - 1.),
        }
    }

    /// Red, green and blue, 0 to 1 (ITU-T H.273, section 8.3).
    fn rgb(&self, x: u32, y: u32) -> [f32; 3] {
        let luma = self.luma(x, y);
        if self.frame.pixel_layout() == PixelLayout::I400 {
            return [luma; 3];
        }
        let (red, blue) = match self.frame.matrix_coefficients() {
            MatrixCoefficients::Identity => {
                return [self.chroma(2, x, y) + 0.5, luma, self.chroma(1, x, y) + 0.5];
            }
            MatrixCoefficients::BT709 => (0.2126, 0.0722),
            MatrixCoefficients::BT2020NonConstantLuminance => (0.2627, 0.0593),
            // Unspecified coefficients mean BT.601, as in libavif.
            _ => (0.299, 0.114),
        };
        let (cb, cr) = (self.chroma(1, x, y), self.chroma(2, x, y));
        let (r, b) = (luma + 2. * (1. - red) * cr, luma + 2. * (1. - blue) * cb);
        [r, (luma - red * r - blue * b) / (1. - red - blue), b]
    }
}

fn to_bytes(rgb: [f32; 3]) -> [u8; 3] {
    rgb.map(to_byte)
}

fn to_byte(part: f32) -> u8 {
    (255. * part.clamp(0., 1.)).round() as u8
}

/// The orientation from the properties `irot` and `imir`, applied in this order. The parser ignores them.
fn orientation_of(bytes: &[u8]) -> Orientation {
    let property = |name: &[u8; 4]| {
        // A box of nine bytes: length, name, and angle or axis.
        let header = [&[0, 0, 0, 9], &name[..]].concat();
        let at = bytes.windows(header.len()).position(|window| window == header)?;
        bytes.get(at + header.len()).copied()
    };
    let (turns, mirror) = (property(b"irot").unwrap_or(0) & 3, property(b"imir").map(|axis| axis & 1));
    match (turns, mirror) {
        // Quarter turns are counter-clockwise, and axis 0 swaps top and bottom.
        (0, None) => Orientation::NoTransforms,
        (1, None) => Orientation::Rotate270,
        (2, None) => Orientation::Rotate180,
        (_, None) => Orientation::Rotate90,
        (0, Some(0)) | (2, Some(1)) => Orientation::FlipVertical,
        (0, Some(_)) | (2, Some(_)) => Orientation::FlipHorizontal,
        (1, Some(0)) | (3, Some(1)) => Orientation::Rotate90FlipH,
        (_, Some(_)) => Orientation::Rotate270FlipH,
    }
}
