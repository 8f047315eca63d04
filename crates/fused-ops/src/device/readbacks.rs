//! Reads numbers back from a device without waiting for later work.

use candle_core::{Result, Tensor};
use std::collections::VecDeque;

/// Numbers computed on a device, received in the order of the requests.
///
/// Reading a number from a GPU directly waits for all queued work, even what was queued later. Receiving it here
/// waits only for earlier work, so the device need not be idle.
#[derive(Default)]
pub struct Readbacks {
    under_way: VecDeque<Number>,
    #[cfg(feature = "cuda")]
    spare: Vec<crate::cuda::runtime::Pinned>,
}

enum Number {
    Here(f32),
    #[cfg(feature = "cuda")]
    UnderWay(crate::cuda::runtime::Pinned),
}

impl Readbacks {
    /// Requests the number in `scalar`, f32.
    ///
    /// # Errors
    /// If that is not an f32 scalar.
    pub fn ask(&mut self, scalar: &Tensor) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(pinned) = crate::cuda::runtime::Pinned::copy(scalar, self.spare.pop())? {
            self.under_way.push_back(Number::UnderWay(pinned));
            return Ok(());
        }
        self.under_way.push_back(Number::Here(scalar.to_scalar()?));
        Ok(())
    }

    /// Waits for the oldest number requested and not yet received.
    ///
    /// # Errors
    /// If the device failed meanwhile.
    pub fn receive(&mut self) -> Result<Option<f32>> {
        match self.under_way.pop_front() {
            None => Ok(None),
            Some(Number::Here(number)) => Ok(Some(number)),
            #[cfg(feature = "cuda")]
            Some(Number::UnderWay(pinned)) => {
                let number = pinned.wait()?;
                self.spare.push(pinned);
                Ok(Some(number))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn numbers_come_in_the_order_in_which_they_were_asked_for() -> Result<()> {
        let mut readbacks = Readbacks::default();
        for number in [3f32, 1., 2.] {
            readbacks.ask(&Tensor::new(number, &Device::Cpu)?)?;
        }
        assert!(readbacks.ask(&Tensor::new(&[1f32], &Device::Cpu)?).is_err());
        let received =
            [readbacks.receive()?, readbacks.receive()?, readbacks.receive()?, readbacks.receive()?];
        assert_eq!(received, [Some(3.), Some(1.), Some(2.), None]);
        Ok(())
    }
}
