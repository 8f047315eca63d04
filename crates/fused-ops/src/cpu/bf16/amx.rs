//! Multiplies by the matrix tiles of AMX: 16 rows of 32 values by 32 rows of 16 columns in one instruction.
//!
//! Rust has no stable intrinsics for AMX, so this is inline assembly.

use super::line::Line;
use super::rows::{Products, Rows};
use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};

/// The rows of a tile.
pub(super) const TILE: usize = 16;

/// Whether the processor has AMX with bf16 and the system permits its use. The permission is requested once per
/// process.
pub(super) fn is_supported() -> bool {
    // CPUID leaf 7, EDX.
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    // XCR0: tile configuration and tile data.
    const TILE_STATE: u64 = 0b11 << 17;
    let wanted = AMX_BF16 | AMX_TILE;
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
pub(super) struct Tiles {
    /// Copies of rows that are not equally spaced: for each 16 rows, for each tap and line, 16 lines.
    packed: Vec<Line>,
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

impl Tiles {
    /// # Safety
    /// As for [`Rows`].
    pub(super) unsafe fn new(rows: &Rows) -> Self {
        let steps = rows.taps * rows.lines;
        let (mut packed, mut parts) = (Vec::new(), Vec::new());
        for starts in rows.starts.chunks(TILE * rows.taps) {
            if let Some(row) = distance(starts, rows.taps) {
                parts.push(RowGroup {
                    start: starts[0] as usize,
                    is_packed: false,
                    row,
                    step: size_of::<Line>(),
                });
                continue;
            }
            parts.push(RowGroup {
                start: packed.len() * size_of::<Line>(),
                is_packed: true,
                row: size_of::<Line>(),
                step: TILE * size_of::<Line>(),
            });
            let begin = packed.len();
            packed.resize(begin + steps * TILE, Line::ZERO);
            for (row, starts) in starts.chunks_exact(rows.taps).enumerate() {
                for (tap, start) in starts.iter().enumerate() {
                    // SAFETY: the caller guarantees the lines of each start.
                    let lines = unsafe { std::slice::from_raw_parts(*start, rows.lines) };
                    let to = packed[begin + tap * rows.lines * TILE + row..].iter_mut().step_by(TILE);
                    to.zip(lines).for_each(|(to, line)| *to = *line);
                }
            }
        }
        Self { packed, parts, steps }
    }

    fn address(&self, part: RowGroup) -> *const Line {
        if part.is_packed {
            self.packed.as_ptr().wrapping_byte_add(part.start)
        } else {
            std::ptr::with_exposed_provenance(part.start)
        }
    }
}

/// The distance in bytes between 16 rows of one tap, if it is always the same.
fn distance(starts: &[*const Line], taps: usize) -> Option<usize> {
    if taps != 1 || starts.len() != TILE {
        return None;
    }
    let distance = starts[1].addr().checked_sub(starts[0].addr())?;
    let is_even = starts.windows(2).all(|pair| pair[1].addr() == pair[0].addr().wrapping_add(distance));
    (is_even && distance > 0).then_some(distance)
}

/// The operand of `ldtilecfg`: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: Config = Config {
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
pub(super) unsafe fn multiply(left: &Tiles, right: &[&[Line]], out: &mut [Products], stride: usize) {
    let (first, last) = (right[0], right[right.len() - 1]);
    assert!(first.len() == left.steps * TILE && last.len() == left.steps * TILE);
    let last_row = left.parts.len().next_multiple_of(2) * TILE;
    assert!(last_row == 0 || out.len() > (last_row - 1) * stride);
    for (parts, out) in left.parts.chunks(2).zip(out.chunks_mut(2 * TILE * stride)) {
        // Without a second part, the first is computed twice.
        let (upper, lower) = (parts[0], parts[parts.len() - 1]);
        // SAFETY: each part has 16 rows of `steps` lines, the panels have as many tiles, and `out` has 32 rows.
        unsafe {
            block(
                left.steps,
                [(left.address(upper), upper), (left.address(lower), lower)],
                [first, last],
                out,
                stride,
            );
        }
    }
}

/// Multiplies 32 rows by two panels: four tiles of sums, from two tiles on either side.
///
/// # Safety
/// AMX must be available, the parts must have 16 rows of `steps` lines, `right` as many tiles, and `out` 32 rows.
unsafe fn block(
    steps: usize,
    [(upper, upper_part), (lower, lower_part)]: [(*const Line, RowGroup); 2],
    right: [&[Line]; 2],
    out: &mut [Products],
    stride: usize,
) {
    let row = stride * size_of::<Products>();
    if steps == 0 {
        return out.iter_mut().step_by(stride).for_each(|out| *out = [[0.; 16]; 2]);
    }
    // SAFETY: the caller guarantees what is read and written. The tiles are configured and released here.
    unsafe {
        asm!(
            "ldtilecfg [{config}]",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{upper} + {upper_row}]",
            "tileloadd tmm6, [{first} + {line}]",
            "tileloadd tmm7, [{second} + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{lower} + {lower_row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {upper}, {upper_step}",
            "add {lower}, {lower_step}",
            "add {first}, 1024",
            "add {second}, 1024",
            "dec {steps}",
            "jnz 2b",
            "mov {line}, {row}",
            "tilestored [{out} + {line}], tmm0",
            "tilestored [{out} + {line} + 64], tmm1",
            "shl {line}, 4",
            "add {out}, {line}",
            "shr {line}, 4",
            "tilestored [{out} + {line}], tmm2",
            "tilestored [{out} + {line} + 64], tmm3",
            "tilerelease",
            row = in(reg) row,
            config = in(reg) &raw const CONFIG,
            upper = inout(reg) upper => _,
            upper_row = in(reg) upper_part.row,
            upper_step = in(reg) upper_part.step,
            lower = inout(reg) lower => _,
            lower_row = in(reg) lower_part.row,
            lower_step = in(reg) lower_part.step,
            first = inout(reg) right[0].as_ptr() => _,
            second = inout(reg) right[1].as_ptr() => _,
            line = inout(reg) size_of::<Line>() => _,
            steps = inout(reg) steps => _,
            out = inout(reg) out.as_mut_ptr() => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Performs a fixed number of operations on tiles of zeros, and returns that number.
///
/// # Safety
/// [`is_supported`] must be true.
pub(super) unsafe fn operations() -> u64 {
    const ROUNDS: u64 = 2_000;
    // SAFETY: the tiles are configured and released here, and no other memory than the configuration is read.
    unsafe {
        asm!(
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
            "tdpbf16ps tmm0, tmm6, tmm7",
            "tdpbf16ps tmm1, tmm6, tmm7",
            "tdpbf16ps tmm2, tmm6, tmm7",
            "tdpbf16ps tmm3, tmm6, tmm7",
            "tdpbf16ps tmm4, tmm6, tmm7",
            "tdpbf16ps tmm5, tmm6, tmm7",
            "dec {rounds}",
            "jnz 2b",
            "tilerelease",
            config = in(reg) &raw const CONFIG,
            rounds = inout(reg) ROUNDS => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
    6 * 2 * 16 * 16 * 32 * ROUNDS
}
