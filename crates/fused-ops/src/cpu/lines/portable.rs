//! Multiplies with instructions of every processor, as the reference for the other kernels.

use super::kernel::{Kernel, Multiply, Products, Rows};
use super::line::{Group, Line};
use super::registers::{DotProducts, multiply};
use crate::cpu::microkernel::PANEL;
use crate::cpu::simd::vectorized;
use crate::settings::Instructions;
use std::marker::PhantomData;

/// The kernel for groups of this type.
pub(crate) const fn kernel<G: Group>() -> Kernel<G> {
    Kernel {
        name: "portable",
        instructions: Instructions::Portable,
        is_supported: || true,
        multiply: Multiply::Rows(multiply_rows::<G>),
        operations: None,
    }
}

/// # Safety
/// As for [`multiply`].
unsafe fn multiply_rows<G: Group>(
    rows: &Rows<G>,
    right: &[&[Line<G>]],
    out: &mut [Products<G>],
    stride: usize,
) {
    vectorized(
        #[inline(always)]
        || {
            // SAFETY: the caller guarantees rows and panels.
            unsafe { multiply::<Portable<G>, 1, 1>(rows, right, out, stride) };
        },
    );
}

/// Multiplies a row by a panel, by the definition of the group.
struct Portable<G>(PhantomData<G>);

impl<G: Group> DotProducts for Portable<G> {
    type Group = G;
    type Sums = [G::Sum; PANEL];
    type Left = G;
    type Right = *const Line<G>;

    #[inline(always)]
    unsafe fn zeros() -> Self::Sums {
        [G::Sum::default(); PANEL]
    }

    #[inline(always)]
    unsafe fn left(group: *const G) -> G {
        // SAFETY: the caller guarantees it.
        unsafe { *group }
    }

    #[inline(always)]
    unsafe fn right(line: *const Line<G>) -> Self::Right {
        line
    }

    #[inline(always)]
    unsafe fn multiply_add(sums: &mut Self::Sums, left: G, right: Self::Right) {
        // SAFETY: the caller guarantees it.
        let right = unsafe { &(*right).0 };
        sums.iter_mut().zip(right).for_each(|(sum, right)| *sum = G::multiply_add(*sum, left, *right));
    }

    #[inline(always)]
    unsafe fn store(sums: Self::Sums, out: &mut [G::Sum; PANEL]) {
        *out = sums;
    }
}
