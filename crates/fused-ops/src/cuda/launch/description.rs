//! Describes kernel launches, independently of a device.

use std::fmt;

/// One run of a kernel.
#[derive(Debug, Clone)]
pub(crate) struct Launch<P> {
    /// The name of its entry in `kernels/`.
    pub(crate) kernel: String,
    /// Blocks along x, y and z.
    pub(crate) grid: [u32; 3],
    /// Threads per block.
    pub(crate) threads: u32,
    /// Dynamic shared memory per block.
    pub(crate) shared_bytes: u32,
    /// The kernel's only argument, laid out as its struct in C++.
    pub(crate) params: P,
}

/// The type of the values that a kernel reads and writes; all of them compute in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Element {
    F16,
    Bf16,
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

/// Why no kernel covers a shape, completing the sentence "no CUDA kernel: …".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotCovered(pub &'static str);

/// An address in device memory; 0 for a missing tensor.
pub(crate) type Address = u64;

/// The number of blocks along one axis of a grid.
pub(super) fn blocks(items: usize, items_per_block: usize) -> Result<u32, NotCovered> {
    // Along x there may be 2³¹ − 1; along y and z, 65 535.
    let blocks = u32::try_from(items.div_ceil(items_per_block)).ok().filter(|&blocks| blocks < 1 << 31);
    blocks.filter(|&blocks| blocks > 0).ok_or(NotCovered("no blocks, or more than a grid has"))
}

/// A size in the kernels' integer type.
pub(super) fn size(value: usize) -> Result<i32, NotCovered> {
    i32::try_from(value).map_err(|_| NotCovered("a size past 32 bits"))
}

/// The launch of a kernel with one item per thread.
pub(super) fn elementwise<P>(
    name: &str,
    element: Element,
    items: usize,
    params: P,
) -> Result<Launch<P>, NotCovered> {
    const THREADS: usize = 256;
    let (kernel, grid) = (format!("{name}_{element}"), [blocks(items, THREADS)?, 1, 1]);
    Ok(Launch { kernel, grid, threads: THREADS as u32, shared_bytes: 0, params })
}
