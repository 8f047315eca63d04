//! Tests downloading files and whole models, partly cached or not.

use std::fs;
use std::sync::Arc;

use model_files::source::{CachedModels, HubOptions, ModelSource};
use model_files::{Error, ErrorKind};
use tempfile::TempDir;

use crate::mock_hub::{self, Manner};
use crate::place::{COMMIT, CONFIG, FOLDER, Place, REPOSITORY, line_of, weights};

#[test]
fn files_are_downloaded_once() {
    let place = Place::new();
    let hub = place.hub(Manner::default());
    let model = place.open(&hub);
    assert!(hub.requests().is_empty(), "nothing is downloaded before it is asked for");
    assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG);
    assert_eq!(hub.requests().len(), 3, "the revision, what the file is, and the file");
    assert_eq!(fs::read(model.file("weights.bin").unwrap()).unwrap(), weights());
    let config: serde_json::Value = model.read_json("unet/config.json").unwrap();
    assert_eq!(config["hidden_size"], 8);
    assert_eq!(hub.requests().len(), 5, "the config was in the cache");
    assert_eq!(model.to_string(), REPOSITORY);
    hub.forget_requests();
    place.open(&hub).file("weights.bin").unwrap();
    assert_eq!(hub.requests().len(), 1, "whether main has moved is asked, and nothing else");
}

#[test]
fn the_cache_is_laid_out_as_huggingface_hub_does() {
    let place = Place::new();
    let hub = place.hub(Manner { api: false, ..Manner::default() });
    let model = place.open(&hub);
    let path = model.file("unet/config.json").unwrap();
    assert_eq!(path, place.home.path().join(FOLDER).join("snapshots").join(COMMIT).join("unet/config.json"));
    #[cfg(unix)]
    {
        let target = fs::read_link(&path).unwrap();
        assert!(target.starts_with("../../../blobs"), "{}", target.display());
    }
    assert_eq!(fs::read_to_string(place.home.path().join(FOLDER).join("refs/main")).unwrap(), COMMIT);
    assert!(model.optional_file("vae/config.json").unwrap().is_none());
    let mark = place.home.path().join(FOLDER).join(".no_exist").join(COMMIT).join("vae/config.json");
    assert_eq!(fs::read(mark).unwrap(), b"");
    hub.forget_requests();
    assert!(place.open(&hub).optional_file("vae/config.json").unwrap().is_none());
    assert!(
        hub.requests()
            .iter()
            .all(|request| request.target.contains("/api/") || request.target.contains("main"))
    );
    // Where links do not work, or are disabled.
    let copies = TempDir::new().unwrap();
    let options =
        HubOptions { symlinks: false, cache: copies.path().into(), ..place.options(hub.endpoint()) };
    let path = ModelSource::open_with(REPOSITORY, &options).unwrap().file("unet/config.json").unwrap();
    assert!(path.symlink_metadata().unwrap().is_file());
}

#[test]
fn revisions_are_branches_tags_and_commits_long_or_short() {
    for api in [true, false] {
        for revision in ["main", "refs/pr/1", "v1/final+1", COMMIT, "0123456"] {
            let place = Place::new();
            let hub = place.hub(Manner { api, ..Manner::default() });
            let name = format!("{REPOSITORY}@{revision}");
            let model = ModelSource::open_with(&name, &place.options(hub.endpoint())).unwrap();
            assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG, "{revision}");
            let offline = HubOptions { offline: true, ..place.options(hub.endpoint()) };
            let model = ModelSource::open_with(&name, &offline).unwrap();
            assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG, "{revision}");
        }
        let place = Place::new();
        let hub = place.hub(Manner { api, ..Manner::default() });
        let options = place.options(hub.endpoint());
        let line =
            line_of(ModelSource::open_with("someone/model@v9", &options).unwrap().file("unet/config.json"));
        assert!(line.contains("no such revision"), "{line}");
    }
}

#[test]
fn a_file_that_the_repository_lacks_is_named() {
    let place = Place::new();
    let hub = place.hub(Manner::default());
    let model = place.open(&hub);
    assert!(model.optional_file("vae/config.json").unwrap().is_none());
    assert!(model.read_optional("vae/config.json").unwrap().is_none());
    let error = model.file("vae/config.json").unwrap_err();
    assert_eq!(error.to_string(), format!("someone/model on {}: no file vae/config.json", hub.endpoint()));
    assert!(matches!(error, Error::MissingFile { .. }));
    let options = place.options(hub.endpoint());
    let error = ModelSource::open_with("someone/else", &options).unwrap().file("config.json").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Input);
    let line = error.to_string();
    assert!(line.contains("no repository of this name"), "{line}");
}

#[test]
fn two_downloads_at_once_do_not_disturb_each_other() {
    let place = Place::new();
    let hub = place.hub(Manner::default());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let model = place.open(&hub);
                assert!(fs::read(model.file("weights.bin").unwrap()).unwrap() == weights());
            });
        }
    });
    let contents =
        |request: &&mock_hub::Request| request.method == "GET" && request.target.contains("weights");
    assert_eq!(hub.requests().iter().filter(contents).count(), 1, "seven wait for the eighth");
    assert_eq!(place.cached(&format!("{FOLDER}/blobs")).len(), 1);
}

#[test]
fn a_whole_model_is_downloaded_and_nothing_else() {
    let pipeline: &[&str] = &[
        "model_index.json",
        "README.md",
        "v1-5-pruned.ckpt",
        "scheduler/scheduler_config.json",
        "tokenizer/sentencepiece.bpe.model",
        "tokenizer/tokenizer_config.json",
        "text_encoder/config.json",
        "text_encoder/model.safetensors.index.json",
        "text_encoder/a-00001.safetensors",
        "text_encoder/a-00002.safetensors",
        "text_encoder/pytorch_model.bin",
        "text_encoder/flax_model.msgpack",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/model.onnx",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
        "upscaler/config.json",
        "upscaler/diffusion_pytorch_model.safetensors",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "feature_extractor/preprocessor_config.json",
    ];
    let of_pipeline = [
        "feature_extractor/preprocessor_config.json",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/a-00001.safetensors",
        "text_encoder/a-00002.safetensors",
        "text_encoder/config.json",
        "text_encoder/model.safetensors.index.json",
        "tokenizer/sentencepiece.bpe.model",
        "tokenizer/tokenizer_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "upscaler/config.json",
        "upscaler/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ];
    let dual: &[&str] =
        &["config.json", "pytorch_model.bin", "tokenizer.json", "preprocessor_config.json", "tf_model.h5"];
    let of_dual = ["config.json", "preprocessor_config.json", "pytorch_model.bin", "tokenizer.json"];
    let lora: &[&str] = &["adapter_config.json", "adapter_model.safetensors", "image_0.png"];
    for api in [true, false] {
        for (all, read) in [(pipeline, &of_pipeline[..]), (dual, &of_dual), (lora, &lora[..2])] {
            let place = Place {
                root: TempDir::new().unwrap(),
                home: TempDir::new().unwrap(),
                notices: Arc::default(),
            };
            for file in all {
                place.write(COMMIT, file, file.as_bytes());
            }
            if all.len() == pipeline.len() {
                let index = br#"{"weight_map": {"x": "a-00001.safetensors", "y": "a-00002.safetensors"}}"#;
                place.write(COMMIT, "text_encoder/model.safetensors.index.json", index);
            }
            place.set_refs(&[("main", COMMIT)]);
            let hub = place.hub(Manner { api, ..Manner::default() });
            let downloaded = place.open(&hub).download().unwrap();
            let mut files: Vec<_> = downloaded.files.iter().map(|(file, _)| file.as_str()).collect();
            files.sort_unstable();
            assert_eq!(files, read);
            assert_eq!(downloaded.commit, COMMIT);
            let models = CachedModels::new(place.home.path().join("hub")).list().unwrap();
            let [model] = models.as_slice() else { panic!("{models:?}") };
            assert_eq!(
                (model.name.as_str(), model.commit.as_str(), model.size),
                (REPOSITORY, COMMIT, downloaded.size)
            );
            assert_eq!(model.revisions, ["main"]);
            let notices = place.notices();
            assert!(
                notices.len() == 1 && notices[0].starts_with("Downloading someone/model: "),
                "{notices:?}"
            );
            hub.forget_requests();
            assert_eq!(place.open(&hub).download().unwrap().downloaded, 0);
            assert!(
                hub.requests()
                    .iter()
                    .all(|request| request.method == "HEAD" || request.target.contains("/api/"))
            );
        }
    }
    let place = Place::new();
    place.write(COMMIT, "unet/diffusion_pytorch_model.fp16.safetensors", b"half");
    place.write(COMMIT, "unet/diffusion_pytorch_model.safetensors", b"whole");
    let hub = place.hub(Manner::default());
    let files = place.open(&hub).with_variant("fp16").unwrap().download().unwrap().files;
    let files: Vec<_> = files.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(files, ["unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors"]);
}

/// Otherwise the lack would show later, perhaps where there is no network.
#[test]
fn a_part_without_weights_is_missed_by_the_download() {
    for (files, variant, lack) in [
        (
            &["unet/config.json", "unet/model.safetensors", "vae/config.json"][..],
            None,
            "vae/model.safetensors",
        ),
        (
            &["unet/config.json", "unet/model.fp16.safetensors", "vae/config.json", "vae/model.safetensors"],
            Some("fp16"),
            "vae/model.fp16.safetensors",
        ),
        (&["config.json", "tokenizer.json"], None, "no file model.safetensors"),
    ] {
        let place =
            Place { root: TempDir::new().unwrap(), home: TempDir::new().unwrap(), notices: Arc::default() };
        for file in files {
            place.write(COMMIT, file, b"{}");
        }
        place.set_refs(&[("main", COMMIT)]);
        let hub = place.hub(Manner::default());
        let model = place.open(&hub);
        let model = variant.map_or(Ok(model.clone()), |name| model.with_variant(name)).unwrap();
        let line = line_of(model.download());
        assert!(line.contains(lack), "{line}");
    }
}

/// As for `load_lora_weights` of diffusers: most repositories of a LoRA call its file after what it draws.
#[test]
fn an_adapter_of_any_name_is_downloaded() {
    for (files, is_there) in
        [(&["ink.safetensors", "config.json"][..], true), (&["a.safetensors", "b.safetensors"], false)]
    {
        let place =
            Place { root: TempDir::new().unwrap(), home: TempDir::new().unwrap(), notices: Arc::default() };
        for file in files {
            place.write(COMMIT, file, file.as_bytes());
        }
        place.set_refs(&[("main", COMMIT)]);
        let hub = place.hub(Manner::default());
        match is_there {
            true => {
                let downloaded = place.open(&hub).download().unwrap();
                assert_eq!(fs::read(&downloaded.files[0].1).unwrap(), b"ink.safetensors");
                assert_eq!(downloaded.files.len(), 1);
            }
            false => assert!(line_of(place.open(&hub).download()).contains("no file config.json")),
        }
    }
}

#[test]
fn names_that_are_neither_directory_nor_repository_are_explained() {
    let place = Place::new();
    let options = place.options("http://hub.invalid");
    for name in ["no-such-directory", "./models/none", "a/b/c", "someone/model@../x"] {
        let line = ModelSource::open_with(name, &options).unwrap_err().to_string();
        assert!(line.contains(name) && line.contains("directory") && line.contains("org/name"), "{line}");
    }
    let file = place.home.path().join("file.ckpt");
    fs::write(&file, "").unwrap();
    let line = ModelSource::open_with(file.to_str().unwrap(), &options).unwrap_err().to_string();
    assert!(line.contains("found a file"), "{line}");
    for (endpoint, shown) in
        [("hub.example", "hub.example"), ("ftp://me:secret@hub.example", "ftp://hub.example")]
    {
        let options = HubOptions { endpoint: endpoint.into(), ..options.clone() };
        let line = ModelSource::open_with(REPOSITORY, &options).unwrap_err().to_string();
        assert!(line.contains(&format!("hub endpoint {shown}:")) && !line.contains("secret"), "{line}");
    }
}
