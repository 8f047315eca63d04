//! Tests columns with nulls: each vector is at its row in the caller's buffer, and nulls and errors are at theirs.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, LazyLock};

use altclip_encoder::{Embedder, Error, ErrorKind, RowOutcome};
use candle_core::{DType, Device};
use model_files::source::ModelSource;
use proptest::prelude::*;
use test_support::{copy_directory, golden};

/// A token with an id but no row in the model's embedding.
const WITHOUT_EMBEDDING: &str = "<nowhere>";

/// The largest relative distance between vectors of the same text in different batches.
const SAME: f32 = 1e-6;

/// A model with a token that cannot be embedded.
static EMBEDDER: LazyLock<Arc<Embedder>> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    copy_directory(&golden("dual_encoders/clip"), directory.path()).unwrap();
    let added = format!(r#"{{"{WITHOUT_EMBEDDING}": 90000}}"#);
    fs::write(directory.path().join("added_tokens.json"), added).unwrap();
    let source = ModelSource::directory(directory.path());
    Arc::new(Embedder::from_source(&source, DType::F32, &Device::Cpu).unwrap())
});

/// The vectors of the rows that have one, by index.
fn listed(rows: &[Option<String>]) -> BTreeMap<usize, Vec<f32>> {
    let good = |text: &str| !text.contains(WITHOUT_EMBEDDING);
    let texts =
        rows.iter().enumerate().filter_map(|(at, row)| Some((at, row.as_deref().filter(|t| good(t))?)));
    let (places, texts): (Vec<usize>, Vec<&str>) = texts.unzip();
    let vectors = EMBEDDER.embed_texts(&texts).unwrap().to_vec2::<f32>().unwrap();
    places.into_iter().zip(vectors).collect()
}

/// Checks that each row has the list's vector, up to `tolerance`, or zeros and a reason.
fn check(rows: &[Option<String>], outcomes: &[&RowOutcome], vectors: &[f32], tolerance: f32) {
    let listed = listed(rows);
    assert_eq!(outcomes.len(), rows.len());
    let vectors = vectors.chunks_exact(EMBEDDER.projection_dim());
    for (place, ((row, outcome), vector)) in rows.iter().zip(outcomes).zip(vectors).enumerate() {
        match (outcome, row) {
            (RowOutcome::Embedded, Some(_)) => {
                let expected = &listed[&place];
                let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
                let distance = norm(&mut vector.iter().zip(expected).map(|(a, b)| a - b));
                assert!(distance <= tolerance * norm(&mut expected.iter().copied()), "{place}: {distance:e}");
                continue;
            }
            (RowOutcome::Null, None) => {}
            (RowOutcome::Failed(error), Some(text)) => {
                assert!(text.contains(WITHOUT_EMBEDDING), "{text:?}: {error}");
                assert!(
                    matches!(error, Error::Tokenizer(_)) && error.kind() == ErrorKind::Input,
                    "{error:?}"
                );
            }
            other => panic!("{place}: {other:?}"),
        }
        assert!(vector.iter().all(|&x| x == 0.), "{place}: {outcome:?}");
    }
}

fn rows(most: usize) -> impl Strategy<Value = Vec<Option<String>>> {
    let text = prop_oneof![
        4 => "\\PC{0,12}",
        2 => "(一只|猫|a |red |apple|dog){0,30}",
        1 => Just(format!("a {WITHOUT_EMBEDDING} here")),
    ];
    proptest::collection::vec(proptest::option::weighted(0.8, text), 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_row_is_in_its_place(rows in rows(60)) {
        // Earlier contents of the buffer do not matter.
        let mut vectors = vec![f32::NAN; rows.len() * EMBEDDER.projection_dim()];
        let outcomes = EMBEDDER.embed_into(rows.iter().map(Option::as_deref), &mut vectors).unwrap();
        // The same texts in the same batches give the same bits.
        check(&rows, &outcomes.iter().collect::<Vec<_>>(), &vectors, 0.);
    }

    #[test]
    fn streams_give_keys_back_with_their_rows(rows in rows(60), room in 1usize..70) {
        let keyed: Vec<(String, Option<String>)> =
            rows.iter().enumerate().map(|(at, row)| (format!("row {at}"), row.clone())).collect();
        let mut stream = EMBEDDER.row_stream(keyed.into_iter());
        // On another thread: the stream borrows nothing.
        let (outcomes, vectors) = std::thread::spawn(move || {
            let (mut outcomes, mut vectors) = (Vec::new(), Vec::new());
            let mut buffer = vec![f32::NAN; room * EMBEDDER.projection_dim()];
            loop {
                let found = stream.embed_into(&mut buffer);
                if found.is_empty() {
                    return (outcomes, vectors);
                }
                assert!(found.len() <= room);
                vectors.extend_from_slice(&buffer[..found.len() * EMBEDDER.projection_dim()]);
                outcomes.extend(found);
            }
        }).join().unwrap();
        for (at, (key, _)) in outcomes.iter().enumerate() {
            prop_assert_eq!(key, &format!("row {at}"));
        }
        check(&rows, &outcomes.iter().map(|(_, outcome)| outcome).collect::<Vec<_>>(), &vectors, SAME);
    }
}

#[test]
fn many_rows_go_through_in_windows() {
    let text = |i: usize| ["一只猫", "a red apple ", "", "dog "][i % 4].repeat(i * 7 % 5);
    let rows: Vec<Option<String>> = (0..5000).map(|i| (i % 11 != 3).then(|| text(i))).collect();
    let dim = EMBEDDER.projection_dim();
    let mut vectors = vec![0.; rows.len() * dim];
    let outcomes = EMBEDDER.embed_into(rows.iter().map(Option::as_deref), &mut vectors).unwrap();
    check(&rows, &outcomes.iter().collect::<Vec<_>>(), &vectors, SAME);

    let mut stream = EMBEDDER.row_stream(rows.clone().into_iter().enumerate());
    let mut streamed = vec![0.; rows.len() * dim];
    let found = stream.embed_into(&mut streamed);
    assert!(found.iter().map(|(key, _)| *key).eq(0..rows.len()));
    assert_eq!(streamed, vectors);
    assert!(stream.embed_into(&mut streamed).is_empty());
    assert!(stream.embed_into(&mut []).is_empty());
}

#[test]
fn a_buffer_of_another_size_is_the_callers_error_and_left_alone() {
    let dim = EMBEDDER.projection_dim();
    for length in [0, dim, 2 * dim - 1, 2 * dim + 1, 3 * dim] {
        let mut vectors = vec![7.; length];
        let error = EMBEDDER.embed_into([Some("a"), None], &mut vectors).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Input);
        assert!(error.to_string().contains(&format!("2 rows × {dim} numbers, found {length}")), "{error}");
        assert!(vectors.iter().all(|&x| x == 7.));
    }
    assert!(EMBEDDER.embed_into([], &mut []).unwrap().is_empty());
}

#[test]
fn embedders_and_streams_go_to_other_threads() {
    fn sendable<T: Send + 'static>(_: &T) {}
    fn shareable<T: Send + Sync + Clone + 'static>(_: &T) {}
    shareable(&**EMBEDDER);
    sendable(&EMBEDDER.text_stream(std::iter::once("a".to_owned())));
    sendable(&EMBEDDER.row_stream(std::iter::once((7, Some(Arc::<str>::from("a"))))));
    sendable(&EMBEDDER.image_stream(std::iter::empty::<std::path::PathBuf>()));
}
