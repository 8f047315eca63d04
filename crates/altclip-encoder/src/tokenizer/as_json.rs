//! Makes a `tokenizer.json` of any tokenizer, for programs that read nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model_files::config::without_byte_order_mark;
use model_files::in_folder;
use model_files::source::ModelSource;
use serde_json::{Map, Value, json};

use super::declared::Declared;
use super::load::{
    BPE_FILE, MERGES_FILE, SENTENCEPIECE_FILE, SIGLIP_FILE, TOKENIZER_JSON_FILE, WORDPIECE_FILE,
};
use super::sentencepiece::{ModelProto, PieceType};
use super::special_tokens::SpecialTokens;
use super::{Tokenizer, bert, clip, gemma, xlm_roberta};
use crate::{Error, Result};

/// A tokenizer for other programs.
pub(crate) struct TokenizerJson {
    /// A `tokenizer.json`.
    pub json: Value,
    /// The token of padding.
    pub pad_token: String,
    /// How a text is cleaned before, in open_clip's words, if it is.
    pub clean: Option<&'static str>,
}

impl TokenizerJson {
    /// Reads the tokenizer in a model's folder: its `tokenizer.json`, or one that is made of SentencePiece's file for
    /// XLM-R, of `vocab.txt`, or of `vocab.json` and `merges.txt`. It gives this project's ids, also around a text.
    ///
    /// # Errors
    /// If there are none of these files, or one is damaged.
    pub(crate) fn read(source: &ModelSource, folder: &str) -> Result<Self> {
        let tokenizer = Tokenizer::from_source(source, folder)?;
        let declared = Declared::read(source, folder)?;
        let is_gemma = gemma::CLASSES.contains(&declared.class.as_str());
        let is_siglip = source.read_optional(&in_folder(folder, SIGLIP_FILE))?.is_some() && !is_gemma;
        let (mut json, name) = read(source, folder, &declared)?;
        let special = |id: u32| -> Result<(String, u32)> {
            let tokens = json["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
            let token = tokens.iter().find(|token| token["id"] == id);
            let text = token.and_then(|token| token["content"].as_str());
            let problem = || format!("expected the special token {id} among the added tokens, found none");
            text.map(|text| (text.to_owned(), id)).ok_or_else(|| Error::format(&name, problem()))
        };
        let (pad_token, _) = special(tokenizer.pad_id())?;
        let before = tokenizer.bos_id().map(special).transpose()?;
        let after = special(tokenizer.eos_id())?;
        if let Some(fields) = json.as_object_mut() {
            fields.insert("post_processor".to_owned(), post_processor(before, after));
        }
        // SigLIP's texts have neither case nor punctuation.
        Ok(Self { json, pad_token, clean: is_siglip.then_some("canonicalize") })
    }
}

/// The `tokenizer.json`, and the name of the file that it comes from.
fn read(source: &ModelSource, folder: &str, declared: &Declared) -> Result<(Value, String)> {
    let read = |file: &str| source.read_optional(&in_folder(folder, file));
    if let Some(data) = read(TOKENIZER_JSON_FILE)? {
        let mut json: Value = serde_json::from_slice(without_byte_order_mark(&data))
            .map_err(|error| Error::format(data.name(), format!("expected a tokenizer.json: {error}")))?;
        if gemma::CLASSES.contains(&declared.class.as_str()) {
            lowercase(&mut json);
        }
        return Ok((json, data.name().to_owned()));
    }
    if let Some(data) = read(SENTENCEPIECE_FILE)? {
        let json = unigram(&data, data.name())?;
        let pieces = json["model"]["vocab"].as_array().map_or(0, Vec::len);
        let id = |token: &str| match token {
            xlm_roberta::MASK => u32::try_from(pieces.saturating_sub(1)).ok(),
            _ => xlm_roberta::SPECIAL_IDS.iter().find(|(text, _)| *text == token).map(|(_, id)| *id),
        };
        return Ok((with_special(json, &xlm_roberta::SPECIAL_TOKENS, declared, id), data.name().to_owned()));
    }
    let (json, family, name) = if let Some(data) = read(WORDPIECE_FILE)? {
        let json = bert::tokenizer_json(&data, declared, data.name())?;
        (json, &bert::SPECIAL_TOKENS, data.name().to_owned())
    } else if let Some(data) = read(BPE_FILE)? {
        let merges = source.read(&in_folder(folder, MERGES_FILE))?;
        let json = clip::tokenizer_json(&data, &merges, (data.name(), merges.name()))?;
        (json, &clip::SPECIAL_TOKENS, data.name().to_owned())
    } else {
        return Err(source.missing(&in_folder(folder, TOKENIZER_JSON_FILE)).into());
    };
    let vocabulary = json["model"]["vocab"].clone();
    let id = |token: &str| vocabulary[token].as_u64().and_then(|id| u32::try_from(id).ok());
    Ok((with_special(json, family, declared, id), name))
}

/// Lower-cases text before all else.
fn lowercase(json: &mut Value) {
    let Some(fields) = json.as_object_mut() else { return };
    let own = fields.remove("normalizer").filter(|step| !step.is_null());
    let steps: Vec<Value> = [json!({"type": "Lowercase"})].into_iter().chain(own).collect();
    fields.insert("normalizer".to_owned(), json!({"type": "Sequence", "normalizers": steps}));
}

/// XLM-R's pieces in fairseq's order, in SentencePiece's model of words.
fn unigram(bytes: &[u8], name: &str) -> Result<Value> {
    let model = ModelProto::parse(bytes, name)?;
    let [_, _, _, pieces @ ..] = model.pieces.as_slice() else {
        return Err(Error::format(name, "expected <unk>, <s>, </s> and pieces, found fewer than three"));
    };
    if let Some(piece) = pieces.iter().find(|piece| piece.r#type() != PieceType::Normal) {
        let problem = format!(
            "the piece {:?} is special, expected a tokenizer.json, which can say so, beside it",
            piece.piece()
        );
        return Err(Error::format(name, problem));
    }
    let special = |token: &str| json!([token, 0.]);
    let mut vocabulary: Vec<Value> =
        xlm_roberta::SPECIAL_IDS.iter().map(|(token, _)| special(token)).collect();
    vocabulary.extend(pieces.iter().map(|piece| json!([piece.piece(), piece.score()])));
    vocabulary.push(special(xlm_roberta::MASK));
    let rules = model.normalizer_spec.as_ref().map_or(&[][..], |spec| spec.precompiled_charsmap());
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}),
        json!({"type": "Strip", "strip_left": true, "strip_right": true}),
    ];
    if !rules.is_empty() {
        let rules = STANDARD.encode(rules);
        steps.insert(0, json!({"type": "Precompiled", "precompiled_charsmap": rules}));
    }
    let words = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    Ok(json!({
        "version": "1.0",
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": words,
        "decoder": words,
        "model": {
            "type": "Unigram",
            "unk_id": xlm_roberta::UNK_ID,
            "vocab": vocabulary,
            "byte_fallback": false,
        },
    }))
}

/// Adds the special tokens of a family, whose ids `id` knows.
fn with_special(
    mut json: Value,
    family: &SpecialTokens,
    declared: &Declared,
    id: impl Fn(&str) -> Option<u32>,
) -> Value {
    let texts = family.tokens.iter().map(|(role, _)| family.text(declared, role));
    let mut tokens: Vec<(u32, &str)> = texts.filter_map(|token| Some((id(token)?, token))).collect();
    tokens.sort_unstable();
    tokens.dedup();
    let added = tokens.into_iter().map(|(id, token)| {
        json!({
            "id": id,
            "content": token,
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": false,
            "special": true,
        })
    });
    json["added_tokens"] = added.collect();
    json
}

/// Puts special tokens around each text.
fn post_processor(before: Option<(String, u32)>, after: (String, u32)) -> Value {
    let token = |(text, _): &(String, u32), kind: u32| json!({"SpecialToken": {"id": text, "type_id": kind}});
    let sequence =
        |name: &str, kind: u32| [json!({"Sequence": {"id": name, "type_id": kind}}), token(&after, kind)];
    let start = before.as_ref().map(|before| token(before, 0));
    let single: Vec<Value> = start.into_iter().chain(sequence("A", 0)).collect();
    let pair: Vec<Value> = single.iter().cloned().chain(sequence("B", 1)).collect();
    let described = before.iter().chain([&after]);
    let special: Map<String, Value> = described
        .map(|(text, id)| (text.clone(), json!({"id": text, "ids": [id], "tokens": [text]})))
        .collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special})
}
