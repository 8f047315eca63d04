//! Compares the noise of seeds with PyTorch's.

use altdiffusion_pipeline::random::{Rng, TorchCpu};
use serde::Deserialize;
use test_support::{golden_json, golden_tensors};

#[derive(Deserialize)]
struct Golden {
    cpu: Vec<Case>,
    cuda: Vec<Case>,
    long: Long,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    seed: String,
    /// The number of values in each consecutive call.
    calls: Vec<usize>,
}

#[derive(Deserialize)]
struct Long {
    seed: String,
    count: usize,
    checksum: String,
}

fn cases() -> Golden {
    golden_json("noise.json")
}

fn draw(rng: Rng, case: &Case) -> Vec<f32> {
    let mut noise = rng.with_seed(case.seed.parse().unwrap());
    let values = case.calls.iter().map(|&count| noise.normal(&[count]).unwrap().to_vec1::<f32>().unwrap());
    values.collect::<Vec<_>>().concat()
}

#[test]
fn the_cpu_generator_is_pytorchs_bit_for_bit() {
    let expected = golden_tensors("noise.safetensors");
    for case in cases().cpu {
        let expected = expected[&case.name].to_vec1::<f32>().unwrap();
        let found = draw(Rng::Cpu, &case);
        assert_eq!(found.len(), expected.len(), "{}", case.name);
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{} at {index}: {found} {expected}", case.name);
        }
    }
}

#[test]
fn a_million_values_are_pytorchs_bit_for_bit() {
    let Long { seed, count, checksum } = cases().long;
    let values = TorchCpu::new(seed.parse().unwrap()).randn(count);
    let found = values.iter().enumerate().fold(0u64, |sum, (index, value)| {
        sum.wrapping_add(u64::from(value.to_bits()).wrapping_mul(2 * index as u64 + 1))
    });
    assert_eq!(found.to_string(), checksum);
}

/// Both sides use exact functions in f64, so that only the final rounding to f32 can differ.
#[test]
fn the_cuda_generator_is_that_of_the_formula() {
    let expected = golden_tensors("noise.safetensors");
    for case in cases().cuda {
        let expected = expected[&case.name].to_vec1::<f32>().unwrap();
        let found = draw(Rng::Cuda, &case);
        assert_eq!(found.len(), expected.len(), "{}", case.name);
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!(
                (found - expected).abs() <= f32::EPSILON * expected.abs(),
                "{} at {index}: {found} {expected}",
                case.name
            );
        }
    }
}

#[test]
fn every_generator_is_standard_normal() {
    for rng in Rng::ALL {
        let values = rng.with_seed(1).normal(&[100, 1000]).unwrap();
        let values = values.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let count = values.len() as f32;
        let mean = values.iter().sum::<f32>() / count;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / count;
        let within_one = values.iter().filter(|value| value.abs() < 1.0).count() as f32 / count;
        assert!(mean.abs() < 0.01, "{rng}: {mean}");
        assert!((variance - 1.0).abs() < 0.02, "{rng}: {variance}");
        assert!((within_one - 0.6827).abs() < 0.01, "{rng}: {within_one}");
    }
}

#[test]
fn nothing_can_be_drawn() {
    for rng in Rng::ALL {
        assert_eq!(rng.with_seed(1).normal(&[0, 3]).unwrap().dims(), [0, 3]);
    }
    assert!(
        "philox".parse::<Rng>().is_err_and(|error| error.to_string().contains("expected one of cpu, cuda"))
    );
}
