//! Computes a GEGLU layer in one pass, without writing values and gates to memory.

use super::elementwise::gelu;
use super::matmul::{Pairs, for_each_part};
use super::microkernel::PANEL;
use super::output::{SharedOutput, written};
use super::pack::{Factor, FactorSize};
use super::simd::arch;
use super::window::Window;
use pulp::{Simd, WithSimd};
use std::mem::MaybeUninit;
use std::ops::Range;

/// `geglu(left · panels + bias)`, where the first half of the columns are values and the second half their gates:
/// (rows, half of the panels' columns). The halves must split at a panel boundary.
pub(crate) fn linear_geglu<F: Factor>(
    left: &[f32],
    rows: usize,
    panels: &F,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let FactorSize { taps, columns: both, .. } = panels.size();
    let columns = both / 2;
    assert!(taps == 1 && both.is_multiple_of(2 * PANEL));
    assert!(bias.is_none_or(|bias| bias.len() == both));
    let write = |out: &mut [MaybeUninit<f32>]| {
        let out = SharedOutput::new(out);
        let arch = arch();
        for_each_part(left, rows, &Window::Same, panels, columns / PANEL, |starts, rows, columns| {
            arch.dispatch(GatedTask { starts, panels, rows, columns, bias, out });
        });
    };
    // SAFETY: the parts cover the result.
    unsafe { written(rows * columns, write) }
}

/// One task: some rows of the gated product and some panels of its columns.
struct GatedTask<'a, F> {
    starts: &'a [*const f32],
    panels: &'a F,
    rows: Range<usize>,
    columns: Range<usize>,
    bias: Option<&'a [f32]>,
    out: SharedOutput<'a>,
}

impl<F: Factor> WithSimd for GatedTask<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let half = self.panels.size().columns / 2;
        // A panel of values with the panel of their gates beside it.
        let mut both = vec![[0f32; 2 * PANEL]; self.rows.len()];
        // SAFETY: `for_each_part` gives the starts of these rows, each of the panels' depth.
        let mut pairs = unsafe { Pairs::new(self.panels, self.starts) };
        for panel in self.columns.clone() {
            let pair = [panel, half / PANEL + panel];
            let out = both.as_mut_ptr().cast();
            // SAFETY: there are two panels' columns of each row.
            unsafe { pairs.multiply(simd, self.rows.len(), &pair, 2 * PANEL, out, 2 * PANEL) };
            let first = panel * PANEL;
            let mut bias = [[0f32; PANEL]; 2];
            if let Some(all) = self.bias {
                bias[0].copy_from_slice(&all[first..][..PANEL]);
                bias[1].copy_from_slice(&all[half + first..][..PANEL]);
            }
            for (row, both) in self.rows.clone().zip(&both) {
                let mut values = [0f32; PANEL];
                for lane in 0..PANEL {
                    let (value, gate) = (both[lane] + bias[0][lane], both[PANEL + lane] + bias[1][lane]);
                    values[lane] = value * gelu(gate);
                }
                // SAFETY: this task alone writes these columns of its rows.
                unsafe { self.out.write(row * half + first, &values) };
            }
        }
    }
}
