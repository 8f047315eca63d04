//! Defines a timestep's sinusoidal embedding.

/// A sinusoidal embedding.
#[derive(Debug, Clone, Copy)]
pub struct Sinusoids {
    /// The size of the vector; an odd one is padded with a zero.
    pub channels: usize,
    /// Whether the cosines come first.
    pub flip_sin_to_cos: bool,
    /// The i-th of n frequencies is 10000^(−i / (n − `freq_shift`)).
    pub freq_shift: f64,
}

impl Sinusoids {
    /// The wavelength of the slowest sinusoid, over 2π.
    pub const MAX_PERIOD: f64 = 10_000.;
}
