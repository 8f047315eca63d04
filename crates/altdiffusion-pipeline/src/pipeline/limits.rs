//! Limits the size and number of images.

/// Image sizes are multiples of this, as in diffusers, even if a VAE would take others.
pub(super) const SIZE_MULTIPLE: usize = 8;

/// The largest side of an image, in pixels. More would never finish.
pub(super) const LARGEST_SIDE: usize = 1 << 16;

/// The largest batch.
pub(super) const MOST_IMAGES: usize = 1 << 10;
