//! Exchanges tensors and numbers among ranks.

use super::{ranks, values};
use altclip_training::parallel::{Alone, Communicator};
use altclip_training::{Gradients, Result};
use candle_core::{Device, Tensor, Var};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

#[test]
fn sums_are_taken_in_the_order_of_the_ranks_and_have_the_same_bits() -> Result<()> {
    const COUNT: usize = 1000;
    let sums = ranks(3, |sockets| -> Result<Vec<f32>> {
        let own = Tensor::from_vec(values(sockets.rank(), COUNT), (10, 100), &Device::Cpu)?;
        let sum = sockets.sum(&own)?;
        assert_eq!(sum.dims(), [10, 100]);
        Ok(sum.flatten_all()?.to_vec1()?)
    });
    let [first, second, third] = [0, 1, 2].map(|rank| values(rank, COUNT));
    let expected: Vec<f32> = (0..COUNT).map(|i| (first[i] + second[i]) + third[i]).collect();
    for sum in sums {
        assert_eq!(sum?, expected);
    }
    Ok(())
}

#[test]
fn ranks_say_numbers_and_agree() -> Result<()> {
    let errors = ranks(3, |sockets| -> Result<String> {
        let rank = sockets.rank();
        let all: &dyn Communicator = &sockets;
        assert_eq!((all.ranks(), all.is_first()), (3, rank == 0));
        assert_eq!(all.gather(u64::MAX - rank as u64)?, [u64::MAX, u64::MAX - 1, u64::MAX - 2]);
        assert_eq!((all.any(rank == 2)?, all.any(false)?), (true, false));
        assert_eq!(all.mean([0.5, 1., 3.][rank])?, 1.5);
        all.agree("step", 7)?;
        Ok(all.agree("step", [7, 7, 8][rank]).unwrap_err().to_string())
    });
    for error in errors {
        assert_eq!(error?, "rank 2: expected the same step as rank 0's, found another");
    }
    Ok(())
}

/// Tensors below, at and above the size of a bucket, including two large ones in a row.
#[test]
fn means_come_back_in_their_shapes_and_order() -> Result<()> {
    let shapes: [&[usize]; 6] = [&[], &[3, 2], &[5 << 10, 1 << 10], &[5 << 20], &[1], &[2, 1]];
    let own = |factor: f32| {
        (0..).zip(shapes).map(move |(i, shape)| Ok(Tensor::full(factor * i as f32, shape, &Device::Cpu)?))
    };
    let check = |means: Vec<Tensor>, factor: f32| -> Result<()> {
        assert_eq!(means.len(), shapes.len());
        for ((i, shape), mean) in (0..).zip(shapes).zip(means) {
            assert_eq!(mean.dims(), shape);
            let values: Vec<f32> = mean.flatten_all()?.to_vec1()?;
            assert!(values.into_iter().all(|value| value == factor * i as f32), "tensor {i}");
        }
        Ok(())
    };
    let alone: &dyn Communicator = &Alone;
    check(alone.means(own(3.))?, 3.)?;
    let results = ranks(2, |sockets| {
        let all: &dyn Communicator = &sockets;
        check(all.means(own([1., 3.][all.rank()]))?, 2.)
    });
    results.into_iter().collect()
}

#[test]
fn work_is_done_on_rank_0_first() {
    let done = Mutex::new(Vec::new());
    let results = ranks(3, |sockets| {
        let all: &dyn Communicator = &sockets;
        all.after_first(|| {
            if all.is_first() {
                thread::sleep(Duration::from_millis(50));
            }
            done.lock().unwrap().push(all.rank());
            Ok(())
        })
    });
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(done.lock().unwrap().first(), Some(&0));
}

#[test]
fn a_rank_that_ends_is_named_on_all_others() {
    let errors = ranks(4, |sockets| {
        let own = Tensor::zeros(10, candle_core::DType::F32, &Device::Cpu).unwrap();
        sockets.sum(&own).unwrap();
        if sockets.rank() == 2 {
            return None;
        }
        sockets.sum(&own).err().map(|error| error.to_string())
    });
    let [Some(first), Some(second), None, Some(last)] = &errors[..] else { panic!("{errors:?}") };
    assert!(first.starts_with("rank 2: was lost: its process has ended"), "{first}");
    assert_eq!([second, last], ["rank 2: was lost, as rank 0 says"; 2]);
}

#[test]
fn a_rank_that_does_something_else_is_named() {
    let errors = ranks(2, |sockets| {
        let own = Tensor::zeros(10 + sockets.rank(), candle_core::DType::F32, &Device::Cpu).unwrap();
        sockets.sum(&own).unwrap_err().to_string()
    });
    let expected = "rank 1: does something else: expected a Sum of 40 bytes, found message 4 of 44";
    assert!(errors[0].starts_with(expected), "{}", errors[0]);
    assert!(errors[1].starts_with("rank 0: was lost"), "{}", errors[1]);
}

/// Two ranks with two batches each sum (a + b) + (c + d), and one process ((a + b) + c) + d. Each sum of four has
/// three roundings, so each is within 3 · 2⁻²⁴ · (|a| + |b| + |c| + |d|) of the true one, and they are within twice
/// that of each other. Dividing by four is exact.
#[test]
fn ranks_and_accumulation_differ_by_the_rounding_of_sums() -> Result<()> {
    const COUNT: usize = 500;
    /// The gradient of a product with constants is the constants.
    fn of(weight: &Var, number: usize) -> Result<Gradients> {
        let constants = Tensor::from_vec(values(number, COUNT), COUNT, &Device::Cpu)?;
        Gradients::of(&(weight.as_tensor() * constants)?.sum_all()?)
    }
    let gradient = |gradients: Gradients, weight: &Var| -> Result<Vec<f32>> {
        Ok(gradients.of_weight(weight)?.unwrap().to_vec1()?)
    };
    let weight = || Var::from_tensor(&Tensor::ones(COUNT, candle_core::DType::F32, &Device::Cpu)?);
    let on_ranks = ranks(2, |sockets| {
        let weight = weight()?;
        // A weight that no loss depends on has no gradient afterwards either.
        let other = Var::zeros(3, candle_core::DType::F32, &Device::Cpu)?;
        let numbers = [2 * sockets.rank(), 2 * sockets.rank() + 1];
        let own = Gradients::sum(numbers.map(|number| of(&weight, number)))?;
        let mean = own.over_ranks(&sockets, [&other, &weight])?;
        assert!(mean.of_weight(&other)?.is_none());
        gradient(mean, &weight)
    });
    let [first, second] = <[_; 2]>::try_from(on_ranks).unwrap();
    let first = first?;
    assert_eq!(first, second?);
    let weight = weight()?;
    let alone = gradient(Gradients::sum((0..4).map(|number| of(&weight, number)))?, &weight)?;
    let all: Vec<Vec<f32>> = (0..4).map(|number| values(number, COUNT)).collect();
    for i in 0..COUNT {
        let size: f64 = all.iter().map(|values| f64::from(values[i]).abs()).sum();
        let bound = 2. * 3. * 2f64.powi(-24) * size / 4.;
        let difference = (f64::from(first[i]) - f64::from(alone[i])).abs();
        assert!(difference <= bound, "{i}: {difference} > {bound}");
    }
    Ok(())
}
