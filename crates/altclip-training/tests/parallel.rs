//! Runs ranks in threads that communicate over sockets: their results, and how they end when one of them does.

mod common;

use altclip_training::parallel::{Alone, Communicator, Rendezvous, Secret, Sockets};
use altclip_training::{
    Batch, Error, Gradients, Objective, Optimizer, OptimizerConfig, Parameters, Result, TrainingRun,
};
use candle_core::{Device, Tensor, Var};
use common::{State, Watch, line_gradients, state};
use fused_ops::Linear;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any of these tests waits.
const PATIENCE: Duration = Duration::from_secs(60);

fn at(address: &str, rank: usize, ranks: usize) -> Rendezvous {
    let address = address.to_owned();
    Rendezvous { rank, ranks, address, patience: PATIENCE, secret: None, insecure: false }
}

/// A listener, and where it listens.
fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// The results of this many ranks, in order.
fn ranks<T: Send>(count: usize, work: impl Fn(Sockets) -> T + Sync) -> Vec<T> {
    let (listener, address) = listener();
    let (work, address) = (&work, &address);
    thread::scope(|scope| {
        let others: Vec<_> = (1..count)
            .map(|rank| scope.spawn(move || work(at(address, rank, count).meet().unwrap())))
            .collect();
        let first = work(at(address, 0, count).listen(&listener).unwrap());
        std::iter::once(first).chain(others.into_iter().map(|other| other.join().unwrap())).collect()
    })
}

/// A rank's own values, some far larger than others, so that the order of summation shows.
fn values(rank: usize, count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(rank as u64);
    (0..count).map(|_| rng.random_range(-1f32..1.) * 10f32.powi(rng.random_range(-6..6))).collect()
}

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

fn secret(text: &str) -> Option<Secret> {
    Some(Secret::new(text.as_bytes(), "test").unwrap())
}

/// Two ranks that meet with these secrets: what rank 0 gathers, and what each says that fails.
fn meet_with(secrets: [Option<Secret>; 2]) -> [Result<Vec<u64>>; 2] {
    let (listener, address) = listener();
    let [first, second] = secrets;
    thread::scope(|scope| {
        let address = &address;
        let other = scope.spawn(move || Rendezvous { secret: second, ..at(address, 1, 2) }.meet()?.gather(1));
        let patience = Duration::from_secs(2);
        let first = Rendezvous { secret: first, patience, ..at(address, 0, 2) };
        let first = first.listen(&listener).and_then(|sockets| sockets.gather(5));
        [first, other.join().unwrap()]
    })
}

#[test]
fn only_ranks_with_the_same_secret_meet() {
    let known = || secret("0123456789abcdef");
    for secrets in [[known(), known()], [None, None]] {
        for result in meet_with(secrets) {
            assert_eq!(result.unwrap(), [5, 1]);
        }
    }
    for secrets in [[known(), None], [None, known()], [known(), secret("0123456789abcdeF")]] {
        let [first, other] = meet_with(secrets).map(|result| result.unwrap_err().to_string());
        assert!(first.starts_with("rank 1: did not come"), "{first}");
        assert_eq!(other, "rank 0: has another secret, or none");
    }
}

/// Silent, talkative, and gone again; and one that repeats what a rank said to somebody else.
#[test]
fn strangers_neither_end_a_run_nor_delay_it() {
    for secret in [None, secret("0123456789abcdef")] {
        let (listener, address) = listener();
        let visit = |words: &[u8]| {
            let mut stream = TcpStream::connect(&address).unwrap();
            stream.write_all(words).unwrap();
            stream
        };
        let old_greeting =
            |rank: u64, ranks: u64| [&b"altranks"[..], &rank.to_le_bytes(), &ranks.to_le_bytes()].concat();
        let mut replayed = [&b"altrank2"[..], &1u64.to_le_bytes(), &2u64.to_le_bytes()].concat();
        replayed.extend([7; 64]);
        let mut strangers: Vec<TcpStream> = (0..100).map(|_| visit(b"")).collect();
        drop(visit(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        strangers.extend(
            [old_greeting(1, 2), old_greeting(1, 3), replayed, vec![255; 4096]].map(|words| visit(&words)),
        );
        let begin = Instant::now();
        thread::scope(|scope| {
            let rank = |number| Rendezvous { secret: secret.clone(), ..at(&address, number, 2) };
            let (first, second) = (rank(0), rank(1));
            let other = scope.spawn(move || second.meet().unwrap().gather(1).unwrap());
            let sockets = first.listen(&listener).unwrap();
            assert_eq!(sockets.gather(5).unwrap(), [5, 1]);
            assert_eq!(other.join().unwrap(), [5, 1]);
        });
        // Each of the silent ones has five seconds, at the same time as all others.
        assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    }
}

#[test]
fn those_who_do_not_belong_together_do_not_meet() {
    let (listener, address) = listener();
    let (start, patience) = (Instant::now(), Duration::from_millis(1500));
    let errors = thread::scope(|scope| {
        let address = &address;
        let first =
            scope.spawn(|| Rendezvous { patience, ..at(address, 0, 3) }.listen(&listener).unwrap_err());
        let kept = scope.spawn(|| at(address, 1, 3).meet().unwrap_err());
        thread::sleep(Duration::from_millis(300));
        let others = [at(address, 1, 3), at(address, 1, 4)];
        let others = others.map(|other| other.meet().unwrap_err().to_string());
        // They were told at once.
        assert!(start.elapsed() < patience);
        [vec![first.join().unwrap().to_string(), kept.join().unwrap().to_string()], others.to_vec()].concat()
    });
    assert!(
        errors[0].starts_with(&format!("rank 2: did not come to {address} within 1.5s")),
        "{}",
        errors[0]
    );
    assert!(errors[1].starts_with("rank 0: was lost"), "{}", errors[1]);
    assert_eq!(errors[2], "rank 0: has another process of this rank already");
    assert_eq!(errors[3], "rank 0: was started as one of 3, expected the same --ranks on all");

    let error = |rank: usize, ranks: usize| at(&address, rank, ranks).meet().unwrap_err().to_string();
    assert_eq!(error(3, 3), "rank: expected a number below 3, found 3");
    assert_eq!(error(0, 0), "ranks: expected 1 to 4096, found 0");
    assert_eq!(error(1, usize::MAX), format!("ranks: expected 1 to 4096, found {}", usize::MAX));
    drop(listener);
    let hurried = Rendezvous { patience: Duration::ZERO, ..at(&address, 1, 3) };
    let error = hurried.meet().unwrap_err().to_string();
    assert!(error.starts_with(&format!("rank 0: cannot be reached at {address}: ")), "{error}");
}

#[test]
fn without_a_secret_ranks_meet_on_this_machine_alone() {
    for rank in [0, 1] {
        let outside = Rendezvous { address: "192.0.2.1:29500".to_owned(), ..at("", rank, 2) };
        let error = outside.meet().unwrap_err().to_string();
        assert!(error.starts_with("rendezvous: other machines reach 192.0.2.1:29500"), "{error}");
    }
    // This address is every one of this machine's.
    let error = at("0.0.0.0:0", 0, 2).meet().unwrap_err().to_string();
    assert!(error.starts_with("rendezvous: other machines reach 0.0.0.0:0"), "{error}");
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

fn config(accumulate: usize) -> OptimizerConfig {
    common::config(8, accumulate)
}

/// Fits a linear layer to a noisy line, and records the numbers of its batches.
struct Line {
    layer: Linear,
    numbers: Mutex<Vec<usize>>,
}

impl Objective for Line {
    fn gradients(&self, batch: &mut Batch) -> Result<Gradients> {
        self.numbers.lock().unwrap().push(batch.number);
        line_gradients(&self.layer, batch)
    }
}

/// The state of a rank after a run.
struct Trained {
    state: State,
    losses: Vec<f64>,
    numbers: Vec<usize>,
    error: Option<Error>,
}

/// Trains from weights of this seed.
fn train(
    all: &dyn Communicator,
    folder: &Path,
    seed: u64,
    config: OptimizerConfig,
    ends_after: Option<usize>,
) -> Result<Trained> {
    let parameters = Parameters::new(seed);
    let layer = Linear::new(4, 3, true, parameters.var_builder(&Device::Cpu))?;
    let mut optimizer = Optimizer::new(config, &parameters)?;
    let mut watch = Watch { ends_after, ..Watch::default() };
    let line = Line { layer, numbers: Mutex::default() };
    let error = TrainingRun::among(all, folder, 7)?.train(&mut optimizer, &mut watch, &line).err();
    let state = state(&optimizer)?;
    Ok(Trained { state, losses: watch.losses, numbers: line.numbers.into_inner().unwrap(), error })
}

/// A sum of two terms has no order, so this equals, bit by bit, a single process with the batches of both. One rank
/// runs out of time after three steps; a single process resumes from there.
#[test]
fn a_run_of_two_ranks_is_the_run_of_one_and_ends_for_both() -> Result<()> {
    let (alone, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let expected = train(&Alone, alone.path(), 5, config(2), None)?;
    let trained = ranks(2, |sockets| {
        let ends_after = (sockets.rank() == 1).then_some(3);
        train(&sockets, folder.path(), 5, config(1), ends_after)
    });
    let [first, second] = <[_; 2]>::try_from(trained).unwrap_or_else(|_| panic!("two"));
    let (first, second) = (first?, second?);
    assert_eq!(first.state, second.state);
    assert_eq!((&first.losses[..], &second.losses[..]), (&expected.losses[..3], &expected.losses[..3]));
    assert_eq!((&first.numbers[..], &second.numbers[..]), (&[0, 2, 4][..], &[1, 3, 5][..]));
    for trained in [first, second] {
        assert!(matches!(trained.error, Some(Error::Interrupted { step: 3, steps: 8, .. })));
    }
    let finished = train(&Alone, folder.path(), 5, config(2), None)?;
    assert_eq!(finished.state, expected.state);
    assert_eq!(finished.numbers, (6..16).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn ranks_that_would_go_apart_do_not_begin() {
    let folder = tempfile::tempdir().unwrap();
    let errors = |seeds: [u64; 2], accumulate: [usize; 2]| {
        ranks(2, |sockets| {
            let rank = sockets.rank();
            let trained =
                train(&sockets, folder.path(), seeds[rank], config(accumulate[rank]), None).unwrap();
            assert!(trained.numbers.is_empty());
            trained.error.map(|error| error.to_string()).unwrap_or_default()
        })
    };
    let expected =
        |what: &str| vec![format!("rank 1: expected the same {what} as rank 0's, found another"); 2];
    assert_eq!(errors([5, 6], [1, 1]), expected("weights to begin with"));
    assert_eq!(errors([5, 5], [1, 2]), expected("settings of the optimiser"));
}

/// The second of two ranks computes a NaN loss.
#[test]
fn a_loss_that_is_not_finite_ends_all_ranks() {
    struct Broken(Var, bool);
    impl Objective for Broken {
        fn gradients(&self, _: &mut Batch) -> Result<Gradients> {
            Gradients::of(&(self.0.as_tensor() * if self.1 { f64::NAN } else { 1. })?.sum_all()?)
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let errors = ranks(2, |sockets| {
        let parameters = Parameters::new(1);
        parameters.var_builder(&Device::Cpu).get((2, 2), "weight").unwrap();
        let (_, weight) = parameters.iter().next().unwrap();
        let mut optimizer = Optimizer::new(config(1), &parameters).unwrap();
        let broken = Broken(weight, sockets.rank() == 1);
        let run = TrainingRun::among(&sockets, folder.path(), 1).unwrap();
        run.train(&mut optimizer, &mut Watch::default(), &broken).unwrap_err().to_string()
    });
    assert!(errors.iter().all(|error| error.contains("step 0: the loss is not finite")), "{errors:?}");
}
