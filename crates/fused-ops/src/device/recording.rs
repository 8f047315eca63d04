//! Records work once, to replay it many times.

use candle_core::{Result, Tensor};

/// Work on fixed tensors, repeated on new values in them.
///
/// On a GPU it is recorded as one CUDA graph, which the host starts at once and which reuses its intermediate memory.
/// On other devices it is simply run again.
///
/// The work's input tensors belong to it; write new values with [`slice_set`](Tensor::slice_set), in the order of the
/// thread's stream. Every host thread has its own stream on a GPU: before handing a recording to another thread,
/// [`synchronize`](candle_core::Device::synchronize), since writes may still be pending.
pub struct Recording {
    #[cfg(feature = "cuda")]
    graph: Option<crate::cuda::runtime::Graph>,
    /// It owns the tensors whose addresses are in the graph.
    work: Box<dyn Fn() -> Result<Tensor> + Send>,
    /// Where the graph writes its result.
    out: Tensor,
}

impl Recording {
    /// Runs the work, records it, and returns both the recording and the result.
    ///
    /// The work must do the same with the same shapes every time, whatever the values, and must not exchange values
    /// with the host.
    ///
    /// # Errors
    /// If the work fails or cannot be recorded.
    pub fn new(work: impl Fn() -> Result<Tensor> + Send + 'static) -> Result<(Self, Tensor)> {
        // Run it once before recording, so that everything created lazily exists.
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

    /// Runs the work again, and returns a new tensor.
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
