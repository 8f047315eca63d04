//! Multiplies with AVX2's products of pairs of 16-bit integers, for processors without dot products of bytes.
//!
//! Products of a row's bytes, unsigned, with the panel's, signed, fit into 16 bits only alone, so even and odd bytes are
//! widened apart.

use super::line::{Line, Quad};
use crate::cpu::lines::kernel::Multiply;
use crate::cpu::lines::registers::{self, DotProducts};
use crate::cpu::lines::{Kernel, Products, Rows};
use crate::cpu::microkernel::PANEL;
use crate::settings::Instructions;
use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_load_si256, _mm256_madd_epi16, _mm256_set1_epi16,
    _mm256_set1_epi32, _mm256_setzero_si256, _mm256_slli_epi16, _mm256_srai_epi16, _mm256_srli_epi16,
    _mm256_storeu_si256,
};

pub(super) static KERNEL: Kernel<Quad> = Kernel {
    name: "AVX2",
    instructions: Instructions::Avx2,
    is_supported: || is_x86_feature_detected!("avx2"),
    multiply: Multiply::Rows(multiply),
    operations: None,
};

/// Writes the products of all rows, in tiles of 4 by a panel, whose sums fill half of the registers.
///
/// # Safety
/// As for [`Rows`], and the processor must have the instructions.
#[target_feature(enable = "avx2")]
unsafe fn multiply(rows: &Rows<Quad>, right: &[&[Line]], out: &mut [Products<Quad>], stride: usize) {
    // SAFETY: the caller guarantees rows and instructions.
    unsafe { registers::multiply::<Avx2, 4, 1>(rows, right, out, stride) };
}

struct Avx2;

impl DotProducts for Avx2 {
    type Group = Quad;
    /// The columns of a panel in halves.
    type Sums = [__m256i; 2];
    /// The even and the odd bytes.
    type Left = [__m256i; 2];
    type Right = [[__m256i; 2]; 2];

    #[inline(always)]
    unsafe fn zeros() -> Self::Sums {
        // SAFETY: the caller guarantees the instructions.
        [unsafe { _mm256_setzero_si256() }; 2]
    }

    #[inline(always)]
    unsafe fn left(group: *const Quad) -> Self::Left {
        // SAFETY: the caller guarantees it, and groups are aligned as lines are.
        unsafe {
            let group = _mm256_set1_epi32(*group.cast::<i32>());
            [_mm256_and_si256(group, _mm256_set1_epi16(0xff)), _mm256_srli_epi16(group, 8)]
        }
    }

    #[inline(always)]
    unsafe fn right(line: *const Line) -> Self::Right {
        // SAFETY: the caller guarantees it, lines are aligned to 64 bytes, and a half has 32.
        unsafe {
            let halves = line.cast::<__m256i>();
            [widened(_mm256_load_si256(halves)), widened(_mm256_load_si256(halves.add(1)))]
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(sums: &mut Self::Sums, left: Self::Left, right: Self::Right) {
        for half in 0..2 {
            // SAFETY: the caller guarantees the instructions.
            unsafe {
                let even = _mm256_madd_epi16(left[0], right[half][0]);
                let odd = _mm256_madd_epi16(left[1], right[half][1]);
                sums[half] = _mm256_add_epi32(_mm256_add_epi32(sums[half], even), odd);
            }
        }
    }

    #[inline(always)]
    unsafe fn store(sums: Self::Sums, out: &mut [i32; PANEL]) {
        for (sums, out) in sums.iter().zip(out.as_chunks_mut::<{ PANEL / 2 }>().0) {
            // SAFETY: half of a panel's columns are one vector.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), *sums) };
        }
    }
}

/// The even and the odd bytes of a panel, signed.
///
/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn widened(bytes: __m256i) -> [__m256i; 2] {
    // SAFETY: the caller guarantees the instructions.
    unsafe { [_mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), _mm256_srai_epi16(bytes, 8)] }
}
