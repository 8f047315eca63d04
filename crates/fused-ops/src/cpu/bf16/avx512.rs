//! Multiplies with AVX-512's dot products of pairs of bf16.

use super::line::{Line, Pair};
use crate::cpu::lines::kernel::Multiply;
use crate::cpu::lines::registers::{self, DotProducts};
use crate::cpu::lines::{Kernel, Products, Rows};
use crate::cpu::microkernel::PANEL;
use crate::settings::Instructions;
use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_load_si512, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_storeu_ps,
};
use std::mem::transmute;

pub(super) static KERNEL: Kernel<Pair> = Kernel {
    name: "AVX-512 bf16",
    instructions: Instructions::Widest,
    is_supported: || is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bf16"),
    multiply: Multiply::Rows(multiply),
    operations: Some(operations),
};

/// Writes the products of all rows, in tiles of 12 by two panels, whose 24 sums fill the registers.
///
/// # Safety
/// As for [`Rows`], and the processor must have the instructions.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn multiply(rows: &Rows<Pair>, right: &[&[Line]], out: &mut [Products<Pair>], stride: usize) {
    // SAFETY: the caller guarantees rows and instructions.
    unsafe { registers::multiply::<Avx512, 12, 2>(rows, right, out, stride) };
}

struct Avx512;

impl DotProducts for Avx512 {
    type Group = Pair;
    type Sums = __m512;
    type Left = __m512bh;
    type Right = __m512bh;

    #[inline(always)]
    unsafe fn zeros() -> __m512 {
        // SAFETY: the caller guarantees the instructions.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn left(group: *const Pair) -> __m512bh {
        // SAFETY: the caller guarantees it, and groups are aligned as lines are.
        unsafe { bits(_mm512_set1_epi32(*group.cast::<i32>())) }
    }

    #[inline(always)]
    unsafe fn right(line: *const Line) -> __m512bh {
        // SAFETY: the caller guarantees it, and lines are aligned.
        unsafe { bits(_mm512_load_si512(line.cast())) }
    }

    #[inline(always)]
    unsafe fn multiply_add(sums: &mut __m512, left: __m512bh, right: __m512bh) {
        // SAFETY: the caller guarantees the instructions.
        *sums = unsafe { _mm512_dpbf16_ps(*sums, left, right) };
    }

    #[inline(always)]
    unsafe fn store(sums: __m512, out: &mut [f32; PANEL]) {
        const { assert!(PANEL == 16) };
        // SAFETY: a panel's columns are one vector.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums) };
    }
}

#[inline(always)]
fn bits(values: __m512i) -> __m512bh {
    // SAFETY: they have the same size, and all bit patterns are valid.
    unsafe { transmute(values) }
}

/// # Safety
/// As for [`registers::operations`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn operations() -> u64 {
    // SAFETY: the caller guarantees the instructions.
    unsafe { registers::operations::<Avx512>() }
}
