//! Trains on several ranks.

use super::common::{self, State, Watch, line_gradients, state};
use super::ranks;
use altclip_training::parallel::{Alone, Communicator};
use altclip_training::{
    Batch, Error, Gradients, Objective, Optimizer, OptimizerConfig, Parameters, Result, TrainingRun,
};
use candle_core::{Device, Var};
use fused_ops::Linear;
use std::path::Path;
use std::sync::Mutex;

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
