//! Computes the parts of a batch in parallel: many small operations leave cores idle on one batch, but not if each
//! core has its own.

use crate::error::{Error, Result};
use candle_core::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// A thread pool per part of a batch.
#[derive(Debug)]
pub struct Workers {
    pools: Vec<ThreadPool>,
}

impl Workers {
    /// Divides the cores into `parts` pools.
    ///
    /// # Errors
    /// If `parts` is 0, or the threads cannot be started.
    pub fn new(parts: usize) -> Result<Self> {
        if parts == 0 {
            return Err(Error::Setting("parts: expected at least 1, found 0".to_owned()));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let pool = |_| ThreadPoolBuilder::new().num_threads((cores / parts).max(1)).build();
        let pools = (0..parts).map(pool).collect::<Result<_, _>>();
        Ok(Self { pools: pools.map_err(|e| Error::Setting(format!("parts: {e}")))? })
    }

    /// Like [`new`](Self::new) on a CPU; a GPU runs one part after the other.
    ///
    /// # Errors
    /// Like `new`.
    pub fn on(device: &Device, parts: usize) -> Result<Self> {
        Self::new(if device.is_cpu() { parts } else { 1 })
    }

    /// The number of pools; at least one.
    pub fn parts(&self) -> usize {
        self.pools.len()
    }

    /// The rows of each part of a batch.
    ///
    /// # Errors
    /// If the batch is empty, or not a multiple of the parts; `setting` names it in the error.
    pub fn share(&self, setting: &str, batch_size: usize) -> Result<usize> {
        let parts = self.parts();
        if batch_size == 0 || !batch_size.is_multiple_of(parts) {
            let problem = format!("expected a positive multiple of {parts} parts, found {batch_size}");
            return Err(Error::Setting(format!("{setting}: {problem}")));
        }
        Ok(batch_size / parts)
    }

    /// Maps items with `work`, in order. Of n pools, each takes every n-th item.
    pub fn map<I: Send, T: Send>(&self, items: Vec<I>, work: impl Fn(I) -> T + Sync) -> Vec<T> {
        let mut results: Vec<Option<T>> = items.iter().map(|_| None).collect();
        let mut shares: Vec<Vec<(I, &mut Option<T>)>> = self.pools.iter().map(|_| Vec::new()).collect();
        for (number, pair) in items.into_iter().zip(&mut results).enumerate() {
            if let Some(share) = shares.get_mut(number % self.pools.len().max(1)) {
                share.push(pair);
            }
        }
        let work = &work;
        std::thread::scope(|scope| {
            for (pool, share) in self.pools.iter().zip(shares) {
                scope.spawn(move || {
                    pool.install(|| share.into_iter().for_each(|(item, result)| *result = Some(work(item))));
                });
            }
        });
        results.into_iter().flatten().collect()
    }

    /// Runs `part` in every pool, each with its own generator, seeded from `rng`.
    pub fn run<T: Send>(&self, rng: &mut ChaCha8Rng, part: impl Fn(&mut ChaCha8Rng) -> T + Sync) -> Vec<T> {
        let seeds: Vec<u64> = self.pools.iter().map(|_| rng.random()).collect();
        let part = &part;
        let mut results: Vec<Option<T>> = seeds.iter().map(|_| None).collect();
        std::thread::scope(|scope| {
            for ((pool, seed), result) in self.pools.iter().zip(seeds).zip(&mut results) {
                scope.spawn(move || {
                    *result = Some(pool.install(|| part(&mut ChaCha8Rng::seed_from_u64(seed))));
                });
            }
        });
        results.into_iter().flatten().collect()
    }
}
