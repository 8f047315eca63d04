//! Lets ranks meet, among strangers and with other secrets.

use super::{at, listener};
use altclip_training::Result;
use altclip_training::parallel::{Communicator, Rendezvous, Secret};
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

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
        // They were refused at once.
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
