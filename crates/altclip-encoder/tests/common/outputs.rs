//! Compares a dual encoder's outputs with golden values.

use altclip_encoder::altclip::normalize;
use altclip_encoder::dual_encoder::{self, DualEncoder};
use candle_core::{D, DType, Device, Tensor};
use model_files::source::ModelSource;
use test_support::{assert_close, golden, golden_tensors, relative_error};

/// Compares all outputs of a model with `folder/golden.safetensors`.
pub fn check_outputs(model: &dyn DualEncoder, folder: &str, tolerance: f64) {
    let golden = golden_tensors(&format!("{folder}/golden.safetensors"));
    let u32s = |name: &str| golden[name].to_dtype(DType::U32).unwrap();
    let (ids, mask) = (u32s("input_ids"), u32s("attention_mask"));
    let text = model.encode_text(&ids, &mask).unwrap();
    let image = model.encode_image(&golden["pixel_values"]).unwrap();
    assert_eq!((text.dtype(), image.dtype()), (model.dtype(), model.dtype()));
    assert_eq!(text.dim(1).unwrap(), model.projection_dim());
    assert_eq!(golden["pixel_values"].dim(3).unwrap(), model.image_size());
    assert_close("text_embeds", &text, &golden["text_embeds"], tolerance);
    assert_close("image_embeds", &image, &golden["image_embeds"], tolerance);

    // Padding rows are meaningless.
    let shown = mask.to_dtype(DType::F32).unwrap().unsqueeze(2).unwrap();
    let of_tokens = |states: &Tensor| states.to_dtype(DType::F32).unwrap().broadcast_mul(&shown).unwrap();
    let hidden = model.text_hidden_states(&ids, &mask).unwrap();
    assert_close("hidden_states", &of_tokens(&hidden), &of_tokens(&golden["hidden_states"]), tolerance);

    let cosines = normalize(&image).unwrap().matmul(&normalize(&text).unwrap().t().unwrap()).unwrap();
    let bias = model.properties().logit_bias;
    let logits = cosines.affine(model.logit_scale().into(), bias.unwrap_or(0.).into()).unwrap();
    assert_close("logits_per_image", &logits, &golden["logits_per_image"], tolerance);
    if let Some(expected) = golden.get("probabilities") {
        let probabilities = match bias {
            Some(_) => candle_nn::ops::sigmoid(&logits),
            None => candle_nn::ops::softmax(&logits, D::Minus1),
        };
        // A relative error of 1e-5 in a logit of 60 is a relative error of 6e-4 in its exponential.
        assert_close("probabilities", &probabilities.unwrap(), expected, 60. * tolerance);
    }
}

/// Checks that half precision costs less than in the reference, whose own errors the golden values hold.
///
/// The weights are rounded, to 2⁻¹² and 2⁻⁹ of themselves, and in bf16 what products take, where the processor has
/// instructions for these. The reference, which rounds everything between its layers, is 8e-4 to 2e-3 off in f16, and
/// 8e-3 to 2e-2 in bf16. Errors of a single model are a draw of few roundings, so that the mean over all models decides.
pub fn check_half_precision(folders: &[String]) {
    for (dtype, errors) in [(DType::F16, "errors_float16"), (DType::BF16, "errors_bfloat16")] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for folder in folders {
            let golden = golden_tensors(&format!("{folder}/golden.safetensors"));
            let u32s = |name: &str| golden[name].to_dtype(DType::U32).unwrap();
            let model = load(folder, dtype);
            let text = model.encode_text(&u32s("input_ids"), &u32s("attention_mask")).unwrap();
            let image = model.encode_image(&golden["pixel_values"]).unwrap();
            assert_eq!((text.dtype(), image.dtype()), (DType::F32, DType::F32));
            ours.push(relative_error(&text, &golden["text_embeds"]));
            ours.push(relative_error(&image, &golden["image_embeds"]));
            theirs.extend(golden[errors].to_vec1::<f32>().unwrap().into_iter().map(f64::from));
        }
        let mean = |errors: &[f64]| errors.iter().sum::<f64>() / errors.len() as f64;
        assert!(mean(&ours) < mean(&theirs), "{dtype:?}: {ours:?}, the reference {theirs:?}");
    }
}

/// Checks that `text`, of which `tokens` are no padding, has the same vector without its padding and its neighbours.
pub fn check_alone(model: &dyn DualEncoder, folder: &str, text: usize, tokens: usize, tolerance: f64) {
    let golden = golden_tensors(&format!("{folder}/golden.safetensors"));
    let alone = |x: &Tensor| {
        let x = x.narrow(0, text, 1).unwrap().narrow(1, 0, tokens).unwrap();
        x.to_dtype(DType::U32).unwrap().contiguous().unwrap()
    };
    let found = model.encode_text(&alone(&golden["input_ids"]), &alone(&golden["attention_mask"])).unwrap();
    assert_close("alone", &found, &golden["text_embeds"].narrow(0, text, 1).unwrap(), tolerance);
}

/// The dual encoder of a golden folder.
pub fn load(folder: &str, dtype: DType) -> Box<dyn DualEncoder> {
    dual_encoder::load(&ModelSource::directory(golden(folder)), dtype, &Device::Cpu).unwrap()
}
