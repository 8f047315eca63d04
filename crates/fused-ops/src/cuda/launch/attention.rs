//! Chooses an attention kernel for a shape, and launches it.

use super::description::{Address, Element, Launch, NotCovered, blocks, size};

/// As in `kernels/attention.cuh`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct AttentionParams {
    pub(crate) query: Address,
    pub(crate) key: Address,
    pub(crate) value: Address,
    pub(crate) out: Address,
    pub(crate) key_bias: Address,
    pub(crate) offsets: Address,
    pub(crate) query_batch_stride: i64,
    pub(crate) key_batch_stride: i64,
    pub(crate) value_batch_stride: i64,
    pub(crate) out_batch_stride: i64,
    pub(crate) query_row_stride: i32,
    pub(crate) key_row_stride: i32,
    pub(crate) value_row_stride: i32,
    pub(crate) out_row_stride: i32,
    pub(crate) queries: i32,
    pub(crate) keys: i32,
    pub(crate) scale: f32,
    pub(crate) causal: i32,
}

/// The layout of a batch's rows: a whole tensor, or some columns of a wider one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowLayout {
    pub(crate) address: Address,
    /// Elements from one sequence to the next.
    pub(crate) batch_stride: usize,
    /// Elements from one row to the next.
    pub(crate) row_stride: usize,
}

impl RowLayout {
    /// The kernels read 16 bytes at a time.
    fn is_aligned(&self) -> bool {
        self.address.is_multiple_of(16)
            && self.batch_stride.is_multiple_of(8)
            && self.row_stride.is_multiple_of(8)
    }
}

/// `softmax(query · keyᵀ / √head_dim + key_bias) · value`, as in [`crate::attention()`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionOperands {
    pub(crate) element: Element,
    pub(crate) batch: usize,
    /// Rows per sequence; of the longest one, if there are `offsets`.
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) query: RowLayout,
    pub(crate) key: RowLayout,
    pub(crate) value: RowLayout,
    pub(crate) out: RowLayout,
    /// f32, (batch, keys), or one per row if there are `offsets`.
    pub(crate) key_bias: Option<Address>,
    /// i32, (batch + 1): the first row of each of several concatenated sequences, and the end of the last. Queries
    /// and keys are then the same rows.
    pub(crate) offsets: Option<Address>,
    pub(crate) causal: bool,
}

/// Queries per tensor core tile.
const ROW_TILE: usize = 16;
const WARPS: usize = 4;
/// The most keys of the kernel that keeps all of them on chip.
const FEW_KEYS: usize = 80;

/// The tiles of `kernels/attention_streaming.cu`.
struct StreamingTiles {
    rows: usize,
    keys: usize,
}

fn streaming_tiles(head_dim: usize) -> StreamingTiles {
    match head_dim {
        40 | 64 => StreamingTiles { rows: 2 * WARPS * ROW_TILE, keys: 64 },
        80 => StreamingTiles { rows: 2 * WARPS * ROW_TILE, keys: 32 },
        _ => StreamingTiles { rows: WARPS * ROW_TILE, keys: 32 },
    }
}

/// Shared memory per key with its value and bias, in bytes: rows are an odd number of 16-byte pieces apart, and keys
/// are padded to a multiple of 16 columns.
fn bytes_per_key(head_dim: usize) -> usize {
    let key_pieces = 2 * head_dim.div_ceil(16) + 1;
    let value_pieces = (head_dim / 8) | 1;
    16 * (key_pieces + value_pieces) + size_of::<f32>()
}

/// Queries, keys and threads per block of `kernels/attention_hopper.cu`.
const HOPPER_ROWS: usize = 128;
const HOPPER_KEYS: usize = 64;
const HOPPER_THREADS: usize = 256;

impl AttentionOperands {
    /// The queries per block of the streaming kernel.
    pub(crate) fn rows_of_a_block(&self) -> usize {
        streaming_tiles(self.head_dim).rows
    }

    /// The launch on a device with this many multiprocessors.
    ///
    /// # Errors
    /// If no kernel covers the shape.
    pub(crate) fn launch(&self, multiprocessors: usize) -> Result<Launch<AttentionParams>, NotCovered> {
        let Self { element, head_dim, .. } = *self;
        if !matches!(head_dim, 40 | 64 | 80 | 160) {
            return Err(NotCovered("a head dimension other than 40, 64, 80 and 160"));
        }
        self.check()?;
        let (heads, batch) = (blocks(self.heads, 1)?, blocks(self.batch, 1)?);
        let (kernel, blocks, shared_bytes) = if self.keys <= FEW_KEYS {
            let most = if self.keys <= 32 { 32 } else { FEW_KEYS };
            let blocks = blocks(self.queries, WARPS * ROW_TILE)?;
            // As many blocks as run at a time, four per multiprocessor; their warps divide the rows.
            let enough = (4 * multiprocessors).div_ceil(self.heads * self.batch);
            let blocks = u32::try_from(enough).map_or(blocks, |enough| blocks.min(enough));
            (format!("attention_{most}_keys_{element}_{head_dim}"), blocks, most * bytes_per_key(head_dim))
        } else {
            // Two tiles of keys: one is used while the other is copied.
            let shared_bytes = 2 * streaming_tiles(head_dim).keys * bytes_per_key(head_dim);
            let blocks = blocks(self.queries, self.rows_of_a_block())?;
            (format!("attention_streaming_{element}_{head_dim}"), blocks, shared_bytes)
        };
        Ok(Launch {
            kernel,
            grid: [blocks, heads, batch],
            threads: (32 * WARPS) as u32,
            shared_bytes: u32::try_from(shared_bytes).map_err(|_| NotCovered("too much shared memory"))?,
            params: self.params()?,
        })
    }

    /// The launch of the Hopper kernel for many keys.
    ///
    /// # Errors
    /// If it does not cover the shape.
    pub(crate) fn launch_on_hopper(&self) -> Result<Launch<AttentionParams>, NotCovered> {
        let Self { element, head_dim, .. } = *self;
        if !matches!(head_dim, 40 | 64) || self.keys <= FEW_KEYS {
            return Err(NotCovered("few keys, or a head dimension other than 40 and 64"));
        }
        self.check()?;
        // Two tiles of 16-byte pieces, with one more piece per column than there are keys, and a bias per key.
        let pieces = 2 * head_dim.div_ceil(16) + head_dim / 8;
        let shared_bytes = 2 * (16 * pieces * (HOPPER_KEYS + 1) + HOPPER_KEYS * size_of::<f32>());
        Ok(Launch {
            kernel: format!("attention_hopper_{element}_{head_dim}"),
            grid: [blocks(self.queries, HOPPER_ROWS)?, blocks(self.heads, 1)?, blocks(self.batch, 1)?],
            threads: HOPPER_THREADS as u32,
            shared_bytes: u32::try_from(shared_bytes).map_err(|_| NotCovered("too much shared memory"))?,
            params: self.params()?,
        })
    }

    /// Checks what every kernel requires.
    fn check(&self) -> Result<(), NotCovered> {
        if ![self.query, self.key, self.value, self.out].iter().all(RowLayout::is_aligned) {
            return Err(NotCovered("rows that do not begin at a multiple of 16 bytes"));
        }
        if self.keys == 0 || self.heads > 65_535 || self.batch > 65_535 {
            return Err(NotCovered("no keys, or more heads or sequences than a grid has"));
        }
        Ok(())
    }

    fn params(&self) -> Result<AttentionParams, NotCovered> {
        Ok(AttentionParams {
            query: self.query.address,
            key: self.key.address,
            value: self.value.address,
            out: self.out.address,
            key_bias: self.key_bias.unwrap_or(0),
            offsets: self.offsets.unwrap_or(0),
            query_batch_stride: self.query.batch_stride as i64,
            key_batch_stride: self.key.batch_stride as i64,
            value_batch_stride: self.value.batch_stride as i64,
            out_batch_stride: self.out.batch_stride as i64,
            query_row_stride: size(self.query.row_stride)?,
            key_row_stride: size(self.key.row_stride)?,
            value_row_stride: size(self.value.row_stride)?,
            out_row_stride: size(self.out.row_stride)?,
            queries: size(self.queries)?,
            keys: size(self.keys)?,
            scale: std::f32::consts::LOG2_E / (self.head_dim as f32).sqrt(),
            causal: self.causal.into(),
        })
    }
}
