//! Multiplies by the matrix tiles of AMX: 16 rows of 64 bytes by 16 columns of as many in one instruction.
//!
//! Rust has no stable intrinsics for AMX, so this is inline assembly.

use super::kernel::{Kernel, Multiply, Products, Rows};
use super::line::{Group, Line};
use crate::settings::Instructions;
use std::arch::x86_64::{__cpuid_count, _xgetbv};

#[cfg(test)]
pub(crate) mod interpreter;

/// The rows of a tile.
const TILE: usize = 16;

/// A group that an instruction multiplies in tiles of lines.
pub(crate) trait TileGroup: Group {
    /// Says in CPUID leaf 7, EDX, that the processor has the instruction.
    const CPUID: u32;
    /// The instructions of [`multiply`](Self::multiply).
    #[cfg(test)]
    const PRODUCT: &'static str;

    /// Multiplies 32 rows by two panels: four tiles of sums, from two tiles on either side.
    ///
    /// # Safety
    /// [`is_supported`] must be true for this type, and the block valid.
    unsafe fn multiply(block: Block<Self>);

    /// Performs a fixed number of operations on tiles of zeros, and returns that number.
    ///
    /// # Safety
    /// [`is_supported`] must be true for this type.
    unsafe fn operations() -> u64;
}

/// The kernel for groups of this type.
pub(crate) const fn kernel<G: TileGroup>(name: &'static str) -> Kernel<G> {
    Kernel {
        name,
        instructions: Instructions::Widest,
        is_supported: is_supported::<G>,
        multiply: Multiply::Tiles(multiply::<G>),
        operations: Some(G::operations),
    }
}

/// The operands of a product of 32 rows by two panels, with distances in bytes.
pub(crate) struct Block<G> {
    /// Tiles along the shared dimension, at least one, of the rows and the panels.
    pub(crate) steps: usize,
    /// The first 16 rows and the others: where they start, and the distances between rows and tiles.
    pub(crate) upper: (*const Line<G>, usize, usize),
    pub(crate) lower: (*const Line<G>, usize, usize),
    pub(crate) right: [*const Line<G>; 2],
    /// 32 rows of two panels of 16 columns.
    pub(crate) out: *mut u8,
    pub(crate) out_row: usize,
}

/// Whether the processor has AMX for these groups and the system permits its use. The permission is the process's: it
/// holds for all threads, and requesting it again changes nothing.
fn is_supported<G: TileGroup>() -> bool {
    // CPUID leaf 7, EDX.
    const AMX_TILE: u32 = 1 << 24;
    // XCR0: tile configuration and tile data.
    const TILE_STATE: u64 = 0b11 << 17;
    let wanted = G::CPUID | AMX_TILE;
    is_x86_feature_detected!("xsave")
        && __cpuid_count(7, 0).edx & wanted == wanted
        // SAFETY: the processor has xgetbv, and the system has enabled it, as std checks.
        && unsafe { _xgetbv(0) } & TILE_STATE == TILE_STATE
        && system_permits()
}

#[cfg(target_os = "linux")]
fn system_permits() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: this requests permission and touches no memory.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn system_permits() -> bool {
    false
}

/// Left rows in groups of 16, from which tiles are loaded.
pub(crate) struct Tiles<G> {
    /// Copies of rows that are not equally spaced: for each 16 rows, for each tap and line, 16 lines.
    packed: Vec<Line<G>>,
    parts: Vec<RowGroup>,
    /// The tiles along the shared dimension.
    steps: usize,
}

/// 16 rows, addressed in bytes.
#[derive(Clone, Copy)]
struct RowGroup {
    /// The address of the first row; for packed rows, an offset.
    start: usize,
    is_packed: bool,
    /// The distance between rows.
    row: usize,
    /// The distance between tiles.
    step: usize,
}

impl<G: Group> Tiles<G> {
    /// Divides rows into groups.
    ///
    /// # Safety
    /// The rows must be as [`Rows`] requires while the result lives.
    pub(super) unsafe fn new(rows: &Rows<G>) -> Self {
        let Rows { starts: all, taps, lines, .. } = *rows;
        let steps = taps * lines;
        let (mut packed, mut parts) = (Vec::new(), Vec::new());
        for starts in all.chunks(TILE * taps) {
            if let Some(row) = distance(starts, taps) {
                parts.push(RowGroup {
                    start: starts[0].expose_provenance(),
                    is_packed: false,
                    row,
                    step: size_of::<Line<G>>(),
                });
                continue;
            }
            parts.push(RowGroup {
                start: packed.len() * size_of::<Line<G>>(),
                is_packed: true,
                row: size_of::<Line<G>>(),
                step: TILE * size_of::<Line<G>>(),
            });
            let begin = packed.len();
            packed.resize(begin + steps * TILE, Line::<G>::ZERO);
            for (row, starts) in starts.chunks_exact(taps).enumerate() {
                for (tap, start) in starts.iter().enumerate() {
                    // SAFETY: the caller guarantees the lines of each start.
                    let read = unsafe { std::slice::from_raw_parts(*start, lines) };
                    let to = packed[begin + tap * lines * TILE + row..].iter_mut().step_by(TILE);
                    to.zip(read).for_each(|(to, line)| *to = *line);
                }
            }
        }
        Self { packed, parts, steps }
    }

    /// Where a group starts, and the distances between its rows and tiles.
    fn place(&self, part: RowGroup) -> (*const Line<G>, usize, usize) {
        let start = if part.is_packed {
            self.packed.as_ptr().wrapping_byte_add(part.start)
        } else {
            std::ptr::with_exposed_provenance(part.start)
        };
        (start, part.row, part.step)
    }
}

/// The distance in bytes between 16 rows of one tap, if it is always the same.
fn distance<G>(starts: &[*const Line<G>], taps: usize) -> Option<usize> {
    if taps != 1 || starts.len() != TILE {
        return None;
    }
    let distance = starts[1].addr().checked_sub(starts[0].addr())?;
    let is_even = starts.windows(2).all(|pair| pair[1].addr() == pair[0].addr().wrapping_add(distance));
    (is_even && distance > 0).then_some(distance)
}

/// The operand of `ldtilecfg`: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
pub(crate) struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

pub(crate) static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Writes the products of all rows with one or two panels, those of a row to `out[row · stride]`. The number of rows
/// in `out` is a multiple of 32.
///
/// # Safety
/// [`is_supported`] must be true, and the memory behind the tiles must still be valid.
unsafe fn multiply<G: TileGroup>(
    left: &Tiles<G>,
    right: &[&[Line<G>]],
    out: &mut [Products<G>],
    stride: usize,
) {
    // SAFETY: the blocks are valid, and the caller guarantees the rest.
    for_each_block(left, right, out, stride, |block| unsafe { G::multiply(block) });
}

/// Calls `multiply` for each block of the product.
fn for_each_block<G: Group>(
    left: &Tiles<G>,
    right: &[&[Line<G>]],
    out: &mut [Products<G>],
    stride: usize,
    multiply: impl Fn(Block<G>),
) {
    let (first, last) = (right[0], right[right.len() - 1]);
    assert!(first.len() == left.steps * TILE && last.len() == left.steps * TILE);
    let last_row = left.parts.len().next_multiple_of(2) * TILE;
    assert!(last_row == 0 || out.len() > (last_row - 1) * stride);
    if left.steps == 0 {
        return out.iter_mut().step_by(stride).for_each(|out| *out = Default::default());
    }
    for (parts, out) in left.parts.chunks(2).zip(out.chunks_mut(2 * TILE * stride)) {
        // Without a second part, the first is computed twice.
        let (upper, lower) = (parts[0], parts[parts.len() - 1]);
        // Each part has 16 rows of `steps` lines, the panels have as many tiles, and `out` has 32 rows.
        multiply(Block {
            steps: left.steps,
            upper: left.place(upper),
            lower: left.place(lower),
            right: [first.as_ptr(), last.as_ptr()],
            out: out.as_mut_ptr().cast(),
            out_row: stride * size_of::<Products<G>>(),
        });
    }
}

/// The instructions of [`TileGroup::multiply`], one per line: a template for `asm!`, which the tests interpret too.
macro_rules! product_of {
    ($instruction:literal) => {
        concat!(
            "ldtilecfg [{config}]\n",
            "tilezero tmm0\n",
            "tilezero tmm1\n",
            "tilezero tmm2\n",
            "tilezero tmm3\n",
            "2:\n",
            "tileloadd tmm4, [{upper} + {upper_row}]\n",
            "tileloadd tmm6, [{first} + {line}]\n",
            "tileloadd tmm7, [{second} + {line}]\n",
            $instruction,
            " tmm0, tmm4, tmm6\n",
            "tileloadd tmm5, [{lower} + {lower_row}]\n",
            $instruction,
            " tmm1, tmm4, tmm7\n",
            $instruction,
            " tmm2, tmm5, tmm6\n",
            $instruction,
            " tmm3, tmm5, tmm7\n",
            "add {upper}, {upper_step}\n",
            "add {lower}, {lower_step}\n",
            "add {first}, 1024\n",
            "add {second}, 1024\n",
            "dec {steps}\n",
            "jnz 2b\n",
            "mov {line}, {row}\n",
            "tilestored [{out} + {line}], tmm0\n",
            "tilestored [{out} + {line} + 64], tmm1\n",
            "shl {line}, 4\n",
            "add {out}, {line}\n",
            "shr {line}, 4\n",
            "tilestored [{out} + {line}], tmm2\n",
            "tilestored [{out} + {line} + 64], tmm3\n",
            "tilerelease",
        )
    };
}
pub(crate) use product_of;

/// Implements [`TileGroup`] for a group whose tiles this instruction multiplies.
macro_rules! tile_group {
    ($group:ty, $instruction:literal, $cpuid_bit:literal) => {
        impl crate::cpu::lines::amx::TileGroup for $group {
            const CPUID: u32 = 1 << $cpuid_bit;
            #[cfg(test)]
            const PRODUCT: &'static str = crate::cpu::lines::amx::product_of!($instruction);

            unsafe fn multiply(block: crate::cpu::lines::amx::Block<Self>) {
                type Line = crate::cpu::lines::Line<$group>;
                const { assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64) };
                let ((upper, upper_row, upper_step), (lower, lower_row, lower_step)) =
                    (block.upper, block.lower);
                // SAFETY: the caller guarantees what is read and written. The tiles are configured and released here.
                unsafe {
                    std::arch::asm!(
                        crate::cpu::lines::amx::product_of!($instruction),
                        row = in(reg) block.out_row,
                        config = in(reg) &raw const crate::cpu::lines::amx::CONFIG,
                        upper = inout(reg) upper => _,
                        upper_row = in(reg) upper_row,
                        upper_step = in(reg) upper_step,
                        lower = inout(reg) lower => _,
                        lower_row = in(reg) lower_row,
                        lower_step = in(reg) lower_step,
                        first = inout(reg) block.right[0] => _,
                        second = inout(reg) block.right[1] => _,
                        line = inout(reg) size_of::<Line>() => _,
                        steps = inout(reg) block.steps => _,
                        out = inout(reg) block.out => _,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack),
                    );
                }
            }

            unsafe fn operations() -> u64 {
                const ROUNDS: u64 = 2_000;
                // SAFETY: the tiles are configured and released here, and no other memory than the configuration is read.
                unsafe {
                    std::arch::asm!(
                        "ldtilecfg [{config}]",
                        "tilezero tmm0",
                        "tilezero tmm1",
                        "tilezero tmm2",
                        "tilezero tmm3",
                        "tilezero tmm4",
                        "tilezero tmm5",
                        "tilezero tmm6",
                        "tilezero tmm7",
                        "2:",
                        concat!($instruction, " tmm0, tmm6, tmm7"),
                        concat!($instruction, " tmm1, tmm6, tmm7"),
                        concat!($instruction, " tmm2, tmm6, tmm7"),
                        concat!($instruction, " tmm3, tmm6, tmm7"),
                        concat!($instruction, " tmm4, tmm6, tmm7"),
                        concat!($instruction, " tmm5, tmm6, tmm7"),
                        "dec {rounds}",
                        "jnz 2b",
                        "tilerelease",
                        config = in(reg) &raw const crate::cpu::lines::amx::CONFIG,
                        rounds = inout(reg) ROUNDS => _,
                        out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                        out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                        options(nostack),
                    );
                }
                let values = crate::cpu::lines::Line::<Self>::VALUES as u64;
                6 * 2 * 16 * 16 * values * ROUNDS
            }
        }
    };
}
pub(crate) use tile_group;
