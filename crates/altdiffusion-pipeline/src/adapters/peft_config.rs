//! Reads an adapter's configuration as PEFT and diffusers write it: `adapter_config.json`, or the same fields as
//! `lora_adapter_metadata` in a safetensors file.

use std::collections::BTreeMap;

use model_files::config::parse_json;
use model_files::source::FileData;
use serde_json::{Map, Value};

use super::patterns::Patterns;
use crate::{Error, Result};

/// The configuration file that PEFT writes beside its weights.
pub(super) const PEFT_CONFIG: &str = "adapter_config.json";
/// The metadata key under which diffusers has stored the same fields since 0.34, each prefixed by the part's name and
/// a dot.
const METADATA_KEY: &str = "lora_adapter_metadata";

/// The largest configuration file read, in bytes.
const LONGEST_CONFIG: usize = 1 << 24;
/// The largest rank accepted; the widest layer of the published models has 10 240 columns.
pub(super) const LARGEST_RANK: usize = 1 << 14;

/// The supported values of `peft_type`.
const KINDS: [&str; 6] = ["LORA", "LOHA", "LOKR", "IA3", OFT, "BOFT"];
const OFT: &str = "OFT";

/// The terms of the Cayley-Neumann series of OFT where a configuration does not tell, and the most accepted.
const USUAL_TERMS: u64 = 5;
const MOST_TERMS: usize = 64;
/// The largest norm of COFT where a configuration does not tell.
const USUAL_LIMIT: f64 = 6e-5;
/// The first version of PEFT with today's series.
const VERSION_OF_SERIES: [u64; 2] = [0, 18];

/// How to treat a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    Used,
    /// Ignored: it concerns training only, or the tensors say the same.
    Harmless,
    /// Refused unless null, false or empty.
    Refused(&'static str),
}

/// Every field of PEFT's `LoraConfig`, `LoHaConfig`, `LoKrConfig`, `IA3Config`, `OFTConfig` and `BOFTConfig`, up to 0.21.
const FIELDS: [(&str, Treatment); 64] = {
    use Treatment::{Harmless, Refused, Used};
    [
        ("peft_type", Used),
        ("r", Used),
        ("lora_alpha", Used),
        ("alpha", Used),
        ("rank_pattern", Used),
        ("alpha_pattern", Used),
        ("use_rslora", Used),
        ("use_dora", Used),
        ("bias", Used),
        ("modules_to_save", Used),
        ("feedforward_modules", Used),
        ("init_lora_weights", Used),
        ("block_share", Used),
        ("coft", Used),
        ("eps", Used),
        ("use_cayley_neumann", Used),
        ("num_cayley_neumann_terms", Used),
        ("peft_version", Used),
        ("target_modules", Harmless),
        ("exclude_modules", Harmless),
        ("layers_to_transform", Harmless),
        ("layers_pattern", Harmless),
        ("lora_bias", Harmless),
        // PEFT resets it for linear layers and convolutions; it is for GPT-2's.
        ("fan_in_fan_out", Harmless),
        ("lora_dropout", Harmless),
        ("rank_dropout", Harmless),
        ("rank_dropout_scale", Harmless),
        ("module_dropout", Harmless),
        ("init_weights", Harmless),
        ("init_ia3_weights", Harmless),
        ("use_effective_conv2d", Harmless),
        ("decompose_both", Harmless),
        ("decompose_factor", Harmless),
        ("oft_block_size", Harmless),
        ("boft_block_size", Harmless),
        ("boft_block_num", Harmless),
        ("boft_n_butterfly_factor", Harmless),
        ("boft_dropout", Harmless),
        ("task_type", Harmless),
        ("auto_mapping", Harmless),
        ("base_model_name_or_path", Harmless),
        ("revision", Harmless),
        ("inference_mode", Harmless),
        ("runtime_config", Harmless),
        ("megatron_config", Harmless),
        ("megatron_core", Harmless),
        ("ensure_weight_tying", Harmless),
        ("qalora_group_size", Harmless),
        // How the matrices are initialised, and what training keeps in memory.
        ("eva_config", Harmless),
        ("velora_config", Harmless),
        // Depends on `init_lora_weights`.
        ("loftq_config", Harmless),
        ("corda_config", Harmless),
        ("lora_ga_config", Harmless),
        ("use_qalora", Refused("QA-LoRA, which is for weights of GPTQ")),
        ("use_bdlora", Refused("BD-LoRA, whose matrices are in blocks")),
        ("kasa_config", Refused("KaSA, which changes the base model")),
        ("monteclora_config", Refused("MonteCLoRA, which samples its matrices")),
        ("alora_invocation_tokens", Refused("Activated LoRA, which is for language models")),
        ("arrow_config", Refused("Arrow, which chooses among several LoRAs")),
        ("layer_replication", Refused("a LoRA of a model with repeated layers")),
        ("trainable_token_indices", Refused("trained rows of the word embeddings")),
        ("target_parameters", Refused("a LoRA of parameters that are no layer's weight")),
        // Fields of earlier versions.
        ("enable_lora", Refused("a LoRA of some of a merged layer's outputs")),
        ("merge_weights", Harmless),
    ]
};

/// Initialisations that subtract from the base model what they put into the matrices.
const CHANGES_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

/// The configuration of an adapter, or of its part for one model.
#[derive(Debug, Clone)]
pub(super) struct PeftConfig {
    /// Its file.
    name: String,
    rank: Option<usize>,
    alpha: Option<f64>,
    rank_pattern: Patterns<usize>,
    alpha_pattern: Patterns<f64>,
    rank_stabilized: bool,
    /// Whether every layer must have DoRA's magnitudes.
    pub uses_dora: bool,
    /// Whether some weights and biases were trained as a whole.
    pub has_whole_weights: bool,
    /// The layers whose inputs (IA)³ multiplies, instead of their outputs.
    feedforward: Patterns<bool>,
    /// How its numbers turn inputs, if it is an OFT.
    pub oft: Option<OftConfig>,
}

/// How PEFT's OFT turns inputs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct OftConfig {
    /// The terms of the Cayley-Neumann series; without it, the transform is exact.
    pub terms: Option<usize>,
    /// COFT's limit: a block's largest norm, times the root of the number of blocks.
    pub limit: Option<f64>,
    /// Whether all blocks of a layer are one.
    pub shares_block: bool,
}

impl PeftConfig {
    /// Reads `adapter_config.json`.
    ///
    /// # Errors
    /// If it is not JSON, a field's value cannot be used, or it asks for an adapter that is not supported.
    pub(super) fn from_file(file: &FileData) -> Result<Self> {
        if file.len() > LONGEST_CONFIG {
            let problem = format!("expected at most {LONGEST_CONFIG} bytes, found {}", file.len());
            return Err(Error::content(file.name(), problem));
        }
        Self::new(file.name(), &parse_json(file)?)
    }

    /// Reads the metadata of a safetensors file: one configuration per part, with the key "" if the part has no name.
    /// Empty if the file has no such metadata.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file).
    pub(super) fn from_metadata(
        name: &str,
        metadata: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, Self>> {
        let Some(json) = metadata.get(METADATA_KEY) else { return Ok(BTreeMap::new()) };
        let name = format!("{name}: {METADATA_KEY}");
        if json.len() > LONGEST_CONFIG {
            let problem = format!("expected at most {LONGEST_CONFIG} bytes, found {}", json.len());
            return Err(Error::content(name, problem));
        }
        let fields: Map<String, Value> = serde_json::from_str(json)
            .map_err(|error| Error::content(&name, format!("expected a JSON object: {error}")))?;
        let mut parts: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
        for (key, value) in fields {
            let (part, field) = key.split_once('.').unwrap_or(("", &key));
            parts.entry(part.to_owned()).or_default().insert(field.to_owned(), value);
        }
        parts.into_iter().map(|(part, fields)| Ok((part, Self::new(&name, &fields)?))).collect()
    }

    fn new(name: &str, fields: &Map<String, Value>) -> Result<Self> {
        let error = |problem: String| Error::content(name, problem);
        check_fields(name, fields).map_err(error)?;
        let field = |field: &str| fields.get(field).filter(|value| !value.is_null());
        let patterns = |name: &'static str| -> std::result::Result<Map<String, Value>, String> {
            match field(name) {
                None => Ok(Map::new()),
                Some(value) => value.as_object().cloned().ok_or_else(|| expected(name, "an object", value)),
            }
        };
        let read = || -> std::result::Result<Self, String> {
            let number =
                |name: &str, value: &Value| finite(value).ok_or_else(|| expected(name, "a number", value));
            let rank_of = |value: &Value| {
                rank(value).ok_or_else(|| expected("r", &format!("a rank from 1 to {LARGEST_RANK}"), value))
            };
            let is_oft = field("peft_type").is_some_and(|kind| kind == OFT);
            let alpha = ["lora_alpha", "alpha"].into_iter().find_map(|name| Some((name, field(name)?)));
            Ok(Self {
                name: name.to_owned(),
                // OFT's is a number of blocks, or 0.
                rank: field("r").filter(|_| !is_oft).map(rank_of).transpose()?,
                alpha: alpha.map(|(name, value)| number(name, value)).transpose()?,
                rank_pattern: Patterns::parse("rank_pattern", &patterns("rank_pattern")?, rank_of)?,
                alpha_pattern: Patterns::parse("alpha_pattern", &patterns("alpha_pattern")?, |value| {
                    number("alpha", value)
                })?,
                rank_stabilized: is_true(field("use_rslora")),
                uses_dora: is_true(field("use_dora")),
                has_whole_weights: field("modules_to_save").is_some_and(says_something)
                    || field("bias").is_some_and(|bias| bias != "none"),
                feedforward: feedforward(field("feedforward_modules"))?,
                oft: is_oft.then(|| oft(fields)).transpose()?,
            })
        };
        read().map_err(error)
    }

    /// The factor of a layer's matrices. `rank` is that of the matrices, if they have one.
    ///
    /// # Errors
    /// If the matrices have another rank than the configuration says.
    pub(super) fn scale(&self, path: &str, rank: Option<usize>) -> Result<f64> {
        let configured = self.rank_pattern.get(path).or(self.rank);
        if let (Some(configured), Some(found)) = (configured, rank)
            && configured != found
        {
            let problem =
                format!("says that layer {path} has rank {configured}, but its matrices have rank {found}");
            return Err(Error::content(&self.name, problem));
        }
        let alpha = self.alpha_pattern.get(path).or(self.alpha);
        let (Some(alpha), Some(rank)) = (alpha, configured.or(rank)) else { return Ok(1.0) };
        let rank = rank as f64;
        Ok(alpha / if self.rank_stabilized { rank.sqrt() } else { rank })
    }

    /// Whether (IA)³ multiplies a layer's inputs.
    pub(super) fn is_feedforward(&self, path: &str) -> bool {
        self.feedforward.get(path).unwrap_or(false)
    }
}

fn treatment(field: &str) -> Option<Treatment> {
    FIELDS.iter().find_map(|(name, treatment)| (*name == field).then_some(*treatment))
}

/// Refuses fields that cannot be applied, and warns of unknown ones.
fn check_fields(file: &str, fields: &Map<String, Value>) -> std::result::Result<(), String> {
    let kind = fields.get("peft_type").filter(|kind| !kind.is_null());
    if let Some(kind) = kind.filter(|kind| !KINDS.iter().any(|known| *kind == known)) {
        return Err(format!("`peft_type` is {kind}, expected one of {}", KINDS.join(", ")));
    }
    if let Some(Value::String(beginning)) = fields.get("init_lora_weights")
        && CHANGES_BASE.iter().any(|known| beginning.starts_with(known))
    {
        return Err(format!(
            "`init_lora_weights` is {beginning:?}, which changes the base model too: expected a LoRA that was converted to a \
             plain one when it was saved"
        ));
    }
    let mut unknown = Vec::new();
    for (field, _) in fields.iter().filter(|(_, value)| says_something(value)) {
        match treatment(field) {
            Some(Treatment::Used | Treatment::Harmless) => {}
            Some(Treatment::Refused(kind)) => {
                return Err(format!("`{field}` asks for {kind}: expected a plain LoRA"));
            }
            None => unknown.push(field.as_str()),
        }
    }
    if !unknown.is_empty() {
        tracing::warn!("{file}: unknown fields are ignored: {}", unknown.join(", "));
    }
    Ok(())
}

/// Whether a field has a value other than null, false, 0 or empty.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) | Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Parses `feedforward_modules`: endings of layers' names, or one regular expression.
fn feedforward(value: Option<&Value>) -> std::result::Result<Patterns<bool>, String> {
    const FIELD: &str = "feedforward_modules";
    let names = match value {
        None => Vec::new(),
        Some(Value::String(expression)) => vec![expression.clone()],
        Some(Value::Array(names)) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned).ok_or_else(|| expected(FIELD, "names", name)))
            .collect::<std::result::Result<_, _>>()?,
        Some(value) => return Err(expected(FIELD, "names of layers", value)),
    };
    let patterns = names.into_iter().map(|name| (name, Value::Bool(true))).collect();
    Patterns::parse(FIELD, &patterns, |_| Ok(true))
}

/// Reads how OFT turns inputs.
fn oft(fields: &Map<String, Value>) -> std::result::Result<OftConfig, String> {
    let field = |field: &str| fields.get(field).filter(|value| !value.is_null());
    let is_series = match field("use_cayley_neumann") {
        Some(Value::Bool(is_series)) => *is_series,
        found => {
            return Err(expected(
                "use_cayley_neumann",
                "true or false, for OFT",
                found.unwrap_or(&Value::Null),
            ));
        }
    };
    if is_series && !has_series_of_today(field("peft_version")) {
        return Err("`use_cayley_neumann` is true in an OFT of PEFT before 0.18, which computed it otherwise: expected \
                    `peft_version` 0.18 or later"
            .to_owned());
    }
    let terms = || -> std::result::Result<usize, String> {
        let usual = Value::from(USUAL_TERMS);
        let found = field("num_cayley_neumann_terms").unwrap_or(&usual);
        let terms = found.as_u64().and_then(|terms| usize::try_from(terms).ok());
        terms.filter(|terms| *terms <= MOST_TERMS).ok_or_else(|| {
            expected("num_cayley_neumann_terms", &format!("a number up to {MOST_TERMS}"), found)
        })
    };
    let limit = || -> std::result::Result<f64, String> {
        let usual = Value::from(USUAL_LIMIT);
        let found = field("eps").unwrap_or(&usual);
        let limit = finite(found).filter(|limit| *limit >= 0.0);
        limit.ok_or_else(|| expected("eps", "a number, at least 0", found))
    };
    Ok(OftConfig {
        terms: is_series.then(terms).transpose()?,
        limit: is_true(field("coft")).then(limit).transpose()?,
        shares_block: is_true(field("block_share")),
    })
}

/// Whether a version such as 0.18.0 or 0.18.1.dev0@main has the series that is computed here.
fn has_series_of_today(version: Option<&Value>) -> bool {
    let Some(Value::String(version)) = version else { return false };
    let numbers: Vec<u64> = version.split('.').map_while(|number| number.parse().ok()).take(2).collect();
    numbers.len() == 2 && numbers.as_slice() >= VERSION_OF_SERIES.as_slice()
}

fn finite(value: &Value) -> Option<f64> {
    value.as_f64().filter(|number| number.is_finite())
}

fn rank(value: &Value) -> Option<usize> {
    let rank = usize::try_from(value.as_u64()?).ok()?;
    (1..=LARGEST_RANK).contains(&rank).then_some(rank)
}

fn is_true(value: Option<&Value>) -> bool {
    value == Some(&Value::Bool(true))
}

fn expected(field: &str, expected: &str, found: &Value) -> String {
    format!("`{field}` is {found}, expected {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(fields: Value) -> std::result::Result<PeftConfig, String> {
        let file = FileData::owned(PEFT_CONFIG, fields.to_string().into_bytes());
        PeftConfig::from_file(&file).map_err(|error| error.to_string())
    }

    /// The fields of the current PEFT, listed by `scripts/golden/adapter_kinds.py`.
    #[test]
    fn every_field_of_peft_is_known() -> test_support::TestResult {
        let kinds: BTreeMap<String, Vec<String>> =
            test_support::golden_json("adapter_kinds/peft_fields.json");
        assert_eq!(kinds.keys().len(), KINDS.len());
        for (kind, fields) in kinds {
            assert!(KINDS.contains(&kind.as_str()), "{kind}");
            for field in fields {
                assert!(treatment(&field).is_some(), "nothing is said about the field {field} of {kind}");
            }
        }
        Ok(())
    }

    #[test]
    fn scales_follow_patterns() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let config = json!({
            "peft_type": "LORA", "r": 4, "lora_alpha": 8, "rank_pattern": {"to_q": 2},
            "alpha_pattern": {"to_q": 1, "conv\\d": 12}, "unheard_of": 3,
        });
        let plain = read(config.clone())?;
        assert_eq!(plain.scale("a.to_k", Some(4))?, 2.0);
        assert_eq!(plain.scale("a.to_q", Some(2))?, 0.5);
        assert_eq!(plain.scale("a.conv1", None)?, 3.0);
        let error = plain.scale("a.to_k", Some(2)).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("layer a.to_k has rank 4, but its matrices have rank 2"), "{error}");
        let mut stabilized = config;
        stabilized["use_rslora"] = json!(true);
        assert_eq!(read(stabilized)?.scale("a.to_k", Some(4))?, 4.0);
        assert_eq!(read(json!({}))?.scale("a", Some(4))?, 1.0);
        Ok(())
    }

    #[test]
    fn oft_is_computed_as_its_configuration_says() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let oft = |more: Value| -> std::result::Result<Option<OftConfig>, String> {
            let mut fields = json!({"peft_type": "OFT", "r": 0, "oft_block_size": 32, "eps": 0.5});
            for (field, value) in more.as_object().into_iter().flatten() {
                fields[field] = value.clone();
            }
            read(fields).map(|config| config.oft)
        };
        let exact = OftConfig { terms: None, limit: None, shares_block: false };
        assert_eq!(oft(json!({"use_cayley_neumann": false}))?, Some(exact));
        assert_eq!(
            oft(json!({"use_cayley_neumann": true, "peft_version": "0.18.0", "block_share": true}))?,
            Some(OftConfig { terms: Some(5), shares_block: true, ..exact })
        );
        let more = json!({
            "use_cayley_neumann": true, "peft_version": "1.2.dev0@main", "num_cayley_neumann_terms": 3, "coft": true,
        });
        assert_eq!(oft(more)?, Some(OftConfig { terms: Some(3), limit: Some(0.5), ..exact }));
        for (more, problem) in [
            (json!({}), "`use_cayley_neumann` is null, expected true or false"),
            (json!({"use_cayley_neumann": true}), "PEFT before 0.18"),
            (json!({"use_cayley_neumann": true, "peft_version": "0.17.1"}), "PEFT before 0.18"),
            (
                json!({"use_cayley_neumann": true, "peft_version": "0.18.0", "num_cayley_neumann_terms": 1000}),
                "`num_cayley_neumann_terms` is 1000, expected a number up to 64",
            ),
            (json!({"use_cayley_neumann": false, "coft": true, "eps": -1}), "`eps` is -1, expected a number"),
        ] {
            let error = oft(more).err().unwrap_or_default();
            assert!(error.contains(problem), "{error}");
        }
        assert_eq!(read(json!({"peft_type": "BOFT", "boft_block_size": 4}))?.oft, None);
        Ok(())
    }

    #[test]
    fn what_cannot_be_applied_is_refused_by_name() {
        for (fields, problem) in [
            (json!({"peft_type": "VERA"}), "`peft_type` is \"VERA\""),
            (json!({"init_lora_weights": "pissa_niter_4"}), "`init_lora_weights` is \"pissa_niter_4\""),
            (json!({"use_qalora": true}), "`use_qalora` asks for QA-LoRA"),
            (json!({"layer_replication": [[0, 4]]}), "`layer_replication`"),
            (json!({"trainable_token_indices": {"a": [1]}}), "`trainable_token_indices`"),
            (json!({"r": 0}), "`r` is 0, expected a rank from 1"),
            (json!({"r": 1_u64 << 40}), "expected a rank from 1"),
            (json!({"r": -4}), "expected a rank from 1"),
            (json!({"lora_alpha": "8"}), "`lora_alpha` is \"8\", expected a number"),
            (json!({"rank_pattern": {"a": 0}}), "`rank_pattern`: \"a\""),
            (json!({"rank_pattern": [1]}), "`rank_pattern` is [1], expected an object"),
            (json!([]), "expected"),
        ] {
            let error = read(fields).err().unwrap_or_default();
            assert!(error.starts_with(PEFT_CONFIG) && error.contains(problem), "{error}");
        }
        assert!(
            read(json!({"use_qalora": false, "layer_replication": null, "eva_config": {"rho": 2}})).is_ok()
        );
    }
}
