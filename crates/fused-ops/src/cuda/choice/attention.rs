//! Which attention runs: the kernels that every GPU can run, or those for Hopper.

use super::{done, is_recorded, milliseconds};
use crate::cuda::Launched;
use crate::cuda::device::Kernels;
use crate::cuda::launches::attention::Attention;
use crate::cuda::launches::launch::Element;
use candle_core::Result;
use std::collections::HashMap;

/// This variable of the environment says which kernels compute attention over many keys on a GPU of compute capability 9.0:
///
/// * `usual`: those that every GPU can run; so it is without the variable, until somebody has measured that others win.
/// * `hopper`: those that only such a GPU can run, where they cover the shape.
/// * `measured`: for each shape the faster of both, measured the first time that it is asked for. Another run may choose the
///   other one where they are close, and so differ in the last bits.
const ATTENTION: &str = "FUSED_OPS_ATTENTION";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Usual,
    Hopper,
    Measured,
}

/// The sizes that decide how long attention takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    element: Element,
    batch: usize,
    queries: usize,
    keys: usize,
    heads: usize,
    head_dim: usize,
    causal: bool,
}

/// What was chosen on a device.
pub(crate) struct Attentions {
    way: Way,
    takes_hopper: HashMap<Shape, bool>,
}

impl Attentions {
    /// # Errors
    /// If the variable says something else than above, or asks for kernels that the device cannot run.
    pub fn open(is_hopper: bool) -> Result<Self> {
        let way = std::env::var_os(ATTENTION);
        let way = match way.as_ref().map(|way| way.to_str()) {
            Some(Some("usual")) | None => Way::Usual,
            Some(Some("hopper")) if is_hopper => Way::Hopper,
            Some(Some("hopper")) => {
                candle_core::bail!("{ATTENTION}=hopper asks for a GPU of compute capability 9.0")
            }
            // No other capability has its products, later ones neither.
            Some(Some("measured")) => {
                if is_hopper {
                    Way::Measured
                } else {
                    Way::Usual
                }
            }
            Some(_) => candle_core::bail!(
                "{ATTENTION} is usual, hopper or measured, not {}",
                way.unwrap_or_default().display()
            ),
        };
        Ok(Self { way, takes_hopper: HashMap::new() })
    }

    /// Puts attention into the stream of `kernels`.
    pub fn launch(&mut self, kernels: &Kernels, op: &Attention) -> Launched {
        let usual = || Ok(kernels.launch(&op.launch(kernels.multiprocessors())?));
        let hopper = || Ok(kernels.launch(&op.launch_on_hopper()?));
        // Packed sequences are too short for it.
        let covers = self.way != Way::Usual && op.launch_on_hopper().is_ok() && op.offsets.is_none();
        if covers && self.takes_hopper(kernels, op, usual, hopper) { hopper() } else { usual() }
    }

    fn takes_hopper(
        &mut self,
        kernels: &Kernels,
        op: &Attention,
        usual: impl Fn() -> Launched,
        hopper: impl Fn() -> Launched,
    ) -> bool {
        let Attention { element, batch, queries, keys, heads, head_dim, causal, .. } = *op;
        let shape = Shape { element, batch, queries, keys, heads, head_dim, causal };
        if self.way == Way::Hopper {
            return true;
        }
        if let Some(&takes) = self.takes_hopper.get(&shape) {
            return takes;
        }
        // Nothing can be tried while work is recorded.
        if is_recorded(kernels.stream()) {
            return false;
        }
        let usual = milliseconds(kernels, || done(usual()));
        let hopper = milliseconds(kernels, || done(hopper()));
        tracing::debug!(?shape, ?usual, ?hopper, "milliseconds of attention");
        let takes = hopper.is_ok_and(|hopper| usual.is_ok_and(|usual| hopper < usual));
        self.takes_hopper.insert(shape, takes);
        takes
    }
}
