//! Tests stable-diffusion-webui's interface with requests as its clients send them.

use std::thread;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use crate::common::{run, succeeded};
use crate::server::{Served, decoded, encoded};
use test_support::TestResult;

#[test]
fn images_come_with_what_clients_parse() -> TestResult {
    let served = Served::start(&[])?;
    // As SillyTavern sends it.
    let request = json!({
        "prompt": "a cat", "negative_prompt": "", "sampler_name": "Euler a", "scheduler": "Automatic", "steps": 4,
        "cfg_scale": 2, "width": 64, "height": 64, "restore_faces": false, "enable_hr": false, "hr_upscaler": "Latent",
        "hr_scale": 2, "hr_additional_modules": [], "denoising_strength": 0.7, "hr_second_pass_steps": 0, "seed": 5,
        "override_settings": {
            "CLIP_stop_at_last_layers": 1, "sd_model_checkpoint": "emoji", "sd_vae": "Automatic",
            "eta_noise_seed_delta": 31337,
        },
        "override_settings_restore_afterwards": true, "clip_skip": 1, "save_images": true, "send_images": true,
        "refiner_checkpoint": "", "s_churn": 0.5, "resize_mode": 0, "seed_resize_from_w": -1,
        "do_not_save_grid": false, "do_not_save_samples": false, "batch_size": 1, "n_iter": 2,
    });
    let answer = served.post("/sdapi/v1/txt2img", &request)?.json()?;
    let info: Value = serde_json::from_str(answer["info"].as_str().ok_or("no info")?)?;
    assert_eq!((answer["images"].as_array().map(Vec::len), &info["all_seeds"]), (Some(2), &json!([5, 6])));
    assert_eq!(
        (&info["seed"], &info["width"], &info["sampler_name"]),
        (&json!(5), &json!(64), &json!("Euler a"))
    );
    assert!(
        info["infotexts"][0].as_str().unwrap_or_default().starts_with("a cat\nSteps: 4, Sampler: Euler a, ")
    );
    assert_eq!(
        (&answer["parameters"]["steps"], &info["ignored_fields"]),
        (
            &json!(4),
            &json!([
                "clip_skip",
                "hr_additional_modules",
                "s_churn",
                "override_settings.eta_noise_seed_delta"
            ])
        )
    );

    // The same as the other interface draws.
    let same = json!({
        "prompt": "a cat", "scheduler": "Euler a", "steps": 4, "guidance_scale": 2, "seed": 6, "prompt_weights": true,
        "size": "64x64",
    });
    let same = served.post("/v1/images/generations", &same)?.json()?;
    assert_eq!(answer["images"][1], same["data"][0]["b64_json"]);

    // And its record is read again.
    let read = served.post("/sdapi/v1/png-info", &json!({ "image": answer["images"][0] }))?.json()?;
    assert_eq!((&read["parameters"]["Prompt"], &read["parameters"]["Seed"]), (&json!("a cat"), &json!("5")));
    Ok(())
}

#[test]
fn sizes_are_those_of_images() -> TestResult {
    let served = Served::start(&[])?;
    let draw = |size: Value| -> TestResult<(Value, Value)> {
        let mut request = json!({ "prompt": "a cat", "steps": 2, "cfg_scale": 2, "seed": 3 });
        if let (Some(request), Some(size)) = (request.as_object_mut(), size.as_object()) {
            request.extend(size.clone());
        }
        let answer = served.post("/sdapi/v1/txt2img", &request)?.json()?;
        let info: Value = serde_json::from_str(answer["info"].as_str().ok_or("no info")?)?;
        Ok((answer["images"][0].clone(), json!([info["width"], info["height"]])))
    };
    let default = draw(json!({}))?;
    assert_eq!(default.1, json!([256, 256]));
    // The model draws a quarter of each side, as it does by default.
    assert!(draw(json!({ "width": 256, "height": 256 }))? == default);
    for sides in [[64, 64], [512, 256], [72, 128]] {
        assert_eq!(draw(json!({ "width": sides[0], "height": sides[1] }))?.1, json!(sides));
    }
    Ok(())
}

#[test]
fn only_the_mask_is_redrawn() -> TestResult {
    let served = Served::start(&[])?;
    let directory = tempfile::tempdir()?;
    let (image, mask) = (directory.path().join("a.png"), directory.path().join("m.png"));
    let photo = image::RgbImage::from_fn(128, 96, |x, y| image::Rgb([2 * x as u8, 2 * y as u8, 90]));
    photo.save(&image)?;
    image::GrayImage::from_fn(128, 96, |x, y| {
        image::Luma([if (40..80).contains(&x) && (30..70).contains(&y) { 255 } else { 0 }])
    })
    .save(&mask)?;
    let request = |more: Value| {
        let mut request = json!({
            "init_images": [encoded(&image)?], "mask": encoded(&mask)?, "prompt": "a red apple", "steps": 5, "seed": 1,
            "denoising_strength": 0.8, "width": 64, "height": 64, "inpainting_fill": 1, "cfg_scale": 2,
        });
        if let (Some(request), Some(more)) = (request.as_object_mut(), more.as_object()) {
            request.extend(more.clone());
        }
        Ok::<_, Box<dyn std::error::Error>>(request)
    };
    let full = request(json!({ "inpaint_full_res": true, "inpaint_full_res_padding": 8, "mask_blur": 0 }))?;
    let answer = served.post("/sdapi/v1/img2img", &full)?.json()?;
    let drawn = image::load_from_memory(&decoded(&answer["images"][0])?)?.into_rgb8();
    assert_eq!(drawn.dimensions(), (128, 96));
    let changed = drawn.enumerate_pixels().filter(|(x, y, pixel)| *pixel != photo.get_pixel(*x, *y));
    let mut count = 0;
    for (x, y, _) in changed {
        assert!((40..80).contains(&x) && (30..70).contains(&y), "{x} {y}");
        count += 1;
    }
    assert!(count > 40 * 40 / 2, "{count} pixels changed");
    let whole = served.post("/sdapi/v1/img2img", &request(json!({ "inpaint_full_res": false }))?)?.json()?;
    let whole = image::load_from_memory(&decoded(&whole["images"][0])?)?;
    assert_eq!((whole.width(), whole.height()), (64, 64));
    Ok(())
}

#[test]
fn a_drawing_tells_how_far_it_is_and_can_be_interrupted() -> TestResult {
    let served = Served::start(&[])?;
    served.post("/sdapi/v1/txt2img", &json!({ "prompt": "", "steps": 1 }))?;
    let idle = served.get("/sdapi/v1/progress")?.json()?;
    assert_eq!((&idle["progress"], &idle["state"]["job_count"]), (&json!(0.0), &json!(0)));
    let long = json!({ "prompt": "a cat", "steps": 200, "batch_size": 16, "seed": 1 });
    thread::scope(|scope| {
        let drawing =
            scope.spawn(|| served.post("/sdapi/v1/txt2img", &long).map_err(|error| error.to_string()));
        let start = Instant::now();
        let progress = loop {
            let progress = served.get("/sdapi/v1/progress?skip_current_image=false")?.json()?;
            if progress["state"]["sampling_step"].as_u64() > Some(2)
                || start.elapsed() > Duration::from_secs(60)
            {
                break progress;
            }
            thread::sleep(Duration::from_millis(5));
        };
        assert_eq!(progress["state"]["sampling_steps"], 200, "{progress}");
        assert!(!decoded(&progress["current_image"])?.is_empty());
        assert_eq!(served.post("/sdapi/v1/interrupt", &json!({}))?.status, 200);
        let answer = drawing.join().map_err(|_| "the request panicked")??.json()?;
        // The image as far as it was drawn.
        let images = answer["images"].as_array().map(Vec::len).unwrap_or_default();
        assert!((1..16).contains(&images), "{images} images");
        Ok(())
    })
}

#[test]
fn clients_find_what_they_look_for() -> TestResult {
    let served = Served::start(&[])?;
    let models = served.get("/sdapi/v1/sd-models")?.json()?;
    assert_eq!((&models[0]["title"], &models[0]["model_name"]), (&json!("emoji"), &json!("emoji")));
    let options = served.get("/sdapi/v1/options")?.json()?;
    assert_eq!(options["sd_model_checkpoint"], "emoji");
    assert_eq!(
        served.post("/sdapi/v1/options", &json!({ "sd_model_checkpoint": "emoji", "other": 1 }))?.status,
        200
    );
    assert_eq!(served.post("/sdapi/v1/options", &json!({ "sd_model_checkpoint": "none" }))?.status, 404);
    let samplers = served.get("/sdapi/v1/samplers")?.json()?;
    let names: Vec<&str> =
        samplers.as_array().ok_or("no list")?.iter().filter_map(|sampler| sampler["name"].as_str()).collect();
    assert!(
        ["Euler a", "DPM++ 2M", "DDIM", "PLMS", "UniPC", "LCM"].iter().all(|name| names.contains(name)),
        "{names:?}"
    );
    for sampler in names {
        let request = json!({ "prompt": "a cat", "steps": 6, "sampler_name": sampler });
        assert_eq!(served.post("/sdapi/v1/txt2img", &request)?.status, 200, "{sampler}");
    }
    let ancestral =
        json!({ "prompt": "a cat", "steps": 4, "sampler_name": "Euler a", "scheduler": "Karras" });
    assert_eq!(served.post("/sdapi/v1/txt2img", &ancestral)?.status, 200);
    for path in [
        "schedulers",
        "loras",
        "embeddings",
        "upscalers",
        "latent-upscale-modes",
        "sd-vae",
        "memory",
        "prompt-styles",
        "hypernetworks",
        "face-restorers",
        "realesrgan-models",
        "scripts",
        "script-info",
        "extensions",
        "cmd-flags",
    ] {
        assert_eq!(served.get(&format!("/sdapi/v1/{path}"))?.status, 200, "{path}");
    }
    Ok(())
}

#[test]
fn controlnets_are_listed_where_clients_look() -> TestResult {
    let directory = tempfile::tempdir()?;
    let folder = directory.path().join("nets");
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("canny.safetensors"), "")?;
    let served = Served::start_in(directory.path(), &["--controlnets", "nets"], &[])?;
    assert_eq!(served.get("/controlnet/model_list?update=true")?.json()?["model_list"], json!(["canny"]));
    assert_eq!(served.get("/controlnet/module_list")?.json()?["module_list"], json!(["none"]));
    let kinds = served.get("/controlnet/control_types")?.json()?;
    assert_eq!(kinds["control_types"]["All"]["model_list"], json!(["None", "canny"]));
    assert!(served.get("/controlnet/version")?.json()?["version"].as_u64() > Some(1));
    assert!(served.get("/controlnet/settings")?.json()?["control_net_unit_count"].as_u64() > Some(0));
    assert_eq!(served.get("/sdapi/v1/scripts")?.json()?["img2img"], json!(["controlnet"]));
    // In the form of this interface.
    assert!(served.get("/controlnet/detect")?.json()?["detail"].is_string());
    // Modes that would draw another image.
    for mode in [json!(2), json!("ControlNet is more important")] {
        let unit = json!({ "model": "canny", "image": "AAAA", "control_mode": mode });
        let scripts = json!({ "controlnet": { "args": [unit] } });
        let request = json!({ "prompt": "a cat", "alwayson_scripts": scripts });
        let answer = served.post("/sdapi/v1/txt2img", &request)?;
        let detail = answer.json()?["detail"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == 400 && detail.contains("control_mode"), "{detail}");
    }
    for mask in ["mask", "effective_region_mask"] {
        let unit = json!({ "model": "canny", "image": "AAAA", mask: "AAAA" });
        let scripts = json!({ "controlnet": { "args": [unit] } });
        let answer =
            served.post("/sdapi/v1/txt2img", &json!({ "prompt": "a cat", "alwayson_scripts": scripts }))?;
        let detail = answer.json()?["detail"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == 400 && detail.contains(mask), "{detail}");
    }
    // With the image, as canvases send them. A mask without an effect there has none here: the image is the next to be read.
    let mask = |white: u32| -> TestResult<String> {
        let path = directory.path().join("mask.png");
        image::GrayImage::from_fn(8, 8, |x, _| image::Luma([if x < white { 255 } else { 0 }])).save(&path)?;
        encoded(&path)
    };
    for (mask, is_refused) in [
        (json!(mask(3)?), true),
        (json!("no image"), true),
        (json!({ "mask": "AAAA" }), true),
        (json!(mask(0)?), false),
        (json!(mask(8)?), false),
        (json!(""), false),
        (Value::Null, false),
    ] {
        let unit = json!({ "model": "canny", "image": { "image": "AAAA", "mask": mask } });
        let scripts = json!({ "controlnet": { "args": [unit] } });
        let answer =
            served.post("/sdapi/v1/txt2img", &json!({ "prompt": "a cat", "alwayson_scripts": scripts }))?;
        let detail = answer.json()?["detail"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == 400 && detail.contains("args[0].image"), "{detail}");
        assert_eq!(detail.contains("args[0].image.mask"), is_refused, "{detail}");
    }
    let without = Served::start(&[])?;
    assert_eq!(without.get("/sdapi/v1/scripts")?.json()?["txt2img"], json!([]));
    Ok(())
}

#[test]
fn words_of_a_folder_are_words_in_prompts() -> TestResult {
    let directory = tempfile::tempdir()?;
    let folder = directory.path().join("words");
    std::fs::create_dir(&folder)?;
    // The first has the width of the model inside the program, the second that of another.
    for (word, vectors, width) in [("my-cat", 2usize, 128usize), ("your-cat", 1, 768)] {
        let tensor = Tensor::randn(0f32, 1., (vectors, width), &Device::Cpu)?;
        tensor.save_safetensors("emb_params", folder.join(format!("{word}.safetensors")))?;
    }
    let served = Served::start_in(directory.path(), &["--textual-inversions", "words"], &[])?;
    let sizes = |kind: &str, word: &str| -> TestResult<(Option<u64>, Option<u64>)> {
        let listed = served.get("/sdapi/v1/embeddings")?.json()?;
        let found = &listed[kind][word];
        Ok((found["shape"].as_u64(), found["vectors"].as_u64()))
    };
    // Which of them fit is not known before the model is loaded.
    assert_eq!(sizes("loaded", "my-cat")?, (Some(128), Some(2)));
    assert_eq!(sizes("loaded", "your-cat")?, (Some(768), Some(1)));

    let draw = |prompt: &str| -> TestResult<(Value, String)> {
        let request = json!({ "prompt": prompt, "steps": 2, "cfg_scale": 2, "seed": 3 });
        let answer = served.post("/sdapi/v1/txt2img", &request)?.json()?;
        let info: Value = serde_json::from_str(answer["info"].as_str().ok_or("no info")?)?;
        Ok((answer["images"][0].clone(), info["infotexts"][0].as_str().unwrap_or_default().to_owned()))
    };
    let (drawn, record) = draw("a photo of my-cat")?;
    assert!(record.contains("Embedding 0: "), "{record}");
    let arguments = "generate --embedding words/my-cat.safetensors --prompt-weights --steps 2 --guidance-scale 2 \
                     --seed 3 --output a.png";
    let arguments: Vec<&str> = arguments.split(' ').chain(["a photo of my-cat"]).collect();
    succeeded(&run(directory.path(), &arguments)?);
    let pixels = |file: &[u8]| image::load_from_memory(file).map(image::DynamicImage::into_rgb8);
    let expected = std::fs::read(directory.path().join("a.png"))?;
    assert!(pixels(&decoded(&drawn)?)? == pixels(&expected)?);

    // A word of another text encoder is text.
    let (other, record) = draw("a photo of your-cat")?;
    assert!(!record.contains("Embedding"), "{record}");
    let without = Served::start(&[])?;
    let request = json!({ "prompt": "a photo of your-cat", "steps": 2, "cfg_scale": 2, "seed": 3 });
    let text = without.post("/sdapi/v1/txt2img", &request)?.json()?["images"][0].clone();
    assert!(pixels(&decoded(&other)?)? == pixels(&decoded(&text)?)?);
    assert_eq!(sizes("loaded", "my-cat")?, (Some(128), Some(2)));
    assert_eq!(sizes("skipped", "your-cat")?, (Some(768), Some(1)));
    // It is still there after other words.
    assert_eq!(draw("a photo of my-cat")?.0, drawn);
    Ok(())
}

#[test]
fn what_would_change_the_image_and_cannot_be_done_is_refused() -> TestResult {
    let served = Served::start(&[])?;
    for (field, value) in [
        ("enable_hr", json!(true)),
        ("restore_faces", json!(true)),
        ("tiling", json!(true)),
        ("subseed_strength", json!(0.5)),
        ("script_name", json!("X/Y/Z plot")),
        ("styles", json!(["anime"])),
        ("sampler_name", json!("DPM++ 3M SDE")),
        ("prompt", json!("a cat <lora:none:1>")),
        ("width", json!(1 << 20)),
        ("steps", json!(100_000)),
        ("n_iter", json!(1000)),
    ] {
        let mut request = json!({ "prompt": "a cat", "steps": 2 });
        request[field] = value;
        let answer = served.post("/sdapi/v1/txt2img", &request)?;
        let detail = answer.json()?["detail"].as_str().unwrap_or_default().to_owned();
        let named = if field == "width" { "size" } else { field };
        assert!(answer.status == 400 && detail.contains(named), "{field}: {} {detail}", answer.status);
    }
    assert_eq!(served.post("/sdapi/v1/img2img", &json!({ "prompt": "a cat" }))?.status, 400);
    Ok(())
}

#[test]
fn layers_are_skipped_for_a_request_or_for_all() -> TestResult {
    let served = Served::start(&[])?;
    let draw = |settings: Value| -> TestResult<Value> {
        let request = json!({
            "prompt": "a cat", "steps": 2, "cfg_scale": 2, "seed": 3, "override_settings": settings,
        });
        Ok(served.post("/sdapi/v1/txt2img", &request)?.json()?["images"][0].clone())
    };
    let layers = "CLIP_stop_at_last_layers";
    let all = draw(json!({}))?;
    let fewer = draw(json!({ layers: 2.0 }))?;
    assert!(all.is_string() && fewer.is_string() && all != fewer);
    assert_eq!(served.post("/sdapi/v1/options", &json!({ layers: 2, "other": 1 }))?.status, 200);
    assert_eq!(served.get("/sdapi/v1/options")?.json()?[layers], 2);
    assert_eq!(draw(json!({}))?, fewer);
    assert_eq!(draw(json!({ layers: 1 }))?, all);
    // Nothing of a request that is refused counts.
    for value in [json!("two"), json!(1.5), json!(-1)] {
        let answer =
            served.post("/sdapi/v1/options", &json!({ layers: value, "sd_model_checkpoint": "emoji" }))?;
        let detail = answer.json()?["detail"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == 400 && detail.contains(layers), "{detail}");
    }
    assert_eq!(served.get("/sdapi/v1/options")?.json()?[layers], 2);
    Ok(())
}
