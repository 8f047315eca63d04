//! Implements the Mersenne Twister.

/// The size of the state, in numbers.
const SIZE: usize = 624;
/// The distance between numbers that are combined into a new one.
const DISTANCE: usize = 397;

/// MT19937 (Matsumoto and Nishimura 1998, <https://doi.org/10.1145/272991.272995>), seeded like its authors'
/// `init_genrand`: PyTorch's generator on the CPU.
#[derive(Debug, Clone)]
pub(super) struct Mt19937 {
    state: [u32; SIZE],
    /// The index of the next number to return.
    next: usize,
}

impl Mt19937 {
    /// Seeds the generator with the lower 32 bits of `seed`, as PyTorch does.
    pub(super) fn new(seed: u64) -> Self {
        let mut state = [0u32; SIZE];
        let mut previous = seed as u32;
        for (index, number) in state.iter_mut().enumerate() {
            if index > 0 {
                previous =
                    (previous ^ (previous >> 30)).wrapping_mul(1_812_433_253).wrapping_add(index as u32);
            }
            *number = previous;
        }
        Self { state, next: SIZE }
    }

    /// The next 32 bits.
    pub(super) fn bits32(&mut self) -> u32 {
        if self.next == SIZE {
            self.renew();
        }
        let mut bits = self.state[self.next];
        self.next += 1;
        bits ^= bits >> 11;
        bits ^= (bits << 7) & 0x9d2c_5680;
        bits ^= (bits << 15) & 0xefc6_0000;
        bits ^ (bits >> 18)
    }

    /// The next 64 bits, the upper 32 first.
    pub(super) fn bits64(&mut self) -> u64 {
        let upper = u64::from(self.bits32());
        upper << 32 | u64::from(self.bits32())
    }

    /// A uniform f32 in [0, 1), with 24 random bits.
    pub(super) fn uniform_f32(&mut self) -> f32 {
        (self.bits32() & ((1 << 24) - 1)) as f32 * (-24f32).exp2()
    }

    /// A uniform f64 in [0, 1), with 53 random bits.
    pub(super) fn uniform_f64(&mut self) -> f64 {
        (self.bits64() & ((1 << 53) - 1)) as f64 * (-53f64).exp2()
    }

    /// Replaces the whole state by the next one.
    fn renew(&mut self) {
        for index in 0..SIZE {
            let (this, next) = (self.state[index], self.state[(index + 1) % SIZE]);
            let joined = (this & 0x8000_0000) | (next & 0x7fff_ffff);
            let twist = if next & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + DISTANCE) % SIZE] ^ (joined >> 1) ^ twist;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C++ standard, [rand.predef]: the 10 000th number of a generator seeded with 5489.
    #[test]
    fn the_number_that_the_standard_demands() {
        let mut generator = Mt19937::new(5489);
        let last = (0..10_000).map(|_| generator.bits32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn only_32_bits_of_the_seed_count() {
        let first = |seed| Mt19937::new(seed).bits64();
        assert_eq!(first(7), first(7 | 1 << 32));
        assert_ne!(first(7), first(8));
    }
}
