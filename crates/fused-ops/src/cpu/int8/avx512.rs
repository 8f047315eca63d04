//! Multiplies with AVX-512's dot products of fours of bytes, one factor unsigned and one signed.

use super::line::{Line, Quad};
use crate::cpu::lines::kernel::Multiply;
use crate::cpu::lines::registers::{self, DotProducts};
use crate::cpu::lines::{Kernel, Products, Rows};
use crate::cpu::microkernel::PANEL;
use crate::settings::Instructions;
use std::arch::x86_64::{
    __m512i, _mm512_dpbusd_epi32, _mm512_load_si512, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_storeu_si512,
};

pub(super) static KERNEL: Kernel<Quad> = Kernel {
    name: "AVX-512 VNNI",
    instructions: Instructions::Widest,
    is_supported: || is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
    multiply: Multiply::Rows(multiply),
    operations: Some(operations),
};

/// Writes the products of all rows, in tiles of 12 by two panels, whose 24 sums fill the registers.
///
/// # Safety
/// As for [`Rows`], and the processor must have the instructions.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn multiply(rows: &Rows<Quad>, right: &[&[Line]], out: &mut [Products<Quad>], stride: usize) {
    // SAFETY: the caller guarantees rows and instructions.
    unsafe { registers::multiply::<Avx512, 12, 2>(rows, right, out, stride) };
}

struct Avx512;

impl DotProducts for Avx512 {
    type Group = Quad;
    type Sums = __m512i;
    type Left = __m512i;
    type Right = __m512i;

    #[inline(always)]
    unsafe fn zeros() -> __m512i {
        // SAFETY: the caller guarantees the instructions.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn left(group: *const Quad) -> __m512i {
        // SAFETY: the caller guarantees it, and groups are aligned as lines are.
        unsafe { _mm512_set1_epi32(*group.cast::<i32>()) }
    }

    #[inline(always)]
    unsafe fn right(line: *const Line) -> __m512i {
        // SAFETY: the caller guarantees it, and lines are aligned.
        unsafe { _mm512_load_si512(line.cast()) }
    }

    #[inline(always)]
    unsafe fn multiply_add(sums: &mut __m512i, left: __m512i, right: __m512i) {
        // SAFETY: the caller guarantees the instructions.
        *sums = unsafe { _mm512_dpbusd_epi32(*sums, left, right) };
    }

    #[inline(always)]
    unsafe fn store(sums: __m512i, out: &mut [i32; PANEL]) {
        const { assert!(PANEL == 16) };
        // SAFETY: a panel's columns are one vector.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sums) };
    }
}

/// # Safety
/// As for [`registers::operations`].
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn operations() -> u64 {
    // SAFETY: the caller guarantees the instructions.
    unsafe { registers::operations::<Avx512>() }
}
