//! Writes dual encoders as ONNX, reads the graphs back, and runs them beside the reference's vectors.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use altclip_encoder::onnx::proto::{DataLocation, DataType, ModelProto, TensorProto, ValueInfoProto};
use altclip_encoder::onnx::{ExportOptions, Exported, Precision, export};
use altclip_encoder::{Checkpoint, Error, Family, ModelSource, Tokenizer};
use candle_core::{DType, Device, Tensor};
use prost::Message;
use serde_json::Value;
use tempfile::TempDir;
use test_support::{TestResult, copy_directory, golden};

/// The golden models with their families.
const MODELS: [(&str, Family); 10] = [
    ("dual_encoders/altclip", Family::AltClip),
    ("dual_encoders/altclip_m18", Family::AltClip),
    ("dual_encoders/clip", Family::Clip),
    ("dual_encoders/chinese_clip", Family::ChineseClip),
    ("dual_encoders/taiyi", Family::TaiyiClip),
    ("mclip/xlm_roberta", Family::MClip),
    ("open_clip/linear", Family::OpenClip),
    ("open_clip/mlp", Family::OpenClip),
    ("open_clip_own/base", Family::OpenClip),
    ("siglip/siglip2", Family::Siglip),
];
const TOWERS: [&str; 2] = ["textual", "visual"];
const EMOJI: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji");

/// A copy of a golden model, with a tokenizer if it has none, and a place beside it.
struct Workplace(TempDir);

impl Workplace {
    fn new(model: &str) -> TestResult<Self> {
        let place = Self(tempfile::tempdir()?);
        copy_directory(&golden(model), &place.path("model"))?;
        let has_tokenizer = ["spiece.model", "vocab.txt", "vocab.json", "tokenizer.json"]
            .iter()
            .any(|file| place.path("model").join(file).exists());
        if !has_tokenizer {
            for file in ["sentencepiece.bpe.model", "tokenizer_config.json", "special_tokens_map.json"] {
                let from = Path::new(EMOJI).join("tokenizer").join(file);
                fs::copy(from, place.path("model").join(file))?;
            }
        }
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn source(&self) -> ModelSource {
        ModelSource::directory(self.path("model"))
    }

    fn export(&self, name: &str, options: ExportOptions) -> Result<Option<Exported>, Error> {
        export(&self.source(), &self.path(name), &options, &mut |_, _| ControlFlow::Continue(()))
    }

    /// The complaint of an export that leaves nothing behind.
    fn refused(&self, options: ExportOptions) -> TestResult<String> {
        let before = fs::read_dir(self.0.path())?.count();
        let error = self.export("refused", options).err().ok_or("it is written")?.to_string();
        assert_eq!(fs::read_dir(self.0.path())?.count(), before, "something is left");
        assert_eq!(error.lines().count(), 1, "{error}");
        Ok(error)
    }
}

fn graph(folder: &Path, tower: &str) -> TestResult<ModelProto> {
    Ok(ModelProto::decode(fs::read(folder.join(tower).join("model.onnx"))?.as_slice())?)
}

fn constants(model: &ModelProto) -> HashMap<&str, &TensorProto> {
    let graph = model.graph.as_ref().map(|graph| graph.initializer.as_slice()).unwrap_or_default();
    graph.iter().map(|tensor| (tensor.name(), tensor)).collect()
}

/// The name, the type and the shape of an input or an output; 0 for a size that the caller chooses.
fn described(values: &[ValueInfoProto]) -> TestResult<(&str, DataType, Vec<i64>)> {
    let [value] = values else { return Err("expected one".into()) };
    let kind = value.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()).ok_or("no type")?;
    let shape = kind.shape.as_ref().ok_or("no shape")?;
    for dimension in &shape.dim {
        assert_ne!(dimension.dim_value.is_some(), dimension.dim_param.is_some());
    }
    let sizes = shape.dim.iter().map(|dimension| dimension.dim_value()).collect();
    Ok((value.name(), kind.elem_type(), sizes))
}

/// Checks that each node takes what is there, and each constant has the bytes of its shape.
fn check_graph(model: &ModelProto) -> TestResult {
    assert_eq!(model.ir_version(), 8);
    let [operators] = model.opset_import.as_slice() else { return Err("no operators".into()) };
    assert_eq!((operators.domain(), operators.version()), ("", 17));
    let graph = model.graph.as_ref().ok_or("no graph")?;
    let mut known: HashSet<&str> = graph.input.iter().map(ValueInfoProto::name).collect();
    for tensor in &graph.initializer {
        assert!(known.insert(tensor.name()), "{} is there twice", tensor.name());
        let size = match tensor.data_type() {
            DataType::Int64 => 8,
            DataType::Float16 => 2,
            _ => 4,
        };
        let elements: i64 = tensor.dims.iter().product();
        assert_eq!(i64::try_from(tensor.raw_data().len())?, elements * size, "{}", tensor.name());
    }
    for node in &graph.node {
        for input in &node.input {
            assert!(known.contains(input.as_str()), "{}: {input} comes later", node.name());
        }
        for output in &node.output {
            assert!(known.insert(output), "{output} is there twice");
        }
    }
    assert!(graph.output.iter().all(|output| known.contains(output.name())));
    Ok(())
}

#[test]
fn every_family_has_the_inputs_and_files_that_servers_expect() -> TestResult {
    for (model, family) in MODELS {
        let place = Workplace::new(model)?;
        let exported = place.export("onnx", ExportOptions::default())?.ok_or("stopped")?;
        assert_eq!(exported.family, family, "{model}");
        let (side, width) = (i64::try_from(exported.image_size)?, i64::try_from(exported.projection_dim)?);
        let folder = place.path("onnx");
        let tokens = if family == Family::Siglip { i64::try_from(exported.context_length)? } else { 0 };
        for (tower, expected) in [
            ("textual", ("text", DataType::Int32, vec![0, tokens])),
            ("visual", ("image", DataType::Float, vec![0, 3, side, side])),
        ] {
            let file = graph(&folder, tower)?;
            check_graph(&file)?;
            let parts = file.graph.as_ref().ok_or("no graph")?;
            assert_eq!(described(&parts.input)?, expected, "{model}");
            assert_eq!(described(&parts.output)?, ("embedding", DataType::Float, vec![0, width]), "{model}");
        }
        let json =
            |file: &str| -> TestResult<Value> { Ok(serde_json::from_slice(&fs::read(folder.join(file))?)?) };
        let config = json("config.json")?;
        assert_eq!(config["text_cfg"]["context_length"], exported.context_length);
        assert!(exported.context_length <= 77, "{model}");
        let preprocess = json("visual/preprocess_cfg.json")?;
        let is_squashed = matches!(family, Family::ChineseClip | Family::Siglip);
        assert_eq!(preprocess["resize_mode"], if is_squashed { "squash" } else { "shortest" });
        assert_eq!(preprocess["size"][0], side);
        let pad = json("textual/tokenizer_config.json")?["pad_token"].as_str().ok_or("no text")?.to_owned();
        let tokenizer = json("textual/tokenizer.json")?;
        let added = tokenizer["added_tokens"].as_array().ok_or("no tokens")?;
        let id = added.iter().find(|token| token["content"] == pad.as_str()).map(|token| &token["id"]);
        let expected = Tokenizer::from_source(&place.source(), family.tokenizer_folder())?.pad_id();
        assert_eq!(id.and_then(Value::as_u64), Some(u64::from(expected)), "{model}");
    }
    Ok(())
}

#[test]
fn the_tokenizer_gives_the_same_ids() -> TestResult {
    for model in
        ["dual_encoders/altclip", "dual_encoders/clip", "dual_encoders/chinese_clip", "siglip/siglip2"]
    {
        let place = Workplace::new(model)?;
        place.export("onnx", ExportOptions::default())?;
        let ours = Tokenizer::from_source(&place.source(), "")?;
        let file = place.path("onnx/textual/tokenizer.json");
        let theirs = tokenizers::Tokenizer::from_file(file).map_err(|error| error.to_string())?;
        for text in ["一只戴帽子的小狗", "a red Apple", "猫", "", "Größere Straßenbahn", "two cats, one dog!"]
        {
            let found = theirs.encode(text, true).map_err(|error| error.to_string())?;
            assert_eq!(found.get_ids(), ours.encode(text)?, "{model}: {text:?}");
        }
    }
    Ok(())
}

#[test]
fn weights_are_those_of_the_checkpoint() -> TestResult {
    let place = Workplace::new("dual_encoders/altclip")?;
    place.export("onnx", ExportOptions::default())?;
    let weights = Checkpoint::from_file(place.path("model/model.safetensors"))?;
    let bytes = |tensor: &Tensor| -> TestResult<Vec<u8>> {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        Ok(values.into_iter().flat_map(f32::to_le_bytes).collect())
    };
    let (texts, images) = (graph(&place.path("onnx"), "textual")?, graph(&place.path("onnx"), "visual")?);
    for (file, name, is_transposed) in [
        (&texts, "text_model.roberta.embeddings.word_embeddings.weight", false),
        (&texts, "text_model.pre_LN.bias", false),
        (&texts, "text_projection.weight", true),
        (&images, "vision_model.embeddings.patch_embedding.weight", false),
        (&images, "vision_model.encoder.layers.1.mlp.fc1.weight", true),
    ] {
        let tensor = weights.tensor(name, DType::F32, &Device::Cpu)?;
        let tensor = if is_transposed { tensor.t()? } else { tensor };
        let constants = constants(file);
        let found = constants.get(name).ok_or_else(|| format!("no {name}"))?;
        let shape: Vec<i64> = tensor.dims().iter().map(|&size| size as i64).collect();
        assert_eq!(found.dims, shape, "{name}");
        assert_eq!(found.raw_data(), bytes(&tensor)?, "{name}");
    }
    Ok(())
}

#[test]
fn a_large_model_has_its_weights_beside_it() -> TestResult {
    let place = Workplace::new("dual_encoders/clip")?;
    place.export("whole", ExportOptions::default())?;
    place.export("split", ExportOptions { largest_file: 10_000, ..ExportOptions::default() })?;
    for tower in TOWERS {
        assert!(!place.path("whole").join(tower).join("model.onnx.data").exists());
        let data = fs::read(place.path("split").join(tower).join("model.onnx.data"))?;
        let (whole, split) = (graph(&place.path("whole"), tower)?, graph(&place.path("split"), tower)?);
        let (whole, split) = (constants(&whole), constants(&split));
        assert_eq!(whole.len(), split.len());
        let mut outside = 0;
        for (name, tensor) in split {
            let expected = whole.get(name).ok_or_else(|| format!("no {name}"))?;
            assert_eq!((&tensor.dims, tensor.data_type()), (&expected.dims, expected.data_type()));
            if tensor.data_location() == DataLocation::Default {
                assert_eq!(tensor.raw_data(), expected.raw_data(), "{name}");
                continue;
            }
            let entries: HashMap<&str, &str> =
                tensor.external_data.iter().map(|entry| (entry.key(), entry.value())).collect();
            assert_eq!(entries["location"], "model.onnx.data");
            let (offset, length): (usize, usize) = (entries["offset"].parse()?, entries["length"].parse()?);
            assert!(offset.is_multiple_of(64) && tensor.raw_data.is_none());
            assert_eq!(&data[offset..offset + length], expected.raw_data(), "{name}");
            outside += 1;
        }
        assert!(outside > 0, "{tower}");
    }
    Ok(())
}

#[test]
fn half_precision_halves_the_weights_and_refuses_what_it_cannot_hold() -> TestResult {
    let half = ExportOptions { precision: Precision::F16, ..ExportOptions::default() };
    let place = Workplace::new("dual_encoders/altclip")?;
    place.export("half", half)?;
    for tower in TOWERS {
        let file = graph(&place.path("half"), tower)?;
        check_graph(&file)?;
        let weights = constants(&file).into_iter().filter(|(name, _)| !name.starts_with("constant_"));
        let kinds: HashSet<DataType> = weights.map(|(_, tensor)| tensor.data_type()).collect();
        assert_eq!(kinds, HashSet::from([DataType::Float16]));
    }

    let file = place.path("model/model.safetensors");
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu)?;
    let name = "vision_model.post_layernorm.bias";
    let large = Tensor::full(1e6f32, tensors[name].shape(), &Device::Cpu)?;
    tensors.insert(name.to_owned(), large);
    candle_core::safetensors::save(&tensors, &file)?;
    let error = place.refused(half)?;
    assert_eq!(error, format!("tensor {name} holds 1000000, which f16 cannot: use f32"));
    assert!(place.export("full", ExportOptions::default())?.is_some());
    Ok(())
}

#[test]
fn what_cannot_be_written_is_refused_in_one_line() -> TestResult {
    for (model, family) in [
        ("mclip/distilbert", "sentence-transformers' multilingual CLIP"),
        ("r2d2/r2d2", "R2D2"),
        ("wukong/clip", "Wukong"),
    ] {
        let error = Workplace::new(model)?.refused(ExportOptions::default())?;
        assert!(error.contains(&format!("{family} cannot be written as ONNX, expected AltCLIP")), "{error}");
    }
    let error = Workplace::new("nllb_clip/base")?.refused(ExportOptions::default())?;
    assert!(error.contains("NLLB cannot be written as ONNX, expected CLIP's text tower or XLM-R"), "{error}");
    // SigLIP's own file says less than a tokenizer.json.
    let error = Workplace::new("siglip/base")?.refused(ExportOptions::default())?;
    assert!(error.contains("no file tokenizer.json"), "{error}");

    let place = Workplace::new("dual_encoders/altclip")?;
    fs::create_dir(place.path("refused"))?;
    let error = place.refused(ExportOptions::default())?;
    assert!(error.contains("is there already, expected the name of a new directory"), "{error}");
    fs::remove_dir(place.path("refused"))?;

    let change = |file: &str, old: &str, new: &str| -> TestResult {
        let path = place.path("model").join(file);
        let text = fs::read_to_string(&path)?;
        assert!(text.contains(old), "{file}: no {old}");
        Ok(fs::write(path, text.replace(old, new))?)
    };
    change("preprocessor_config.json", "\"do_rescale\": true", "\"do_rescale\": false")?;
    let error = place.refused(ExportOptions::default())?;
    assert!(error.contains("preprocess_cfg.json cannot say"), "{error}");
    change("config.json", "\"project_dim\": 14", "\"project_dim\": 15")?;
    let error = place.refused(ExportOptions::default())?;
    assert!(
        error.contains("tensor text_model.transformation.weight") && error.contains("[15, 20]"),
        "{error}"
    );
    Ok(())
}

#[test]
fn an_interrupted_export_leaves_nothing() -> TestResult {
    let place = Workplace::new("dual_encoders/altclip")?;
    let before = fs::read_dir(place.0.path())?.count();
    let mut calls = Vec::new();
    let exported =
        export(&place.source(), &place.path("onnx"), &ExportOptions::default(), &mut |done, total| {
            calls.push((done, total));
            if done == 5 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    assert_eq!(exported, None);
    assert_eq!(fs::read_dir(place.0.path())?.count(), before);
    let (done, totals): (Vec<usize>, HashSet<usize>) = calls.into_iter().unzip();
    assert_eq!((done, totals.len()), (vec![1, 2, 3, 4, 5], 1));
    Ok(())
}

/// Needs Python with onnxruntime, numpy, tokenizers and pillow; `ONNX_PYTHON` may name it. What is missing is said aloud.
#[test]
fn onnxruntime_computes_the_vectors_of_the_reference() -> TestResult {
    let python = std::env::var("ONNX_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/check-onnx.py");
    let variants = [
        ("whole", ExportOptions::default(), "1e-5"),
        ("split", ExportOptions { largest_file: 10_000, ..ExportOptions::default() }, "1e-5"),
        ("half", ExportOptions { precision: Precision::F16, ..ExportOptions::default() }, "2e-3"),
    ];
    for (model, _) in MODELS {
        let place = Workplace::new(model)?;
        for (name, options, tolerance) in variants {
            place.export(name, options)?;
            let mut command = Command::new(&python);
            command.arg(script).arg(place.path(name)).arg(golden(model).join("golden.safetensors"));
            let Ok(output) = command.args(["--tolerance", tolerance]).stdin(Stdio::null()).output() else {
                std::io::stderr().write_all(format!("SKIPPED: ONNX: {python} cannot be run\n").as_bytes())?;
                return Ok(());
            };
            let said = String::from_utf8_lossy(&output.stdout);
            if said.starts_with("SKIPPED") {
                std::io::stderr().write_all(said.as_bytes())?;
                return Ok(());
            }
            let problem = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && said.matches("ok: ").count() == 2,
                "{model}, {name}: {said}{problem}"
            );
        }
    }
    Ok(())
}
