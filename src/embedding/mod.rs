//! Many texts and images to vectors in a file: where they come from, how far the work is, and what is written.

pub mod format;
pub mod images;
pub mod index;
pub mod list;
pub mod partial;
pub mod texts;

use anyhow::Result;
use sha2::{Digest, Sha256};

/// How many items there are, and which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survey {
    pub count: usize,
    pub digest: String,
}

impl Survey {
    /// Reads all items once, so that what is wrong with them comes out before the work begins.
    ///
    /// # Errors
    /// The first error among the items.
    pub fn of<T: AsRef<[u8]>>(items: impl Iterator<Item = Result<T>>) -> Result<Self> {
        let mut digest = Sha256::new();
        let mut count = 0;
        for item in items {
            let item = item?;
            let bytes = item.as_ref();
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
            count += 1;
        }
        Ok(Self { count, digest: hex(&digest.finalize()) })
    }
}

/// The bits of some numbers, so short that they can be compared by eye.
pub fn digest_of_numbers(numbers: &[f32]) -> String {
    let mut digest = Sha256::new();
    for number in numbers {
        digest.update(number.to_le_bytes());
    }
    hex(&digest.finalize())
}

/// The vector of length 1 in the same direction. There is none to zero, and what is not finite stays so.
pub fn unit_vector(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    vector.iter().map(|&x| (f64::from(x) / length) as f32).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surveys_tell_lists_apart() -> Result<()> {
        let survey = |items: &[&str]| Survey::of(items.iter().map(|item| Ok(item.to_string())));
        assert_eq!(survey(&["a", "b"])?, survey(&["a", "b"])?);
        assert_eq!(survey(&["ab", ""])?.count, 2);
        assert_ne!(survey(&["a", "b"])?.digest, survey(&["ab", ""])?.digest);
        Ok(())
    }
}
