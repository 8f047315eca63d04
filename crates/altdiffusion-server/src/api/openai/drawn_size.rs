//! Decides in which size an image is drawn, and how many times it is enlarged then.

use crate::problem::Problem;

/// Sides of images are multiples of this.
const SIDE_MULTIPLE: usize = 8;

/// Width and height in pixels.
pub(super) type Sides = (usize, usize);

/// How a model draws images whose size nobody asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct ModelSize {
    /// What it draws, if that is known.
    pub(super) sides: Option<Sides>,
    /// How many times the sides are enlarged then.
    pub(super) scale: usize,
}

/// How an image is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DrawnSize {
    /// What the model draws; `None` leaves it to the model.
    pub(super) sides: Option<Sides>,
    /// How many times the sides are enlarged then.
    pub(super) scale: usize,
}

impl DrawnSize {
    /// How to draw an image for a request for a size, a scale, both or neither, with sides of at most `most` pixels.
    ///
    /// With a scale, the size is what the model draws. Without, it is the image's, and a model that enlarges its images
    /// draws a part of it as long as that is no smaller than what it draws by default.
    ///
    /// # Errors
    /// If the size cannot be drawn, or the image would be too large.
    pub(super) fn of(
        size: Option<Sides>,
        scale: Option<usize>,
        model: ModelSize,
        most: usize,
    ) -> Result<Self, Problem> {
        if let Some(sides) = size {
            check_sides(sides, most)?;
        }
        let longer = |sides: Option<Sides>| sides.map_or(0, |(width, height)| width.max(height));
        match (size, scale) {
            (_, Some(scale)) => {
                let largest = longer(size.or(model.sides)).saturating_mul(scale);
                if scale > 1 && largest > most {
                    let problem =
                        format!("{scale}, expected sides of at most {most} pixels, found {largest}");
                    return Err(Problem::field("scale", problem));
                }
                Ok(Self { sides: size, scale })
            }
            (Some((width, height)), None) => {
                let scale = scale_of((width, height), model);
                Ok(Self { sides: Some((width / scale, height / scale)), scale })
            }
            (None, None) => {
                let largest_scale = most / longer(model.sides).max(1);
                Ok(Self { sides: None, scale: model.scale.min(largest_scale.max(1)) })
            }
        }
    }
}

/// The largest scale of the model's at which it draws an image of this size, but no smaller one than by default.
fn scale_of(size: Sides, model: ModelSize) -> usize {
    let Some(default) = model.sides else { return 1 };
    let fits = |side: usize, default: usize, scale: usize| {
        side.is_multiple_of(SIDE_MULTIPLE * scale) && side / scale >= default
    };
    let is_fit = |scale: &usize| fits(size.0, default.0, *scale) && fits(size.1, default.1, *scale);
    (2..=model.scale).rev().find(is_fit).unwrap_or(1)
}

fn check_sides((width, height): Sides, most: usize) -> Result<(), Problem> {
    let is_drawn = |side: usize| side > 0 && side.is_multiple_of(SIDE_MULTIPLE) && side <= most;
    match is_drawn(width) && is_drawn(height) {
        true => Ok(()),
        false => {
            let problem = format!(
                "{width}x{height}, expected sides that {SIDE_MULTIPLE} divides, of at most {most} pixels"
            );
            Err(Problem::field("size", problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: ModelSize = ModelSize { sides: Some((64, 64)), scale: 4 };
    const LARGE: ModelSize = ModelSize { sides: Some((512, 512)), scale: 1 };

    fn drawn(
        size: Option<Sides>,
        scale: Option<usize>,
        model: ModelSize,
        most: usize,
    ) -> (Option<Sides>, usize) {
        let drawn = DrawnSize::of(size, scale, model, most).map(|drawn| (drawn.sides, drawn.scale));
        drawn.unwrap_or_else(|problem| panic!("{}", problem.message))
    }

    #[test]
    fn images_have_the_size_that_is_asked_for() {
        for (size, drawn_by_small, scale) in [
            ((256, 256), (64, 64), 4),
            ((512, 512), (128, 128), 4),
            ((192, 192), (64, 64), 3),
            ((256, 128), (128, 64), 2),
            // What could only be drawn in part is drawn whole.
            ((64, 64), (64, 64), 1),
            ((128, 64), (128, 64), 1),
            ((248, 248), (248, 248), 1),
        ] {
            assert_eq!(drawn(Some(size), None, SMALL, 2048), (Some(drawn_by_small), scale));
            assert_eq!((drawn_by_small.0 * scale, drawn_by_small.1 * scale), size);
            assert_eq!(drawn(Some(size), None, LARGE, 2048), (Some(size), 1));
        }
        assert!(DrawnSize::of(Some((60, 64)), None, SMALL, 2048).is_err());
        assert!(DrawnSize::of(Some((64, 0)), None, SMALL, 2048).is_err());
        assert!(DrawnSize::of(Some((256, 256)), None, SMALL, 128).is_err());
    }

    #[test]
    fn without_a_size_images_are_the_model_s() {
        assert_eq!(drawn(None, None, SMALL, 2048), (None, 4));
        assert_eq!(drawn(None, None, LARGE, 2048), (None, 1));
        // As far as the server's limit allows.
        assert_eq!(drawn(None, None, SMALL, 128), (None, 2));
        assert_eq!(drawn(None, None, SMALL, 32), (None, 1));
    }

    #[test]
    fn a_scale_enlarges_the_size() {
        assert_eq!(drawn(Some((256, 256)), Some(1), SMALL, 2048), (Some((256, 256)), 1));
        assert_eq!(drawn(Some((64, 72)), Some(2), SMALL, 2048), (Some((64, 72)), 2));
        assert_eq!(drawn(None, Some(1), SMALL, 2048), (None, 1));
        assert!(DrawnSize::of(None, Some(4), LARGE, 1024).is_err());
        assert!(DrawnSize::of(Some((64, 1024)), Some(4), SMALL, 2048).is_err());
    }
}
