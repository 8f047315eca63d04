//! Runs a model's work on a thread of its own: loads the model when work comes, and frees it when it is idle.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::problem::Problem;
use crate::sync::{AtomicU8, Ordering, Receiver, RecvTimeoutError, Sender, mpsc, receive_within, thread};

/// What a model does on its thread.
pub(crate) trait Work: Send + 'static {
    /// What is asked of it.
    type Job: Send + 'static;

    /// Does a job, and possibly others that wait.
    fn run(&mut self, job: Self::Job, waiting: &Receiver<Self::Job>, stage: &Stage);

    /// Loads the model ahead of the first job.
    fn preload(&mut self, stage: &Stage);

    /// Frees the model.
    fn free(&mut self);
}

/// Whether a model is loaded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stage(Arc<AtomicU8>);

impl Stage {
    const LOADING: u8 = 1;
    const LOADED: u8 = 2;

    pub(crate) fn is_loading(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::LOADING
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::LOADED
    }

    /// Runs `load`, which is visible to others meanwhile.
    pub(crate) fn loading<M, E>(&self, load: impl FnOnce() -> Result<M, E>) -> Result<M, E> {
        self.0.store(Self::LOADING, Ordering::Relaxed);
        let loaded = load();
        self.0.store(if loaded.is_ok() { Self::LOADED } else { 0 }, Ordering::Relaxed);
        loaded
    }

    fn freed(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// A model's thread. It ends, after its last job, when this is dropped.
pub(crate) struct ModelThread<J> {
    jobs: Sender<J>,
    pub(crate) stage: Stage,
}

impl<J: Send + 'static> ModelThread<J> {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub(crate) fn start<W: Work<Job = J>>(
        name: &str,
        mut work: W,
        keep_loaded: Option<Duration>,
        preload: bool,
    ) -> std::io::Result<Self> {
        let (jobs, waiting) = mpsc::channel();
        let stage = Stage::default();
        if preload {
            // From the start, so that nobody takes the server for ready before.
            stage.0.store(Stage::LOADING, Ordering::Relaxed);
        }
        let seen = stage.clone();
        let run = move || {
            if preload {
                guarded(&mut work, &seen, |work| work.preload(&seen));
            }
            loop {
                let job = match keep_loaded.filter(|_| seen.is_loaded()) {
                    Some(idle) => receive_within(&waiting, idle),
                    None => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
                };
                match job {
                    Ok(job) => guarded(&mut work, &seen, |work| work.run(job, &waiting, &seen)),
                    Err(RecvTimeoutError::Timeout) => {
                        tracing::info!("freed an idle model");
                        work.free();
                        seen.freed();
                    }
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        };
        thread::Builder::new().name(name.chars().take(15).collect()).spawn(run)?;
        Ok(Self { jobs, stage })
    }

    /// Adds a job.
    ///
    /// # Errors
    /// If the thread is gone.
    pub(crate) fn send(&self, job: J) -> Result<(), Problem> {
        self.jobs.send(job).map_err(|_| Problem::failed())
    }
}

/// Keeps the thread alive if the work panics; who waits for the job learns it by its channel, and the model, whose
/// state is uncertain, is loaded anew.
fn guarded<W: Work>(work: &mut W, stage: &Stage, run: impl FnOnce(&mut W)) {
    if catch_unwind(AssertUnwindSafe(|| run(work))).is_err() {
        tracing::error!("a request failed by a panic; the model will be loaded again");
        work.free();
        stage.freed();
    }
}

#[cfg(all(test, shuttle))]
mod interleavings {
    use super::*;

    const SCHEDULES: usize = 5000;
    /// Preemptions by which each schedule is unlike one thread after the other.
    const PREEMPTIONS: usize = 3;

    /// Answers each number that it is given, and notices if others think otherwise of its model than itself.
    struct Answering {
        is_loaded: bool,
        /// Closed with the thread.
        _alive: Sender<()>,
    }

    impl Answering {
        fn load(&mut self, stage: &Stage) {
            if !self.is_loaded {
                self.is_loaded = stage.loading(|| Ok::<_, ()>(true)).unwrap();
            }
        }
    }

    impl Work for Answering {
        type Job = (usize, Sender<usize>);

        fn run(&mut self, (number, answer): Self::Job, waiting: &Receiver<Self::Job>, stage: &Stage) {
            assert_eq!(stage.is_loaded(), self.is_loaded);
            self.load(stage);
            answer.send(number).unwrap();
            // As embeddings do, whose batches take what waits.
            if let Ok((number, answer)) = waiting.try_recv() {
                answer.send(number).unwrap();
            }
        }

        fn preload(&mut self, stage: &Stage) {
            assert!(stage.is_loading());
            self.load(stage);
        }

        fn free(&mut self) {
            self.is_loaded = false;
        }
    }

    fn check(preload: bool) {
        let (alive, ended) = mpsc::channel();
        let work = Answering { is_loaded: false, _alive: alive };
        let model = ModelThread::start("model", work, Some(Duration::from_secs(1)), preload).unwrap();
        let model = Arc::new(model);
        let clients: Vec<_> = [1, 2]
            .into_iter()
            .map(|client| {
                let model = Arc::clone(&model);
                thread::spawn(move || {
                    for number in [client, 10 * client] {
                        let (answer, answered) = mpsc::channel();
                        model.send((number, answer)).unwrap();
                        assert_eq!(answered.recv(), Ok(number));
                        // Nobody answers twice.
                        assert!(answered.recv().is_err());
                    }
                })
            })
            .collect();
        for client in clients {
            client.join().unwrap();
        }
        let stage = model.stage.clone();
        drop(model);
        assert!(ended.recv().is_err());
        assert!(!stage.is_loading());
    }

    #[test]
    fn each_job_is_answered_once_and_the_thread_ends() {
        for preload in [false, true] {
            shuttle::check_random(move || check(preload), SCHEDULES);
            shuttle::check_pct(move || check(preload), SCHEDULES, PREEMPTIONS);
        }
    }
}
