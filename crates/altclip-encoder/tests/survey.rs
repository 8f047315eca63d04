//! Surveys models whose weights have other names in the file, or are several in one tensor.

use altclip_encoder::{ModelSource, dual_encoder};
use candle_core::{DType, Device};
use model_files::checkpoint::{PartReport, Survey};
use test_support::{copy_directory, golden};

/// Loads the model in `folder` without its weights.
fn survey(folder: &std::path::Path) -> Vec<PartReport> {
    let survey = Survey::default();
    let source = ModelSource::directory(folder).surveyed(&survey);
    dual_encoder::load(&source, DType::F32, &Device::Cpu).unwrap();
    survey.reports()
}

#[test]
fn every_tensor_that_a_family_reads_counts_as_read() {
    for folder in [
        "siglip/base",
        "siglip/siglip2",
        "open_clip/mlp",
        "open_clip/linear",
        "open_clip_own/base",
        "open_clip_own/quick",
        "nllb_clip/base",
        "nllb_clip/siglip",
        "wukong/clip",
        "wukong/filip",
        "wukong/reduced",
    ] {
        let reports = survey(&golden(folder));
        let [report] = reports.as_slice() else { panic!("{folder}: {reports:?}") };
        assert!(report.unexpected.is_empty(), "{folder}: {:?}", report.unexpected);
        assert!(report.missing.is_empty(), "{folder}: {:?}", report.missing);
        assert!(report.misshapen.is_empty(), "{folder}: {:?}", report.misshapen);
        assert!(report.tensors > 0 && report.dtypes.values().sum::<usize>() == report.tensors, "{folder}");
    }
}

#[test]
fn a_temperature_need_not_be_read() {
    for name in ["r2d2", "prd2"] {
        let reports = survey(&golden("r2d2").join(name));
        assert!(reports.iter().all(|report| report.missing.is_empty()), "{reports:?}");
    }
}

#[test]
fn what_is_not_read_is_still_unexpected() {
    let folder = tempfile::tempdir().unwrap();
    copy_directory(&golden("siglip/base"), folder.path()).unwrap();
    let config = std::fs::read_to_string(folder.path().join("config.json")).unwrap();
    let fewer = config.replace(r#""num_hidden_layers": 2"#, r#""num_hidden_layers": 1"#);
    assert_ne!(config, fewer);
    std::fs::write(folder.path().join("config.json"), fewer).unwrap();
    let reports = survey(folder.path());
    let unexpected = &reports[0].unexpected;
    assert!(!unexpected.is_empty());
    assert!(unexpected.iter().all(|name| name.contains(".layers.1.")), "{unexpected:?}");
}
