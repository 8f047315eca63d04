//! Launches group normalisation.

use super::description::{Address, Element, Launch, NotCovered, blocks, size};

/// As in `kernels/group_norm.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct GroupNormParams {
    pub(crate) x: Address,
    pub(crate) weight: Address,
    pub(crate) bias: Address,
    pub(crate) shift: Address,
    pub(crate) partial: Address,
    pub(crate) out: Address,
    pub(crate) pixels: i32,
    pub(crate) channels: i32,
    pub(crate) groups: i32,
    pub(crate) chunk: i32,
    pub(crate) eps: f32,
    pub(crate) silu: i32,
}

/// Group normalisation of `x + shift`, (batch, pixels, channels), optionally followed by SiLU, as in
/// [`crate::GroupNorm`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupNormOperands {
    pub(crate) element: Element,
    pub(crate) batch: usize,
    pub(crate) pixels: usize,
    pub(crate) channels: usize,
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    pub(crate) silu: bool,
    pub(crate) x: Address,
    /// (channels)
    pub(crate) weight: Address,
    pub(crate) bias: Address,
    /// (batch, channels)
    pub(crate) shift: Option<Address>,
    pub(crate) out: Address,
}

const THREADS: usize = 256;

/// The most chunks per image. Every block of the second pass reads all their statistics, 8 bytes per group.
const MOST_CHUNKS: usize = 64;

impl GroupNormOperands {
    /// The number of f32 statistics between the two launches.
    pub(crate) fn partial_len(&self, multiprocessors: usize) -> usize {
        2 * self.batch * self.chunks(multiprocessors) * self.groups
    }

    /// Chunks per image: two blocks per multiprocessor, if there are enough pixels.
    fn chunks(&self, multiprocessors: usize) -> usize {
        let wanted = (2 * multiprocessors).div_ceil(self.batch.max(1)).clamp(1, MOST_CHUNKS);
        let chunk = self.pixels.div_ceil(wanted).max(1);
        self.pixels.div_ceil(chunk)
    }

    /// The two launches, statistics first, on a device with this many multiprocessors. `partial` has room for
    /// [`GroupNormOperands::partial_len`] values.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub(crate) fn launches(
        &self,
        partial: Address,
        multiprocessors: usize,
    ) -> Result<[Launch<GroupNormParams>; 2], NotCovered> {
        let Self { element, batch, pixels, channels, groups, .. } = *self;
        if groups == 0 || !channels.is_multiple_of(groups) || !channels.is_multiple_of(8) || channels > 4096 {
            return Err(NotCovered(
                "channels that are no multiple of 8 and of the groups, or more than 4096",
            ));
        }
        if ![self.x, self.out].iter().all(|address| address.is_multiple_of(16)) {
            return Err(NotCovered("an image that does not begin at a multiple of 16 bytes"));
        }
        if batch > 65_535 {
            return Err(NotCovered("more images than a grid has"));
        }
        let chunks = self.chunks(multiprocessors);
        let params = GroupNormParams {
            x: self.x,
            weight: self.weight,
            bias: self.bias,
            shift: self.shift.unwrap_or(0),
            partial,
            out: self.out,
            pixels: size(pixels)?,
            channels: size(channels)?,
            groups: size(groups)?,
            chunk: size(pixels.div_ceil(chunks.max(1)))?,
            eps: self.eps as f32,
            silu: self.silu.into(),
        };
        // Pixels that a block reads at once, with a thread per 8 channels.
        let places = (THREADS / (channels / 8)).max(1);
        let grid = [blocks(chunks, 1)?, blocks(batch, 1)?, 1];
        let launch = |kernel: String, pairs: usize| Launch {
            kernel,
            grid,
            threads: THREADS as u32,
            shared_bytes: (pairs * 2 * size_of::<f32>()) as u32,
            params,
        };
        Ok([
            launch(format!("group_norm_statistics_{element}"), places * channels),
            launch(format!("group_norm_{element}"), channels),
        ])
    }
}
