//! Records work that is described once and done many times.

use candle_core::{Result, Tensor};

/// Work on fixed tensors that is done again and again, on new values in them.
///
/// On a GPU it is recorded as one CUDA graph: the host then starts all of it at once, and memory for what is in between
/// is found once. Anywhere else it is done anew each time.
///
/// The tensors that the work reads are its own; new values get into them by [`slice_set`](Tensor::slice_set), in the order
/// of the thread's stream. Every thread of the host has its own stream on a GPU: one that hands a recording on to another
/// has to [`synchronize`](candle_core::Device::synchronize) first, as what it put there may still be under way.
pub struct Recording {
    #[cfg(feature = "cuda")]
    graph: Option<crate::cuda::runtime::Graph>,
    /// It holds the tensors, whose addresses are in the graph.
    work: Box<dyn Fn() -> Result<Tensor> + Send>,
    /// Where the graph leaves its result.
    out: Tensor,
}

impl Recording {
    /// Does the work, and records it. Its result comes with it.
    ///
    /// The work has to do the same with the same shapes every time, whatever the values are, and nothing of it may be
    /// the host's: no values that come from there, and none that go there.
    ///
    /// # Errors
    /// If the work fails, or cannot be recorded.
    pub fn new(work: impl Fn() -> Result<Tensor> + Send + 'static) -> Result<(Self, Tensor)> {
        // Before it is recorded it is done once, so that everything that is made at its first time is there.
        let first = work()?.contiguous()?;
        let out = first.zeros_like()?;
        out.slice_set(&first, 0, 0)?;
        #[cfg(feature = "cuda")]
        let graph = match first.device() {
            candle_core::Device::Cuda(device) => Some(crate::cuda::runtime::Graph::capture(device, || {
                out.slice_set(&work()?.contiguous()?, 0, 0)
            })?),
            _ => None,
        };
        let recording = Self {
            #[cfg(feature = "cuda")]
            graph,
            work: Box::new(work),
            out,
        };
        Ok((recording, first))
    }

    /// Does it once more: a tensor of its own.
    ///
    /// # Errors
    /// If the device fails.
    pub fn replay(&self) -> Result<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(graph) = &self.graph {
            graph.launch()?;
            return self.out.copy();
        }
        self.out.slice_set(&(self.work)()?.contiguous()?, 0, 0)?;
        self.out.copy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_replay_sees_new_values_and_leaves_old_results_alone() -> Result<()> {
        let input = Tensor::new(&[1f32, 2.], &Device::Cpu)?;
        let own = input.clone();
        let (recording, first) = Recording::new(move || own.sqr())?;
        input.slice_set(&Tensor::new(&[3f32, 4.], &Device::Cpu)?, 0, 0)?;
        let second = recording.replay()?;
        input.slice_set(&Tensor::new(&[5f32, 6.], &Device::Cpu)?, 0, 0)?;
        let third = recording.replay()?;
        let values = |x: &Tensor| x.to_vec1::<f32>();
        assert_eq!((values(&first)?, values(&second)?), (vec![1., 4.], vec![9., 16.]));
        assert_eq!(values(&third)?, [25., 36.]);
        Ok(())
    }
}
