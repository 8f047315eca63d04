//! Plots a run's losses as an image.

use crate::error::{Error, Result};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_7X13;
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::{
    DrawTarget, Drawable, OriginDimensions, Pixel, Point, Primitive, RgbColor, Size, WebColors,
};
use embedded_graphics::primitives::{Line, Polyline, PrimitiveStyle};
use embedded_graphics::text::{Alignment, Baseline, Text, TextStyle, TextStyleBuilder};
use image::{Rgb, RgbImage};
use std::convert::Infallible;

const WIDTH: u32 = 900;
const HEIGHT: u32 = 420;
/// Margins around the axes, in pixels; numbers are on the left and below.
const LEFT: i32 = 80;
const RIGHT: i32 = 16;
const TOP: i32 = 16;
const BOTTOM: i32 = 32;
/// Labels per axis.
const TICKS: usize = 5;
/// The window of the running mean, as a share of all steps.
const SMOOTHED: f64 = 0.02;
const GRID: Rgb888 = Rgb888::new(225, 225, 225);
const TEXT: Rgb888 = Rgb888::new(60, 60, 60);
const EACH: Rgb888 = Rgb888::CSS_LIGHT_BLUE;
const MEAN: Rgb888 = Rgb888::CSS_MIDNIGHT_BLUE;

/// An image to draw on.
pub(super) struct Plot(RgbImage);

impl Plot {
    /// The image itself.
    pub(super) fn image(&self) -> &RgbImage {
        &self.0
    }
}

/// Plots the losses of all steps and their running mean, with a logarithmic axis if all are positive.
pub(super) fn losses(losses: &[f64]) -> Result<Plot> {
    let mut plot = Plot(RgbImage::from_pixel(WIDTH, HEIGHT, Rgb([255; 3])));
    let axes = Axes::of(losses);
    axes.draw(&mut plot)?;
    axes.draw_line(&mut plot, losses, EACH, 0)?;
    // Two thin lines, because the joins of a thick one overflow where it is steep.
    let mean = running_mean(losses);
    axes.draw_line(&mut plot, &mean, MEAN, 0)?;
    axes.draw_line(&mut plot, &mean, MEAN, 1)?;
    Ok(plot)
}

/// The mean of each loss and those just before it.
fn running_mean(losses: &[f64]) -> Vec<f64> {
    let window = ((losses.len() as f64 * SMOOTHED) as usize).max(1);
    let mut sum = 0.;
    let mean = |(i, loss): (usize, &f64)| {
        sum += loss;
        if let Some(gone) = i.checked_sub(window).and_then(|gone| losses.get(gone)) {
            sum -= gone;
        }
        sum / (i + 1).min(window) as f64
    };
    losses.iter().enumerate().map(mean).collect()
}

/// Maps steps and losses to pixels.
struct Axes {
    steps: usize,
    logarithmic: bool,
    /// The lowest and highest value, or their logarithms.
    low: f64,
    high: f64,
}

impl Axes {
    fn of(losses: &[f64]) -> Self {
        let logarithmic = !losses.is_empty() && losses.iter().all(|&loss| loss > 0.);
        let scaled = losses.iter().map(|&loss| if logarithmic { loss.ln() } else { loss });
        let (low, high) =
            scaled.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
        let (low, high) = if low < high { (low, high) } else { (low.min(0.) - 1., high.max(0.) + 1.) };
        let (low, high) = if low.is_finite() && high.is_finite() { (low, high) } else { (-1., 1.) };
        Self { steps: losses.len(), logarithmic, low, high }
    }

    fn x(&self, share: f64) -> i32 {
        LEFT + (share * f64::from(WIDTH as i32 - LEFT - RIGHT)) as i32
    }

    fn y(&self, share: f64) -> i32 {
        HEIGHT as i32 - BOTTOM - (share * f64::from(HEIGHT as i32 - TOP - BOTTOM)) as i32
    }

    fn draw(&self, plot: &mut Plot) -> Result<()> {
        let grid = PrimitiveStyle::with_stroke(GRID, 1);
        let text = MonoTextStyle::new(&FONT_7X13, TEXT);
        for tick in 0..TICKS {
            let share = tick as f64 / (TICKS - 1) as f64;
            let (x, y) = (self.x(share), self.y(share));
            let across = Line::new(Point::new(self.x(0.), y), Point::new(self.x(1.), y));
            across.into_styled(grid).draw(plot).map_err(never)?;
            let value = self.low + share * (self.high - self.low);
            let value = if self.logarithmic { value.exp() } else { value };
            let label = shown(value);
            let at = Point::new(LEFT - 8, y);
            Text::with_text_style(&label, at, text, aligned(Alignment::Right)).draw(plot).map_err(never)?;
            let label = format!("{:.0}", share * self.steps as f64);
            let at = Point::new(x, HEIGHT as i32 - BOTTOM / 2);
            Text::with_text_style(&label, at, text, aligned(Alignment::Center)).draw(plot).map_err(never)?;
        }
        Ok(())
    }

    fn draw_line(&self, plot: &mut Plot, values: &[f64], colour: Rgb888, below: i32) -> Result<()> {
        let point = |(i, &value): (usize, &f64)| {
            let value = if self.logarithmic { value.ln() } else { value };
            let share = (value - self.low) / (self.high - self.low);
            Point::new(self.x((i + 1) as f64 / self.steps as f64), self.y(share) + below)
        };
        let points: Vec<Point> = values.iter().enumerate().map(point).collect();
        let line = Polyline::new(&points).into_styled(PrimitiveStyle::with_stroke(colour, 1));
        line.draw(plot).map_err(never)
    }
}

/// Formats three significant digits, in scientific notation if very small or large.
fn shown(value: f64) -> String {
    match value.abs() {
        size if size == 0. || (1e-3..1e4).contains(&size) => {
            let decimals = if size == 0. { 0 } else { (2 - size.log10().floor() as i32).max(0) as usize };
            format!("{value:.decimals$}")
        }
        _ => format!("{value:.1e}"),
    }
}

fn aligned(alignment: Alignment) -> TextStyle {
    TextStyleBuilder::new().alignment(alignment).baseline(Baseline::Middle).build()
}

/// Drawing into memory cannot fail.
fn never(error: Infallible) -> Error {
    match error {}
}

impl OriginDimensions for Plot {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Plot {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(Point { x, y }, colour) in pixels {
            let place = u32::try_from(x).ok().zip(u32::try_from(y).ok());
            if let Some(pixel) = place.and_then(|(x, y)| self.0.get_pixel_mut_checked(x, y)) {
                *pixel = Rgb([colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the mean is drawn in a column: the lowest pixel of its colour.
    fn height_at(plot: &Plot, share: f64) -> Option<u32> {
        let x = (f64::from(LEFT) + share * f64::from(WIDTH as i32 - LEFT - RIGHT)) as u32;
        (0..HEIGHT).find(|&y| *plot.0.get_pixel(x, y) == Rgb([MEAN.r(), MEAN.g(), MEAN.b()]))
    }

    #[test]
    fn a_falling_loss_falls_in_the_image() -> Result<()> {
        let falling: Vec<f64> = (0..400).map(|step| 5. * (-step as f64 / 100.).exp()).collect();
        let plot = losses(&falling)?;
        let heights: Vec<u32> = [0.2, 0.5, 0.8].iter().filter_map(|&at| height_at(&plot, at)).collect();
        assert_eq!(heights.len(), 3);
        assert!(heights.is_sorted() && heights[0] + 50 < heights[2], "{heights:?}");
        // An exponential is a straight line on this axis.
        let middle = (heights[0] + heights[2]) / 2;
        assert!(middle.abs_diff(heights[1]) <= 2, "{heights:?}");
        Ok(())
    }

    #[test]
    fn every_loss_can_be_drawn() -> Result<()> {
        for values in [&[][..], &[1.], &[0., 0.], &[-1., 2.], &[f64::NAN, 1.], &[1e-300, 1e300]] {
            losses(values)?;
        }
        assert_eq!([shown(0.), shown(0.01234), shown(12.), shown(1e-9)], ["0", "0.0123", "12.0", "1.0e-9"]);
        Ok(())
    }
}
