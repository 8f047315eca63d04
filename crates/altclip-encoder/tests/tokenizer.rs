//! Compares the tokenizer with transformers' slow `XLMRobertaTokenizer`, and rejects damaged files.

use altclip_encoder::tokenizer::sentencepiece::{
    ModelProto, NormalizerSpec, PieceType, SentencePiece, TrainerSpec,
};
use altclip_encoder::tokenizer::{Normalizer, PROMPT_TOKENS, Tokenizer};
use model_files::source::ModelSource;
use proptest::prelude::*;
use prost::Message;
use serde::Deserialize;
use test_support::{golden, golden_json};

/// A text in `tests/golden/tokenizer/cases.json`.
#[derive(Deserialize)]
struct Case {
    text: String,
    /// Padded or truncated to 77.
    input_ids: Vec<u32>,
    ids_untruncated: Vec<u32>,
    /// The ids of transformers' fast tokenizer, if different.
    fast_ids_untruncated: Option<Vec<u32>>,
}

fn cases() -> Vec<Case> {
    golden_json("tokenizer/cases.json")
}

fn model_bytes() -> Vec<u8> {
    std::fs::read(golden("tokenizer/sentencepiece.bpe.model")).unwrap()
}

#[test]
fn ids_are_those_of_the_slow_tokenizer() {
    let tokenizer = Tokenizer::from_sentencepiece(golden("tokenizer/sentencepiece.bpe.model")).unwrap();
    for case in cases() {
        assert_eq!(tokenizer.encode(&case.text).unwrap(), case.ids_untruncated, "{:?}", case.text);
    }
    assert_eq!(tokenizer.vocab_size(), 3002);
    assert_eq!(tokenizer.pad_id(), 1);
}

#[test]
fn prompts_are_cut_and_filled_up() {
    let tokenizer = Tokenizer::from_source(&ModelSource::directory(golden("")), "tokenizer").unwrap();
    let cases = cases();
    let texts: Vec<&str> = cases.iter().map(|case| case.text.as_str()).collect();
    let encoding = tokenizer.encode_padded(&texts, PROMPT_TOKENS).unwrap();
    let ids: Vec<Vec<u32>> = encoding.input_ids.to_vec2().unwrap();
    let mask: Vec<Vec<u32>> = encoding.attention_mask.to_vec2().unwrap();
    for ((case, ids), mask) in cases.iter().zip(&ids).zip(&mask) {
        assert_eq!(ids, &case.input_ids, "{:?}", case.text);
        let tokens = case.ids_untruncated.len().min(PROMPT_TOKENS);
        let expected: Vec<u32> = (0..PROMPT_TOKENS).map(|at| u32::from(at < tokens)).collect();
        assert_eq!(mask, &expected, "{:?}", case.text);
    }

    let short = tokenizer.encode_batch_padded(&["一只猫", ""], PROMPT_TOKENS).unwrap();
    assert_eq!(short.input_ids.to_vec2::<u32>().unwrap()[1][..3], [0, 2, 1]);
    assert_eq!(short.input_ids.dims(), [2, tokenizer.encode("一只猫").unwrap().len()]);
    assert_eq!(tokenizer.encode_padded::<&str>(&[], 77).unwrap().input_ids.dims(), [0, 77]);
    assert!(tokenizer.encode_padded(&["a"], 1).is_err());
}

#[test]
fn tokenizer_json_gives_the_ids_of_the_fast_tokenizer() {
    let tokenizer = Tokenizer::from_source(&ModelSource::directory(golden("")), "tokenizer_json").unwrap();
    for case in cases() {
        let expected = case.fast_ids_untruncated.unwrap_or(case.ids_untruncated);
        assert_eq!(tokenizer.encode(&case.text).unwrap(), expected, "{:?}", case.text);
    }
}

#[test]
fn missing_files_are_named() {
    let error = Tokenizer::from_source(&ModelSource::directory(golden("")), "vae").unwrap_err().to_string();
    let files = "vae/sentencepiece.bpe.model, vae/spiece.model, vae/vocab.txt, vae/vocab_zh.txt, vae/vocab.json or vae/tokenizer.json";
    assert!(error.contains(files), "{error}");
}

fn piece(text: &str, score: f32, kind: PieceType) -> SentencePiece {
    SentencePiece { piece: Some(text.to_owned()), score: Some(score), r#type: Some(kind as i32) }
}

/// A small model without replacement rules.
fn small_model() -> ModelProto {
    use PieceType::{Control, Normal, Unknown, Unused, UserDefined};
    ModelProto {
        pieces: vec![
            piece("<unk>", 0.0, Unknown),
            piece("<s>", 0.0, Control),
            piece("</s>", 0.0, Control),
            piece("\u{2581}", -3.0, Normal),
            piece("a", -2.0, Normal),
            piece("b", -2.0, Normal),
            piece("ab", -4.0, Normal),
            piece("ba", -4.0, Normal),
            piece("[x]", -1.0, UserDefined),
            piece("c", -1.0, Unused),
        ],
        trainer_spec: Some(TrainerSpec::default()),
        normalizer_spec: Some(NormalizerSpec::default()),
    }
}

fn ids(model: &ModelProto, text: &str) -> Vec<u32> {
    let tokenizer = Tokenizer::from_sentencepiece_bytes(&model.encode_to_vec(), "test.model").unwrap();
    let ids = tokenizer.encode(text).unwrap();
    ids[1..ids.len() - 1].to_vec()
}

/// Checked against the reference implementation with this exact model.
#[test]
fn ties_user_defined_and_unused_pieces() {
    let model = small_model();
    // "a" + "b" scores the same as "ab", and "ab" + "a" as "a" + "ba": the first found wins.
    assert_eq!(ids(&model, "ab"), [4, 7]);
    assert_eq!(ids(&model, "aba"), [4, 5, 8]);
    assert_eq!(ids(&model, "a[x]b"), [4, 5, 9, 6]);
    // A run of unknown characters is one token; alone it may spell a piece that text cannot produce.
    assert_eq!(ids(&model, "xyz"), [4, 3]);
    assert_eq!(ids(&model, "c"), [4, 10]);
    assert_eq!(ids(&model, "cx"), [4, 3]);
}

#[test]
fn models_of_another_kind_are_refused() {
    type Change<'a> = &'a dyn Fn(&mut ModelProto);
    let name = "test.model";
    let refused = |change: Change| {
        let mut model = small_model();
        change(&mut model);
        Tokenizer::from_sentencepiece_bytes(&model.encode_to_vec(), name).unwrap_err().to_string()
    };
    let expected: [(Change, &str); 8] = [
        (&|model| model.pieces.clear(), "expected an unknown piece"),
        (&|model| model.pieces[4].score = Some(f32::NAN), "piece 4: expected a finite score, found NaN"),
        (
            &|model| model.pieces[5].piece = Some("a".into()),
            "piece 5: expected every piece once, found a again",
        ),
        (&|model| model.pieces[5].piece = None, "piece 5: expected a text"),
        (&|model| model.pieces[5].r#type = Some(2), "piece 5: expected one unknown piece"),
        (
            &|model| model.trainer_spec.as_mut().unwrap().model_type = Some(2),
            "expected a unigram model, found model type Bpe",
        ),
        (
            &|model| model.trainer_spec.as_mut().unwrap().byte_fallback = Some(true),
            "expected a piece for every byte",
        ),
        (
            &|model| model.normalizer_spec.as_mut().unwrap().precompiled_charsmap = Some(vec![255; 9]),
            "precompiled_charsmap: expected a trie",
        ),
    ];
    for (change, problem) in expected {
        let error = refused(change);
        assert!(error.starts_with(name) && error.contains(problem), "{error}");
    }
}

#[test]
fn long_texts_take_linear_time() {
    let tokenizer = Tokenizer::from_sentencepiece_bytes(&model_bytes(), "golden").unwrap();
    let text = "一只戴帽子的小狗 a picture of a dog ".repeat(20_000);
    let start = std::time::Instant::now();
    assert!(tokenizer.encode(&text).unwrap().len() > 100_000);
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

proptest! {
    #[test]
    fn any_text_becomes_known_ids(text in "\\PC*|[\\s\\S]{0,40}|(<s>|<mask>| |\u{2581}|a|猫|<){0,8}") {
        let tokenizer = Tokenizer::from_sentencepiece_bytes(&model_bytes(), "golden").unwrap();
        let ids = tokenizer.encode_truncated(&text, PROMPT_TOKENS).unwrap();
        prop_assert!(ids.len() <= PROMPT_TOKENS);
        prop_assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        prop_assert_eq!((ids.first(), ids.last()), (Some(&0), Some(&2)));
    }

    #[test]
    fn damaged_files_are_refused_or_work(
        at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        length in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = model_bytes();
        for (index, value) in at {
            let place = index.index(bytes.len());
            bytes[place] = value;
        }
        if cut {
            bytes.truncate(length.index(bytes.len()));
        }
        match Tokenizer::from_sentencepiece_bytes(&bytes, "damaged.model") {
            Ok(tokenizer) => { tokenizer.encode("一只猫 a ｶﾞ <mask> x\u{85}").unwrap(); }
            Err(error) => prop_assert!(error.to_string().starts_with("damaged.model")),
        }
    }

    #[test]
    fn any_rules_can_be_applied(
        random in proptest::collection::vec(any::<u32>(), 512),
        text in "\\PC*",
    ) {
        let normalizer = Normalizer::from_spec(&rules(&inside_the_trie(&random)), "random rules").unwrap();
        normalizer.normalize(&text, &mut Vec::new());
    }

    #[test]
    fn rules_of_random_units_are_refused_or_applied(
        units in proptest::collection::vec(any::<u32>(), 1..600),
        text in "\\PC*",
    ) {
        match Normalizer::from_spec(&rules(&units), "random rules") {
            Ok(normalizer) => normalizer.normalize(&text, &mut Vec::new()),
            Err(error) => prop_assert!(error.to_string().starts_with("random rules: precompiled_charsmap: ")),
        }
    }
}

/// Rules with these units, and replacements of at most one letter or space.
fn rules(units: &[u32]) -> NormalizerSpec {
    let mut charsmap = (units.len() as u32 * 4).to_le_bytes().to_vec();
    charsmap.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    charsmap.extend(b"x\0 \0\0");
    NormalizerSpec { precompiled_charsmap: Some(charsmap), ..NormalizerSpec::default() }
}

/// Units, a power of two of them, with random labels, children inside the trie, and values that are replacements.
fn inside_the_trie(random: &[u32]) -> Vec<u32> {
    const IS_VALUE: u32 = 1 << 31;
    const HAS_VALUE: u32 = 1 << 8;
    let most = random.len() as u32 - 1;
    let mut units: Vec<u32> = random
        .iter()
        .map(|random| match random & IS_VALUE {
            0 => (random >> 9 & most) << 10 | random & (HAS_VALUE | 0xFF),
            _ => IS_VALUE | (random % 5),
        })
        .collect();
    units[0] = (1 + random[0] % most) << 10;
    for place in 0..units.len() {
        let below = place ^ (units[place] >> 10) as usize;
        if units[place] & IS_VALUE == 0 && units[below] & IS_VALUE == 0 {
            units[place] &= !HAS_VALUE;
        }
    }
    units
}
