//! Limits the size and the number of images.

/// Sizes of images are multiples of this, as in diffusers, also where the VAE would take others.
pub(super) const SIZE_MULTIPLE: usize = 8;

/// The largest side of an image, in pixels. Beyond it the work would not end in a lifetime.
pub(super) const LARGEST_SIDE: usize = 1 << 16;

/// The largest number of images in one batch.
pub(super) const MOST_IMAGES: usize = 1 << 10;
