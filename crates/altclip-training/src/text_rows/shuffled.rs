//! Repeats a list of texts, in a new order each epoch.

use super::source::TextRows;
use crate::error::{Error, Result};
use crate::run::Batch;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::sync::{Mutex, PoisonError};

/// Texts and their rows. The order depends only on the seed and the epoch, so the number of a batch is its position
/// in the data.
pub struct ShuffledTexts {
    texts: Vec<String>,
    rows: Vec<u32>,
    seed: u64,
    /// The order of the latest epoch.
    order: Mutex<Option<(usize, Vec<usize>)>>,
}

impl ShuffledTexts {
    /// Texts with their rows.
    ///
    /// # Errors
    /// If there are no texts.
    pub fn new(pairs: Vec<(String, u32)>, seed: u64) -> Result<Self> {
        if pairs.is_empty() {
            return Err(Error::Setting("data: expected pairs, found none".to_owned()));
        }
        let (texts, rows) = pairs.into_iter().unzip();
        Ok(Self { texts, rows, seed, order: Mutex::new(None) })
    }

    /// Pairs per epoch.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Always false: there is at least one pair.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// The pair at a position in the sequence of all epochs.
    pub fn at(&self, place: usize) -> usize {
        let (epoch, within) = (place / self.len(), place % self.len());
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let known = order.take().filter(|(known, _)| *known == epoch);
        let (_, shuffled) = order.insert(known.unwrap_or_else(|| (epoch, self.order_of(epoch))));
        shuffled.get(within).copied().unwrap_or(within)
    }

    fn order_of(&self, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(epoch as u64);
        order.shuffle(&mut rng);
        order
    }
}

impl TextRows for ShuffledTexts {
    fn draw(&self, batch: &mut Batch, count: usize) -> Result<(Vec<String>, Vec<u32>)> {
        let first = batch.number * count;
        let chosen = (first..first + count).map(|place| self.at(place));
        let pair = |i: usize| Some((self.texts.get(i)?.clone(), *self.rows.get(i)?));
        Ok(chosen.filter_map(pair).unzip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_has_everything_once_in_its_own_order() -> Result<()> {
        let pairs = || (0..10u32).map(|i| (format!("text {i}"), i)).collect();
        let shuffled = ShuffledTexts::new(pairs(), 3)?;
        let draw = |number: usize| shuffled.draw(&mut Batch::new(1, number), 5).map(|(_, rows)| rows);
        let epochs: Vec<Vec<u32>> = (0..3)
            .map(|epoch| Ok([draw(2 * epoch)?, draw(2 * epoch + 1)?].concat()))
            .collect::<Result<_>>()?;
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<u32>>());
        }
        assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
        // Out of order, and in another process, it is the same.
        assert_eq!(ShuffledTexts::new(pairs(), 3)?.draw(&mut Batch::new(1, 4), 5)?.1, draw(4)?);
        assert_eq!(draw(0)?, epochs[0][..5]);
        assert!(ShuffledTexts::new(Vec::new(), 3).is_err());
        Ok(())
    }
}
