//! Reads numbers back from a device without waiting for work that came after them.

use candle_core::{Result, Tensor};
use std::collections::VecDeque;

/// Numbers that a device computes, received in the order in which they were asked for.
///
/// To read one from a GPU by itself waits for all work that the device has, that asked for afterwards too. To receive one
/// here waits for what came before it alone, so that the device need not stand idle meanwhile.
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
    /// Asks for the number in `scalar`, f32.
    ///
    /// # Errors
    /// If that is no scalar of this type.
    pub fn ask(&mut self, scalar: &Tensor) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(pinned) = crate::cuda::runtime::Pinned::copy(scalar, self.spare.pop())? {
            self.under_way.push_back(Number::UnderWay(pinned));
            return Ok(());
        }
        self.under_way.push_back(Number::Here(scalar.to_scalar()?));
        Ok(())
    }

    /// The number asked for first of those that were not received, when it is there.
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
