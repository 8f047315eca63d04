//! Reads added and special tokens from the small files beside a vocabulary.
//!
//! Like transformers' `from_pretrained`: only `tokenizer_config.json` if it has an `added_tokens_decoder`, otherwise
//! together with `special_tokens_map.json` and `added_tokens.json`.

use std::collections::BTreeMap;

use model_files::config::Accepted::{Empty, Is, Text};
use model_files::config::{ConfigFile, FieldTable, parse_config, parse_json};
use model_files::source::ModelSource;
use serde::Deserialize;

use super::added::AddedToken;
use crate::Result;

const CONFIG_FILE: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";
const ADDED_TOKENS_FILE: &str = "added_tokens.json";

/// The field of a `tokenizer_config.json` with the language, and the role of its token.
pub(super) const LANGUAGE: &str = "src_lang";

/// The content of the small files.
#[derive(Debug, Clone, Default)]
pub(super) struct Declared {
    /// Added tokens by id.
    pub tokens: BTreeMap<u32, AddedToken>,
    /// Special tokens by role, such as `pad_token`.
    pub special: BTreeMap<&'static str, Special>,
    /// Special tokens without a role; some may not have an id yet.
    pub more_special: Vec<Special>,
    /// Whether special tokens typed in a text are read as plain text.
    pub as_text: bool,
    /// The longest text in tokens; a huge number if unknown.
    pub max_length: Option<f64>,
    /// The settings for `vocab.txt`.
    pub wordpiece: WordPieceConfig,
    /// The class in transformers; empty if unknown.
    pub class: String,
}

/// How BERT prepares text. Missing fields have transformers' defaults.
#[derive(Debug, Clone)]
pub(super) struct WordPieceConfig {
    pub do_lower_case: bool,
    pub tokenize_chinese_chars: bool,
    /// `None` where it follows from `do_lower_case`.
    pub strip_accents: Option<bool>,
}

impl Default for WordPieceConfig {
    fn default() -> Self {
        Self { do_lower_case: true, tokenize_chinese_chars: true, strip_accents: None }
    }
}

/// A special token: its text, or a full description.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a text, or an object with `content`")]
pub(super) enum Special {
    Text(String),
    Token(Token),
}

impl Special {
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Token(token) => &token.content,
        }
    }

    /// The token; if only its text is known, `lstrip` says whether it absorbs the white space before it.
    pub(super) fn token(&self, lstrip: bool) -> AddedToken {
        match self {
            Self::Text(text) => AddedToken { lstrip, ..AddedToken::new(text, true) },
            Self::Token(token) => AddedToken { special: true, ..token.added(true) },
        }
    }
}

/// A token as written in the files.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Token {
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl Token {
    /// Unless it says otherwise, a token is matched in normalized text if it is not special.
    fn added(&self, special: bool) -> AddedToken {
        let special = special || self.special;
        AddedToken {
            content: self.content.clone(),
            lstrip: self.lstrip,
            rstrip: self.rstrip,
            single_word: self.single_word,
            normalized: self.normalized.unwrap_or(!special),
            special,
        }
    }
}

/// `tokenizer_config.json`; `special_tokens_map.json` has a subset of its fields.
#[derive(Debug, Default, Deserialize)]
struct TokenizerConfig {
    model_max_length: Option<f64>,
    added_tokens_decoder: Option<BTreeMap<u32, Token>>,
    bos_token: Option<Special>,
    eos_token: Option<Special>,
    unk_token: Option<Special>,
    sep_token: Option<Special>,
    pad_token: Option<Special>,
    cls_token: Option<Special>,
    mask_token: Option<Special>,
    additional_special_tokens: Option<Vec<Special>>,
    extra_special_tokens: Option<ExtraTokens>,
    split_special_tokens: Option<bool>,
    do_lower_case: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    strip_accents: Option<bool>,
    tokenizer_class: Option<String>,
    src_lang: Option<String>,
}

impl ConfigFile for TokenizerConfig {
    const FIELDS: FieldTable = FieldTable {
        used: &[
            "added_tokens_decoder",
            "additional_special_tokens",
            "bos_token",
            "cls_token",
            "do_lower_case",
            "eos_token",
            "extra_special_tokens",
            "mask_token",
            "model_max_length",
            "pad_token",
            "sep_token",
            "split_special_tokens",
            "src_lang",
            "strip_accents",
            "tokenize_chinese_chars",
            "tokenizer_class",
            "unk_token",
        ],
        harmless: &[
            (
                "says where the tokenizer comes from and what Python returns",
                &[
                    "auto_map",
                    "backend",
                    "init_inputs",
                    "is_local",
                    "local_files_only",
                    "model_input_names",
                    "model_specific_special_tokens",
                    "name_or_path",
                    "processor_class",
                    "special_tokens_map_file",
                    "tokenizer_file",
                    "use_fast",
                ],
            ),
            ("names files that are found by their names", &["merges", "merges_file", "vocab", "vocab_file"]),
            (
                "is about turning ids into text",
                &["clean_up_tokenization_spaces", "errors", "spaces_between_special_tokens"],
            ),
            ("is about conversations", &["chat_template", "use_default_system_prompt"]),
            ("is for models of other families", &["add_prefix_space"]),
            ("is about translation", &["tgt_lang"]),
            (
                "is set by the caller",
                &[
                    "max_length",
                    "pad_to_multiple_of",
                    "padding",
                    "stride",
                    "truncation",
                    "truncation_strategy",
                ],
            ),
            ("is 0 in every vocabulary here", &["pad_token_type_id"]),
        ],
        fixed: &[
            ("add_bos_token", &[Is(false)]),
            ("add_eos_token", &[Is(true)]),
            ("do_basic_tokenize", &[Is(true)]),
            ("legacy_behaviour", &[Is(false)]),
            ("never_split", &[Empty]),
            ("padding_side", &[Text("right")]),
            ("sp_model_kwargs", &[Empty]),
            ("truncation_side", &[Text("right")]),
        ],
        nested: &[],
    };
}

/// Special tokens, named or not.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a list of tokens, or an object of names and tokens")]
enum ExtraTokens {
    List(Vec<Special>),
    Named(BTreeMap<String, Special>),
}

impl Declared {
    /// Reads the small files in a model's folder.
    ///
    /// # Errors
    /// If one of them is not JSON, or has an invalid field.
    pub(super) fn read(source: &ModelSource, folder: &str) -> Result<Self> {
        let path = |file: &str| if folder.is_empty() { file.to_owned() } else { format!("{folder}/{file}") };
        let read = |file: &str| -> Result<TokenizerConfig> {
            let file = source.read_optional(&path(file))?;
            Ok(file.map(|file| parse_config(&file)).transpose()?.unwrap_or_default())
        };
        let mut declared = Self::default();
        let config = read(CONFIG_FILE)?;
        declared.max_length = config.model_max_length;
        let tokens = declared.note(config);
        if let Some(tokens) = tokens {
            declared.tokens = tokens.iter().map(|(&id, token)| (id, token.added(false))).collect();
            return Ok(declared);
        }
        declared.note(read(SPECIAL_TOKENS_FILE)?);
        if let Some(file) = source.read_optional(&path(ADDED_TOKENS_FILE))? {
            let ids: BTreeMap<String, u32> = parse_json(&file)?;
            let special = |text: &str| {
                declared.special.values().chain(&declared.more_special).any(|token| token.text() == text)
            };
            let tokens = ids.iter().map(|(text, &id)| (id, AddedToken::new(text, special(text))));
            declared.tokens = tokens.collect();
        }
        Ok(declared)
    }

    /// Merges a file's fields, and returns its `added_tokens_decoder`.
    fn note(&mut self, file: TokenizerConfig) -> Option<BTreeMap<u32, Token>> {
        for (role, token) in [
            ("bos_token", file.bos_token),
            ("eos_token", file.eos_token),
            ("unk_token", file.unk_token),
            ("sep_token", file.sep_token),
            ("pad_token", file.pad_token),
            ("cls_token", file.cls_token),
            ("mask_token", file.mask_token),
        ] {
            self.special.extend(token.map(|token| (role, token)));
        }
        self.special.extend(file.src_lang.map(|language| (LANGUAGE, Special::Text(language))));
        self.more_special.extend(file.additional_special_tokens.into_iter().flatten());
        self.more_special.extend(match file.extra_special_tokens {
            Some(ExtraTokens::List(tokens)) => tokens,
            Some(ExtraTokens::Named(tokens)) => tokens.into_values().collect(),
            None => Vec::new(),
        });
        if let Some(class) = file.tokenizer_class {
            self.class = class;
        }
        self.as_text |= file.split_special_tokens.unwrap_or(false);
        let wordpiece = &mut self.wordpiece;
        wordpiece.do_lower_case = file.do_lower_case.unwrap_or(wordpiece.do_lower_case);
        wordpiece.tokenize_chinese_chars =
            file.tokenize_chinese_chars.unwrap_or(wordpiece.tokenize_chinese_chars);
        wordpiece.strip_accents = file.strip_accents.or(wordpiece.strip_accents);
        file.added_tokens_decoder
    }
}
