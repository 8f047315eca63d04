//! Maps each row of a product to its rows in the left factor: itself in a linear layer, shifted pixels in a
//! convolution.

use std::ops::Range;

/// Finds the left rows of a gathered product. For a convolution they are tabulated per axis, so that no step divides.
#[derive(Debug, Clone)]
pub(crate) enum Window {
    /// One tap: every row maps to itself.
    Same,
    /// `kernel²` taps over images of a grid of rows.
    Grid { vertical: Axis, horizontal: Axis },
}

/// One axis of a [`Window::Grid`].
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    kernel: usize,
    /// Positions of the product's rows.
    positions: usize,
    /// Extent of the left factor's images.
    extent: usize,
    /// For each position and tap the place in the left factor, or [`OUTSIDE`].
    places: Vec<u32>,
}

const OUTSIDE: u32 = u32::MAX;

impl Axis {
    /// Tabulates `place(position, tap)`.
    pub(crate) fn new(
        kernel: usize,
        positions: usize,
        extent: usize,
        place: impl Fn(usize, usize) -> Option<usize>,
    ) -> Self {
        let pairs = (0..positions).flat_map(|position| (0..kernel).map(move |tap| (position, tap)));
        let places = pairs
            .map(|(position, tap)| match place(position, tap) {
                Some(place) if place < extent => place as u32,
                _ => OUTSIDE,
            })
            .collect();
        Self { kernel, positions, extent, places }
    }
}

impl Axis {
    /// What position `place − tap` reads at `tap`, for a convolution of stride 1.
    fn place(&self, place: usize) -> Option<usize> {
        let position = place.min(self.positions.checked_sub(1)?);
        let tap = place - position;
        let found = *self.places.get(position * self.kernel + tap).filter(|_| tap < self.kernel)?;
        (found != OUTSIDE).then_some(found as usize)
    }
}

impl Window {
    /// Calls `found` for every row and tap, with the left factor's row or `None` for zeros.
    #[inline(always)]
    pub(crate) fn gather(&self, rows: Range<usize>, mut found: impl FnMut(Option<usize>)) {
        let Self::Grid { vertical, horizontal } = self else {
            rows.for_each(|row| found(Some(row)));
            return;
        };
        self.walk(rows, |base, y, x| {
            for &y in &vertical.places[y * vertical.kernel..][..vertical.kernel] {
                let row = base + y as usize * horizontal.extent;
                for &x in &horizontal.places[x * horizontal.kernel..][..horizontal.kernel] {
                    found((y != OUTSIDE && x != OUTSIDE).then_some(row + x as usize));
                }
            }
        });
    }

    /// Like [`Window::gather`], for a single tap.
    #[inline(always)]
    pub(crate) fn gather_tap(&self, rows: Range<usize>, tap: usize, mut found: impl FnMut(Option<usize>)) {
        let Self::Grid { vertical, horizontal } = self else {
            rows.for_each(|row| found(Some(row)));
            return;
        };
        let (vertical_tap, horizontal_tap) = (tap / horizontal.kernel, tap % horizontal.kernel);
        self.walk(rows, |base, y, x| {
            let y = vertical.places[y * vertical.kernel + vertical_tap];
            let x = horizontal.places[x * horizontal.kernel + horizontal_tap];
            let row = base + y as usize * horizontal.extent + x as usize;
            found((y != OUTSIDE && x != OUTSIDE).then_some(row));
        });
    }

    /// The left row at a place of the padded, possibly upsampled image; `None` for zeros.
    #[inline(always)]
    pub(crate) fn source(&self, image: usize, y: usize, x: usize) -> Option<usize> {
        let Self::Grid { vertical, horizontal } = self else { return None };
        let (row, column) = (vertical.place(y)?, horizontal.place(x)?);
        Some((image * vertical.extent + row) * horizontal.extent + column)
    }

    /// Calls `visit` for every row of a grid, with its image's first left row and its place in the grid.
    #[inline(always)]
    fn walk(&self, rows: Range<usize>, mut visit: impl FnMut(usize, usize, usize)) {
        let Self::Grid { vertical, horizontal } = self else { return };
        let (width, height) = (horizontal.positions, vertical.positions);
        let mut x = rows.start % width;
        let mut y = rows.start / width % height;
        let mut base = rows.start / width / height * vertical.extent * horizontal.extent;
        for _ in rows {
            visit(base, y, x);
            x += 1;
            if x == width {
                (x, y) = (0, y + 1);
                if y == height {
                    (y, base) = (0, base + vertical.extent * horizontal.extent);
                }
            }
        }
    }
}
