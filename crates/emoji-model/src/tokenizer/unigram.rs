//! Trains a SentencePiece unigram model, so that this project's model has a tokenizer file like the published ones.
//!
//! Kudo, "Subword Regularization: Improving Neural Network Translation Models with Multiple Subword Candidates"
//! (2018), following SentencePiece's trainer: start with every frequent substring, fit their probabilities by
//! expectation maximisation, drop the quarter that costs the least likelihood, and repeat until few enough are left.
//! All characters are kept. Unlike other implementations, the result is the same for the same texts, byte for byte,
//! on any number of threads.

use std::collections::{BTreeMap, BTreeSet};

use altclip_encoder::tokenizer::sentencepiece::{
    ModelProto, ModelType, NormalizerSpec, PieceType, SentencePiece, TrainerSpec,
};
use prost::{DecodeError, Message};

use super::em::{self, CandidatePiece};
use super::error::UnigramError;
use super::{seeds, words};

/// The normalisation rules of the published models' tokenizers, which also turn traditional Chinese characters into
/// simplified ones, if no other language has them; see the README beside the file.
const RULES: &[u8] = include_bytes!("../../data/nmt_nfkc_hans.charsmap");
const RULES_NAME: &str = "nmt_nfkc_hans";

/// The first pieces, which text never produces.
const SPECIAL_PIECES: [(&str, PieceType); 3] =
    [("<unk>", PieceType::Unknown), ("<s>", PieceType::Control), ("</s>", PieceType::Control)];
/// Pruning stops at this multiple of the requested size; the rest is cut by probability.
const OVERSHOOT: f64 = 1.1;
/// Rounds of expectation maximisation between prunings.
const ROUNDS: usize = 2;

/// Trains a unigram model of at most `vocab_size` pieces (including `<unk>`, `<s>` and `</s>`) and returns a file
/// that SentencePiece and [`Tokenizer::from_sentencepiece_bytes`] read.
///
/// Repeated texts count repeatedly. Words are split where scripts change and around punctuation, so that no piece
/// spans them, and the space mark is kept apart from scripts without spaces.
///
/// [`Tokenizer::from_sentencepiece_bytes`]: altclip_encoder::tokenizer::Tokenizer::from_sentencepiece_bytes
///
/// # Errors
///
/// If all texts are blank, or `vocab_size` is less than the number of distinct characters and special pieces.
pub fn train_unigram(
    texts: impl IntoIterator<Item = String>,
    vocab_size: usize,
) -> Result<Vec<u8>, UnigramError> {
    let normalizer_spec = rules();
    let words = words::count(texts, &normalizer_spec)?;
    let characters: BTreeSet<char> = words.iter().flat_map(|word| word.text.chars()).collect();
    if characters.is_empty() {
        return Err(UnigramError::NoText);
    }
    let needed = SPECIAL_PIECES.len() + characters.len();
    if needed > vocab_size {
        return Err(UnigramError::VocabularyTooSmall { needed, asked: vocab_size });
    }

    let wanted = vocab_size - SPECIAL_PIECES.len();
    let enough = (wanted as f64 * OVERSHOOT) as usize;
    let mut pieces = seeds::pieces(&words);
    loop {
        for _ in 0..ROUNDS {
            pieces = em::round(&words, pieces);
        }
        if pieces.len() <= enough {
            break;
        }
        let before = pieces.len();
        pieces = em::prune(&words, pieces, enough);
        if pieces.len() == before {
            break;
        }
    }
    Ok(model(most_probable(pieces, &characters, wanted), normalizer_spec).encode_to_vec())
}

/// A model with the same pieces, but the rules that [`train_unigram`] gives one today.
///
/// # Errors
/// If the model cannot be read.
pub(crate) fn with_todays_rules(model: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut model = ModelProto::decode(model)?;
    model.normalizer_spec = Some(rules());
    Ok(model.encode_to_vec())
}

fn rules() -> NormalizerSpec {
    NormalizerSpec {
        name: Some(RULES_NAME.to_owned()),
        precompiled_charsmap: Some(RULES.to_vec()),
        add_dummy_prefix: Some(true),
        remove_extra_whitespaces: Some(true),
        escape_whitespaces: Some(true),
    }
}

/// All characters and the most probable longer pieces, in descending order.
fn most_probable(
    pieces: Vec<CandidatePiece>,
    characters: &BTreeSet<char>,
    wanted: usize,
) -> Vec<CandidatePiece> {
    let lowest = pieces.iter().map(|piece| piece.score).fold(0.0, f64::min);
    let (mut single, mut longer): (BTreeMap<String, f64>, Vec<CandidatePiece>) =
        (BTreeMap::new(), Vec::new());
    for character in characters {
        single.insert(character.to_string(), lowest);
    }
    for piece in pieces {
        match single.get_mut(&piece.text) {
            Some(score) => *score = piece.score,
            None => longer.push(piece),
        }
    }
    longer.sort_by(by_probability);
    longer.truncate(wanted.saturating_sub(single.len()));
    longer.extend(single.into_iter().map(|(text, score)| CandidatePiece { text, score }));
    longer.sort_by(by_probability);
    longer
}

/// Descending by probability, then by text.
fn by_probability(a: &CandidatePiece, b: &CandidatePiece) -> std::cmp::Ordering {
    b.score.total_cmp(&a.score).then_with(|| a.text.cmp(&b.text))
}

fn model(pieces: Vec<CandidatePiece>, normalizer_spec: NormalizerSpec) -> ModelProto {
    let special = SPECIAL_PIECES.iter().map(|&(text, kind)| (text.to_owned(), 0.0, kind));
    let learned = pieces.into_iter().map(|piece| (piece.text, piece.score as f32, PieceType::Normal));
    let pieces: Vec<SentencePiece> = special
        .chain(learned)
        .map(|(text, score, kind)| SentencePiece {
            piece: Some(text),
            score: Some(score),
            r#type: Some(kind as i32),
        })
        .collect();
    let trainer_spec = TrainerSpec {
        model_type: Some(ModelType::Unigram as i32),
        vocab_size: i32::try_from(pieces.len()).ok(),
        character_coverage: Some(1.0),
        max_sentencepiece_length: i32::try_from(seeds::MAX_LENGTH).ok(),
        treat_whitespace_as_suffix: Some(false),
        byte_fallback: Some(false),
        unk_id: Some(0),
        bos_id: Some(1),
        eos_id: Some(2),
        pad_id: Some(-1),
    };
    ModelProto { pieces, trainer_spec: Some(trainer_spec), normalizer_spec: Some(normalizer_spec) }
}

#[cfg(test)]
mod tests {
    use altclip_encoder::tokenizer::Tokenizer;

    use super::{ModelProto, UnigramError, train_unigram};
    use prost::Message;

    fn texts() -> Vec<String> {
        let animals = ["cat", "dog", "red panda", "猫", "小狗", "红熊猫", "T恤", "café"];
        let phrases = ["a picture of a {}", "a cute {}", "{}", "{}!"];
        let filled = animals.iter().flat_map(|animal| phrases.map(|phrase| phrase.replace("{}", animal)));
        filled.cycle().take(300).collect()
    }

    #[test]
    fn the_same_texts_give_the_same_bytes() {
        let model = train_unigram(texts(), 60).unwrap();
        let reversed: Vec<String> = texts().into_iter().rev().collect();
        assert_eq!(train_unigram(reversed, 60).unwrap(), model);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(pool.install(|| train_unigram(texts(), 60)).unwrap(), model);
    }

    #[test]
    fn frequent_words_are_pieces_and_every_character_is_known() {
        let bytes = train_unigram(texts(), 60).unwrap();
        let model = ModelProto::decode(bytes.as_slice()).unwrap();
        assert!(model.pieces.len() <= 60);
        let pieces: Vec<&str> = model.pieces.iter().map(|piece| piece.piece()).collect();
        for piece in ["\u{2581}picture", "\u{2581}of", "\u{2581}a", "猫", "恤", "é", "!"] {
            assert!(pieces.contains(&piece), "{piece} is not in {pieces:?}");
        }
        assert!(!pieces.iter().any(|piece| piece.contains('猫') && piece.contains('\u{2581}')));
        let scores: Vec<f32> = model.pieces.iter().skip(3).map(|piece| piece.score()).collect();
        assert!(scores.is_sorted_by(|a, b| a >= b) && scores.iter().all(|&score| score < 0.0));

        let tokenizer = Tokenizer::from_sentencepiece_bytes(&bytes, "trained").unwrap();
        for text in texts() {
            let ids = tokenizer.encode(&text).unwrap();
            assert!(!ids.contains(&3), "{text}: {ids:?}");
        }
        assert!(tokenizer.encode("狼").unwrap().contains(&3));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert!(matches!(train_unigram([" ".to_owned()], 100), Err(UnigramError::NoText)));
        let error = train_unigram(["abc".to_owned()], 6).unwrap_err();
        assert!(matches!(error, UnigramError::VocabularyTooSmall { needed: 7, asked: 6 }), "{error}");
        assert!(train_unigram(["abc".to_owned()], 7).is_ok());
    }
}
