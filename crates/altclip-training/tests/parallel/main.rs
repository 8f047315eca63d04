//! Runs ranks in threads that communicate over sockets: their results, and how they end when one of them does.

#[path = "../common/mod.rs"]
mod common;
mod exchanges;
mod meeting;
mod runs;

use altclip_training::parallel::{Rendezvous, Sockets};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

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
