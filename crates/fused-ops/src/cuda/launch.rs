//! What a kernel is launched with, wherever it runs.

/// One run of a kernel.
#[derive(Debug, Clone)]
pub struct Launch<P> {
    /// The name of its entry in `kernels/`.
    pub kernel: String,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// The kernel's only argument, laid out as its struct in C++.
    pub params: P,
}
