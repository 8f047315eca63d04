//! Lists the known fields of transformers' configurations.

use model_files::config::Accepted::{Empty, Is};
use model_files::config::{Accepted, FieldTable};

type Reason = (&'static str, &'static [&'static str]);
type Fixed = (&'static str, &'static [Accepted]);

/// In every configuration.
const NOTES: Reason = (
    "says where the model comes from and how it is loaded",
    &[
        "architectures",
        "auto_map",
        "dtype",
        "model_type",
        "name_or_path",
        "tokenizer_class",
        "torch_dtype",
        "torchscript",
        "transformers_version",
        "use_bfloat16",
    ],
);
const OUTPUTS: Reason = (
    "says what Python returns, and in what portions it computes",
    &[
        "attn_implementation",
        "chunk_size_feed_forward",
        "output_attentions",
        "output_hidden_states",
        "output_past",
        "return_dict",
        "use_cache",
        "use_return_dict",
    ],
);
const GENERATION: Reason = (
    "is about the generation of text",
    &[
        "bad_words_ids",
        "begin_suppress_tokens",
        "cross_attention_hidden_size",
        "decoder_start_token_id",
        "diversity_penalty",
        "do_sample",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "exponential_decay_length_penalty",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "is_encoder_decoder",
        "length_penalty",
        "max_length",
        "min_length",
        "no_repeat_ngram_size",
        "num_beam_groups",
        "num_beams",
        "num_return_sequences",
        "output_scores",
        "prefix",
        "remove_invalid_values",
        "repetition_penalty",
        "return_dict_in_generate",
        "suppress_tokens",
        "temperature",
        "tf_legacy_loss",
        "tie_encoder_decoder",
        "tie_word_embeddings",
        "top_k",
        "top_p",
        "typical_p",
    ],
);
const TASKS: Reason = (
    "is about heads that are not used",
    &["finetuning_task", "id2label", "label2id", "num_labels", "problem_type", "task_specific_params"],
);
const TRAINING: Reason = (
    "is about training",
    &[
        "attention_dropout",
        "attention_probs_dropout_prob",
        "classifier_dropout",
        "dropout",
        "gradient_checkpointing",
        "hidden_dropout_prob",
        "initializer_factor",
        "initializer_range",
        "logit_scale_init_value",
    ],
);
const IDS: Reason = (
    "is the tokenizer's to say",
    &[
        "bos_token_id",
        "cls_token_id",
        "eos_token_id",
        "mask_token_id",
        "pad_token_id",
        "sep_token_id",
        "unk_token_id",
    ],
);

/// Fields that would make the encoder another model.
const ENCODER_ONLY: [Fixed; 3] =
    [("is_decoder", &[Is(false)]), ("add_cross_attention", &[Is(false)]), ("pruned_heads", &[Empty])];

const ENCODER_SHAPE: &[&str] = &[
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "pad_token_id",
    "position_embedding_type",
    "type_vocab_size",
    "vocab_size",
];

/// `BertConfig`, `ChineseCLIPTextConfig`.
pub(crate) const BERT: FieldTable =
    FieldTable { used: ENCODER_SHAPE, harmless: BERT_HARMLESS, fixed: &ENCODER_ONLY, nested: &[] };
const BERT_HARMLESS: &[Reason] = &[
    NOTES,
    OUTPUTS,
    GENERATION,
    TASKS,
    TRAINING,
    IDS,
    (
        "shapes a pooler that Google's code had",
        &[
            "directionality",
            "pooler_fc_size",
            "pooler_num_attention_heads",
            "pooler_num_fc_layers",
            "pooler_size_per_head",
            "pooler_type",
        ],
    ),
];
/// `BertConfig` of a diffusion model's text encoder.
pub(crate) const BERT_CONDITIONER: FieldTable = FieldTable {
    used: &[
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "layer_norm_eps",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "pad_token_id",
        "position_embedding_type",
        "type_vocab_size",
        "use_attention_mask",
        "vocab_size",
    ],
    harmless: BERT_HARMLESS,
    fixed: &ENCODER_ONLY,
    nested: &[],
};

/// `DistilBertConfig`.
pub(crate) const DISTILBERT: FieldTable = FieldTable {
    used: &[
        "activation",
        "dim",
        "hidden_dim",
        "max_position_embeddings",
        "n_heads",
        "n_layers",
        "pad_token_id",
        "vocab_size",
    ],
    harmless: &[
        NOTES,
        OUTPUTS,
        GENERATION,
        TASKS,
        TRAINING,
        IDS,
        ("is about training", &["qa_dropout", "seq_classif_dropout"]),
        ("is about heads that are not used", &["tie_weights_"]),
        ("says how positions began, which are in the weights", &["sinusoidal_pos_embds"]),
    ],
    fixed: &ENCODER_ONLY,
    nested: &[],
};

/// `AltCLIPTextConfig`, and the text encoder of FlagAI's AltCLIP.
pub(crate) const ALT_CLIP_TEXT: FieldTable = FieldTable {
    used: &[
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "layer_norm_eps",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "pad_token_id",
        "position_embedding_type",
        "project_dim",
        "type_vocab_size",
        "vocab_size",
    ],
    harmless: &[NOTES, OUTPUTS, GENERATION, TASKS, TRAINING, IDS, DISTILLATION],
    fixed: &ENCODER_ONLY,
    nested: &[],
};
const DISTILLATION: Reason =
    ("is about the training of AltCLIP", &["direct_kd", "learn_encoder", "pooler_fn", "text_model_name"]);

/// `RobertaSeriesConfig` of diffusers.
pub(crate) const ROBERTA_SERIES: FieldTable = FieldTable {
    used: &[
        "has_pre_transformation",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "layer_norm_eps",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "pad_token_id",
        "position_embedding_type",
        "project_dim",
        "type_vocab_size",
        "use_attention_mask",
        "vocab_size",
    ],
    harmless: ALT_CLIP_TEXT.harmless,
    fixed: &ENCODER_ONLY,
    nested: &[],
};

/// `CLIPTextConfig`.
pub(crate) const CLIP_TEXT: FieldTable = FieldTable {
    used: &[
        "eos_token_id",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "layer_norm_eps",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "vocab_size",
    ],
    harmless: CLIP_TEXT_HARMLESS,
    fixed: &ENCODER_ONLY,
    nested: &[],
};
const CLIP_TEXT_HARMLESS: &[Reason] = &[
    NOTES,
    OUTPUTS,
    GENERATION,
    TASKS,
    TRAINING,
    IDS,
    ("stands in the whole configuration", &["projection_dim"]),
];
/// `CLIPTextConfig` of a diffusion model's text encoder.
pub(crate) const CLIP_CONDITIONER: FieldTable = FieldTable {
    used: &[
        "eos_token_id",
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "layer_norm_eps",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "use_attention_mask",
        "vocab_size",
    ],
    harmless: CLIP_TEXT_HARMLESS,
    fixed: &ENCODER_ONLY,
    nested: &[],
};

/// `CLIPVisionConfig`, `AltCLIPVisionConfig`, `ChineseCLIPVisionConfig`.
pub(crate) const CLIP_VISION: FieldTable = FieldTable {
    used: &[
        "hidden_act",
        "hidden_size",
        "image_size",
        "intermediate_size",
        "layer_norm_eps",
        "num_attention_heads",
        "num_channels",
        "num_hidden_layers",
        "patch_size",
        "projection_dim",
    ],
    harmless: &[NOTES, OUTPUTS, GENERATION, TASKS, TRAINING, IDS],
    fixed: &ENCODER_ONLY,
    nested: &[],
};

/// `CLIPConfig`.
pub(crate) const CLIP: FieldTable = dual_encoder(&[
    ("text_config", &CLIP_TEXT),
    ("text_config_dict", &CLIP_TEXT),
    ("vision_config", &CLIP_VISION),
    ("vision_config_dict", &CLIP_VISION),
]);
/// `ChineseCLIPConfig`.
pub(crate) const CHINESE_CLIP: FieldTable = dual_encoder(&[
    ("text_config", &BERT),
    ("text_config_dict", &BERT),
    ("vision_config", &CLIP_VISION),
    ("vision_config_dict", &CLIP_VISION),
]);
/// `AltCLIPConfig`, and that of FlagAI's AltCLIP.
pub(crate) const ALT_CLIP: FieldTable =
    dual_encoder(&[("text_config", &ALT_CLIP_TEXT), ("vision_config", &CLIP_VISION)]);

/// `SiglipTextConfig`.
pub(crate) const SIGLIP_TEXT: FieldTable = FieldTable {
    used: &[
        "hidden_act",
        "hidden_size",
        "intermediate_size",
        "layer_norm_eps",
        "max_position_embeddings",
        "num_attention_heads",
        "num_hidden_layers",
        "projection_size",
        "vocab_size",
    ],
    harmless: &[NOTES, OUTPUTS, GENERATION, TASKS, TRAINING, IDS],
    fixed: &ENCODER_ONLY,
    nested: &[],
};

/// `SiglipVisionConfig`.
pub(crate) const SIGLIP_VISION: FieldTable = FieldTable {
    used: &[
        "hidden_act",
        "hidden_size",
        "image_size",
        "intermediate_size",
        "layer_norm_eps",
        "num_attention_heads",
        "num_channels",
        "num_hidden_layers",
        "patch_size",
    ],
    harmless: &[NOTES, OUTPUTS, GENERATION, TASKS, TRAINING, IDS],
    fixed: &[
        ("is_decoder", &[Is(false)]),
        ("add_cross_attention", &[Is(false)]),
        ("pruned_heads", &[Empty]),
        ("vision_use_head", &[Is(true)]),
    ],
    nested: &[],
};

/// `SiglipConfig`.
pub(crate) const SIGLIP: FieldTable = FieldTable {
    used: &[],
    harmless: &[NOTES, OUTPUTS, GENERATION, TASKS, TRAINING, IDS],
    fixed: &ENCODER_ONLY,
    nested: &[("text_config", &SIGLIP_TEXT), ("vision_config", &SIGLIP_VISION)],
};

const fn dual_encoder(nested: &'static [(&'static str, &'static FieldTable)]) -> FieldTable {
    FieldTable {
        used: &["projection_dim"],
        harmless: &[
            NOTES,
            OUTPUTS,
            GENERATION,
            TASKS,
            TRAINING,
            IDS,
            ("repeats the towers' own", &["num_layers", "text_model_name", "vision_model_name"]),
            ("is the older form of what stands beside it", &["text_config_dict", "vision_config_dict"]),
        ],
        fixed: &ENCODER_ONLY,
        nested,
    }
}
