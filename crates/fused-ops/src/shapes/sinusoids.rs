//! Says how a timestep becomes a vector.

/// How a timestep becomes a vector.
#[derive(Debug, Clone, Copy)]
pub struct Sinusoids {
    /// The size of the vector; an odd one ends in a zero.
    pub channels: usize,
    /// Whether the cosines come first.
    pub flip_sin_to_cos: bool,
    /// Of n frequencies the i-th is 10000^(−i / (n − `freq_shift`)).
    pub freq_shift: f64,
}

impl Sinusoids {
    /// The wavelength of the slowest sinusoid, over 2π.
    pub const MAX_PERIOD: f64 = 10_000.;
}
