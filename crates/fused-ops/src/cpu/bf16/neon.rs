//! Multiplies with Arm's products of small matrices of bf16.
//!
//! Rust has no intrinsics for them, so the instruction is inline assembly.

use super::line::{Line, Pair};
use super::matrices::{self, Matrices};
use crate::cpu::lines::kernel::Multiply;
use crate::cpu::lines::{Kernel, Products, Rows};
use crate::settings::Instructions;
use std::arch::aarch64::{
    float32x4_t, uint32x4_t, vcombine_u32, vdupq_n_f32, vdupq_n_u32, vld1_u32, vld1q_u32,
    vreinterpretq_f32_f64, vreinterpretq_f64_f32, vst1q_f32, vzip1q_f64, vzip1q_u32, vzip2q_f64, vzip2q_u32,
};
use std::arch::{asm, is_aarch64_feature_detected};
use std::hint::black_box;

pub(super) static KERNEL: Kernel<Pair> = Kernel {
    name: "NEON bf16",
    instructions: Instructions::Widest,
    is_supported: || is_aarch64_feature_detected!("bf16"),
    multiply: Multiply::Rows(multiply),
    operations: Some(operations),
};

/// # Safety
/// As for [`matrices::multiply`].
#[target_feature(enable = "neon,bf16")]
unsafe fn multiply(rows: &Rows<Pair>, right: &[&[Line]], out: &mut [Products<Pair>], stride: usize) {
    // SAFETY: the caller guarantees rows and instructions.
    unsafe { matrices::multiply::<Neon>(rows, right, out, stride) };
}

struct Neon;

impl Matrices for Neon {
    type Factor = uint32x4_t;
    type Sums = float32x4_t;

    #[inline(always)]
    unsafe fn zeros() -> float32x4_t {
        // SAFETY: the caller guarantees the instructions.
        unsafe { vdupq_n_f32(0.) }
    }

    #[inline(always)]
    unsafe fn rows([first, second]: [*const Pair; 2]) -> uint32x4_t {
        // SAFETY: the caller guarantees two pairs of each.
        unsafe { vcombine_u32(vld1_u32(first.cast()), vld1_u32(second.cast())) }
    }

    #[inline(always)]
    unsafe fn columns([first, second]: [*const Pair; 2]) -> [uint32x4_t; 2] {
        // SAFETY: the caller guarantees four pairs of each.
        unsafe {
            let (first, second) = (vld1q_u32(first.cast()), vld1q_u32(second.cast()));
            [vzip1q_u32(first, second), vzip2q_u32(first, second)]
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(sums: &mut float32x4_t, left: uint32x4_t, right: uint32x4_t) {
        // SAFETY: the caller guarantees the instructions.
        *sums = unsafe { bfmmla(*sums, left, right) };
    }

    #[inline(always)]
    unsafe fn store([first, second]: [float32x4_t; 2], [upper, lower]: [*mut f32; 2]) {
        // SAFETY: the caller guarantees four values of each row.
        unsafe {
            let (first, second) = (vreinterpretq_f64_f32(first), vreinterpretq_f64_f32(second));
            vst1q_f32(upper, vreinterpretq_f32_f64(vzip1q_f64(first, second)));
            vst1q_f32(lower, vreinterpretq_f32_f64(vzip2q_f64(first, second)));
        }
    }
}

/// `sums + left · right`
#[inline]
#[target_feature(enable = "neon,bf16")]
fn bfmmla(mut sums: float32x4_t, left: uint32x4_t, right: uint32x4_t) -> float32x4_t {
    // SAFETY: the instruction changes nothing but the sums.
    unsafe {
        asm!(
            "bfmmla {sums:v}.4s, {left:v}.8h, {right:v}.8h",
            sums = inout(vreg) sums,
            left = in(vreg) left,
            right = in(vreg) right,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Performs a fixed number of operations on registers, and returns that number.
///
/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "neon,bf16")]
unsafe fn operations() -> u64 {
    const ROUNDS: usize = 20_000;
    const SUMS: usize = 16;
    let factor = vdupq_n_u32(black_box(0));
    let mut sums = [vdupq_n_f32(0.); SUMS];
    for _ in 0..ROUNDS {
        for sum in &mut sums {
            *sum = bfmmla(*sum, factor, factor);
        }
    }
    black_box(sums);
    (2 * 16 * ROUNDS * SUMS) as u64
}
