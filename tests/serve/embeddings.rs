//! Tests the requests for vectors beside the library.

use candle_core::{Device, Tensor};
use serde_json::{Value, json};

use test_support::{TestResult, relative_error};

use crate::common::{emoji, golden_model, run, succeeded, tensor};
use crate::server::{Answer, Served, decoded, encoded};

/// f32 through JSON is exact; batches of other sizes round differently.
const TOLERANCE: f32 = 1e-6;

fn vectors(answer: &Answer) -> TestResult<Vec<Vec<f32>>> {
    let answer = answer.json()?;
    let items = answer["data"].as_array().ok_or_else(|| answer.to_string())?.iter();
    items.map(|item| Ok(serde_json::from_value(item["embedding"].clone())?)).collect()
}

fn assert_near(found: &[Vec<f32>], expected: &[Vec<f32>]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.len());
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= TOLERANCE, "{worst}");
    }
}

#[test]
fn vectors_are_those_of_the_library() -> TestResult {
    let served = Served::start(&[])?;
    let texts = ["一只猫", "a cat", "", "消防车，红色的"];
    let embedder = emoji()?;
    // The program's model is quantized, the library's is not: compare the program with itself.
    let directory = tempfile::tempdir()?;
    let image = directory.path().join("a.png");
    image::RgbImage::from_fn(64, 48, |x, y| image::Rgb([4 * x as u8, 5 * y as u8, 7])).save(&image)?;
    let arguments = texts.iter().flat_map(|text| ["--text", *text]);
    let arguments: Vec<&str> = ["embed"].into_iter().chain(arguments).collect();
    let rest = ["--image", "a.png", "--output", "v.safetensors"];
    succeeded(&run(directory.path(), &[&arguments[..], &rest].concat())?);
    let file = directory.path().join("v.safetensors");
    let expected = tensor(&file, "text_embeds")?.to_vec2::<f32>()?;
    let expected_image = tensor(&file, "image_embeds")?.to_vec2::<f32>()?;
    assert_eq!(expected[0].len(), embedder.projection_dim());

    let answer = served.post("/v1/embeddings", &json!({ "input": texts }))?;
    assert_near(&vectors(&answer)?, &expected);
    let answer = answer.json()?;
    assert_eq!(answer["model"], "emoji");
    let tokens: usize = embedder.tokenize(&texts).iter().flatten().map(Vec::len).sum();
    assert_eq!(answer["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }));

    // One string, token ids, rows of token ids, and Jina's objects.
    let one = served.post("/v1/embeddings", &json!({ "input": texts[0], "model": "emoji" }))?;
    assert_near(&vectors(&one)?, &expected[..1]);
    let ids: Vec<Vec<u32>> = embedder.tokenize(&texts).into_iter().collect::<Result<_, _>>()?;
    let by_ids = served.post("/v1/embeddings", &json!({ "input": ids[1] }))?;
    assert_near(&vectors(&by_ids)?, &expected[1..2]);
    let by_rows = served.post("/v1/embeddings", &json!({ "input": ids }))?;
    assert_near(&vectors(&by_rows)?, &expected);
    let encoded = encoded(&image)?;
    let mixed = json!([{ "text": texts[3] }, { "image": encoded }, { "image": format!("data:image/png;base64,{encoded}") }]);
    let mixed = served.post("/v1/embeddings", &json!({ "input": mixed }))?;
    let expected_mixed = [&expected[3..], &expected_image, &expected_image].concat();
    assert_near(&vectors(&mixed)?, &expected_mixed);
    // As LlamaIndex sends it.
    let jina = json!({
        "input": [{ "text": texts[3] }, { "bytes": encoded }], "encoding_type": "float", "task": "retrieval.passage",
        "late_chunking": false, "truncate": true, "normalized": true,
    });
    assert_near(&vectors(&served.post("/v1/embeddings", &jina)?)?, &expected_mixed[..2]);
    let infinity = json!({ "input": [encoded], "modality": "image" });
    assert_near(&vectors(&served.post("/v1/embeddings", &infinity)?)?, &expected_image);

    // With a byte order mark, as PowerShell writes files.
    let headers = [("content-type", "application/json")];
    let marked = format!("\u{feff}{}", json!({ "input": texts[0] }));
    assert_near(&vectors(&served.post_with("/v1/embeddings", &headers, marked.as_bytes())?)?, &expected[..1]);

    // Base64 has the same bits.
    let floats = vectors(&served.post("/v1/embeddings", &json!({ "input": texts[1] }))?)?;
    let base64 = json!({ "input": texts[1], "encoding_format": "base64" });
    let bytes = decoded(&served.post("/v1/embeddings", &base64)?.json()?["data"][0]["embedding"])?;
    let numbers: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    assert_eq!(numbers, floats[0]);
    Ok(())
}

#[test]
fn clients_of_text_embeddings_inference_get_the_same_vectors() -> TestResult {
    let served = Served::start(&[])?;
    let texts = ["一只猫", "a cat"];
    let expected = vectors(&served.post("/v1/embeddings", &json!({ "input": texts }))?)?;
    let request = json!({
        "inputs": texts, "normalize": true, "truncate": true, "truncation_direction": "Right", "prompt_name": null,
    });
    let found: Vec<Vec<f32>> = serde_json::from_value(served.post("/embed", &request)?.json()?)?;
    assert_near(&found, &expected);
    let one = served.post("/embed", &json!({ "inputs": texts[1], "normalize": false }))?.json()?;
    let one: Vec<Vec<f32>> = serde_json::from_value(one)?;
    let length = one[0].iter().map(|x| x * x).sum::<f32>().sqrt();
    let unit: Vec<f32> = one[0].iter().map(|x| x / length).collect();
    assert!((length - 1.0).abs() > 1e-3, "{length}");
    assert_near(&[unit], &expected[1..]);
    // Cut unless that is not wanted.
    let long = "a cat on a sofa, ".repeat(200);
    for (path, name) in [("/embed", "inputs"), ("/v1/embeddings", "input")] {
        for (truncate, status) in [(json!(null), 200), (json!(true), 200), (json!(false), 400)] {
            let answer = served.post(path, &json!({ name: long, "truncate": truncate }))?;
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(
                answer.status == status && (status == 200 || said.contains("token ids, expected")),
                "{said}"
            );
        }
    }
    let short = served.post("/embed", &json!({ "inputs": texts, "truncate": false }))?.json()?;
    assert_near(&serde_json::from_value::<Vec<Vec<f32>>>(short)?, &expected);
    for (field, value) in [
        ("inputs", json!([])),
        ("dimensions", json!(7)),
        ("prompt_name", json!("query")),
        ("truncation_direction", json!("Left")),
    ] {
        let mut request = json!({ "inputs": "a cat" });
        request[field] = value;
        let answer = served.post("/embed", &request)?;
        let problem = answer.json()?;
        let named = field.trim_end_matches('s');
        let is_named = problem["error"].as_str().is_some_and(|error| error.contains(named));
        assert!(
            answer.status == 400 && is_named && problem["error_type"] == "Validation",
            "{field}: {problem}"
        );
    }
    Ok(())
}

#[test]
fn clients_of_text_embeddings_inference_learn_what_the_server_takes_on() -> TestResult {
    let limits = ["--batch-tokens", "512", "--max-inputs", "8", "--max-connections", "16"];
    let served = Served::start(&limits)?;
    let info = served.get("/info")?.json()?;
    let expected = json!({
        "model_id": "emoji", "model_sha": null, "model_dtype": "float32",
        "model_type": { "embedding": { "pooling": "cls" } }, "max_concurrent_requests": 16,
        "max_input_length": emoji()?.max_tokens(), "max_batch_tokens": 512, "max_batch_requests": null,
        "max_client_batch_size": 8, "auto_truncate": true, "version": served.get("/health")?.json()?["version"],
    });
    assert_eq!(info, expected);
    for (inputs, status) in [(8, 200), (9, 413)] {
        let inputs = vec!["a cat"; inputs];
        assert_eq!(served.post("/embed", &json!({ "inputs": inputs }))?.status, status);
    }
    // CLIP's vectors are those of the last token, and in int8 they are what that is.
    let clip = golden_model("dual_encoders/clip")?;
    let served = Served::start(&["--embedder", &clip, "--dtype", "int8", "--device", "cpu"])?;
    let info = served.get("/info")?.json()?;
    assert_eq!(
        (&info["model_dtype"], &info["model_type"]["embedding"]["pooling"]),
        (&json!("int8"), &json!("last-token"))
    );
    // In the form of this interface.
    let served = Served::start(&["--model", &golden_model("alt_diffusion")?])?;
    let without = served.get("/info")?;
    assert_eq!((without.status, &without.json()?["error_type"]), (404, &json!("Validation")));
    Ok(())
}

#[test]
fn clients_of_ollama_get_the_same_vectors() -> TestResult {
    let served = Served::start(&[])?;
    let texts = ["一只猫", "a cat"];
    let same = served.post("/v1/embeddings", &json!({ "input": texts }))?;
    let expected = vectors(&same)?;
    let name = served.get("/api/tags")?.json()?["models"][0]["name"].clone();
    assert_eq!(name, "emoji:latest");
    let request = json!({ "model": name, "input": texts, "options": { "num_ctx": 512 }, "keep_alive": "5m" });
    let answer = served.post("/api/embed", &request)?.json()?;
    assert_near(&serde_json::from_value::<Vec<Vec<f32>>>(answer["embeddings"].clone())?, &expected);
    assert_eq!(
        (&answer["model"], &answer["prompt_eval_count"]),
        (&name, &same.json()?["usage"]["prompt_tokens"])
    );
    assert!(answer["total_duration"].as_u64() > Some(0), "{answer}");
    let one = served.post("/api/embed", &json!({ "model": "emoji", "input": texts[1] }))?.json()?;
    assert_near(&serde_json::from_value::<Vec<Vec<f32>>>(one["embeddings"].clone())?, &expected[1..]);
    // As a client asks for a model to be loaded.
    for input in [json!(null), json!(""), json!([])] {
        let empty = served.post("/api/embed", &json!({ "model": "emoji", "input": input }))?.json()?;
        assert_eq!(empty["embeddings"], json!([]));
    }
    let long = "a cat on a sofa, ".repeat(200);
    for (request, status, part) in [
        (json!({ "model": "none", "input": "a cat" }), 404, "none"),
        (json!({ "model": "emoji", "input": 1 }), 400, "input"),
        (json!({ "model": "emoji", "input": "a cat", "dimensions": 7 }), 400, "dimensions"),
        (json!({ "model": "emoji", "input": long, "truncate": false }), 400, "token ids"),
    ] {
        let answer = served.post("/api/embed", &request)?;
        let said = answer.json()?["error"].as_str().unwrap_or_default().to_owned();
        assert!(answer.status == status && said.contains(part), "{} {said}", answer.status);
    }
    assert!(served.get("/api/version")?.json()?["version"].is_string());
    Ok(())
}

/// candle's own threads would spin on the cores that the kernels compute on.
#[cfg(target_os = "linux")]
#[test]
fn a_large_batch_starts_no_threads_of_candle() -> TestResult {
    let served = Served::start(&[])?;
    let texts = vec!["a small red dog on the beach"; 200];
    assert_eq!(served.post("/v1/embeddings", &json!({ "input": texts }))?.status, 200);
    for thread in std::fs::read_dir(format!("/proc/{}/task", served.child.id()))? {
        // A thread may end meanwhile.
        let name = std::fs::read_to_string(thread?.path().join("comm")).unwrap_or_default();
        assert!(!name.starts_with("candle"), "{name}");
    }
    Ok(())
}

#[test]
fn texts_are_compared_with_images() -> TestResult {
    let served = Served::start(&[])?;
    let directory = tempfile::tempdir()?;
    for (seed, prompt) in [("1", "一只猫"), ("2", "a red apple")] {
        let file = format!("{seed}.png");
        succeeded(&run(
            directory.path(),
            &["generate", prompt, "--seed", seed, "--steps", "6", "--output", &file],
        )?);
    }
    let images = [encoded(&directory.path().join("1.png"))?, encoded(&directory.path().join("2.png"))?];
    let texts = ["cat", "red apple", "fire engine"];
    let command = ["similarity", "--json", "--image", "1.png", "--image", "2.png"];
    let command =
        command.into_iter().chain(texts.iter().flat_map(|text| ["--text", *text])).collect::<Vec<_>>();
    let expected: Value = serde_json::from_str(&succeeded(&run(directory.path(), &command)?))?;
    let found = served.post("/v1/similarity", &json!({ "texts": texts, "images": images }))?.json()?;
    let again = served.post("/v1/similarity", &json!({ "texts": texts, "images": images }))?.json()?;
    assert_eq!(again, found);
    // These are no batches of vectors, and do not count as empty ones.
    assert_eq!(served.metric("altdiffusion_batch_tokens_count")?, 0.0);
    for (image, row) in expected.as_array().ok_or("no rows")?.iter().enumerate() {
        for (text, score) in row["texts"].as_array().ok_or("no texts")?.iter().enumerate() {
            let difference = |name: &str, value: &Value| {
                (score[name].as_f64().unwrap_or(9.0) - value.as_f64().unwrap_or(-9.0)).abs()
            };
            assert!(difference("cosine", &found["similarity"][text][image]) < 1e-6, "{found}");
            assert!(difference("probability", &found["probabilities"][image][text]) < 1e-6, "{found}");
        }
    }
    let labels = json!({ "images": images, "labels": texts, "templates": ["{}"] });
    let found = served.post("/v1/classify", &labels)?.json()?;
    assert_eq!(found["results"][0].as_array().map(Vec::len), Some(3), "{found}");
    assert_eq!(found["results"][1][0]["label"], "red apple", "{found}");
    Ok(())
}

#[test]
fn vectors_are_computed_in_int8() -> TestResult {
    let model = golden_model("dual_encoders/clip")?;
    let options = ["--dtype", "int8", "--device", "cpu"];
    let served = Served::start(&[&["--embedder", &model], &options[..]].concat())?;
    let directory = tempfile::tempdir()?;
    let file = |name: &str| directory.path().join(name);
    let embed = ["embed", "--model", &model, "--text", "a cat", "--text", "two dogs", "--output"];
    succeeded(&run(directory.path(), &[&embed, &["f32.safetensors"][..]].concat())?);
    succeeded(&run(directory.path(), &[&embed, &["int8.safetensors"][..], &options].concat())?);
    let expected = tensor(&file("int8.safetensors"), "text_embeds")?;
    let error = relative_error(&expected, &tensor(&file("f32.safetensors"), "text_embeds")?);
    assert!(error > 1e-4 && error < 0.2, "{error}");

    let answer = served.post("/v1/embeddings", &json!({ "input": ["a cat", "two dogs"] }))?;
    let found = Tensor::new(vectors(&answer)?, &Device::Cpu)?;
    // A sum in another order can round an activation to the next integer.
    let error = relative_error(&found, &expected);
    assert!(error < 0.05, "{error}");
    Ok(())
}

#[test]
fn hidden_states_are_those_of_encode() -> TestResult {
    let served = Served::start(&[])?;
    let directory = tempfile::tempdir()?;
    let prompts = ["", "一只戴帽子的小狗"];
    succeeded(&run(
        directory.path(),
        &["encode", prompts[0], prompts[1], "--output", "expected.safetensors"],
    )?);
    let answer = served.post("/v1/hidden_states", &json!({ "prompts": prompts }))?;
    // Nothing else was loaded, and nothing waits.
    assert!(served.metric(r#"altdiffusion_stage_seconds_total{stage="load"}"#)? > 0.0);
    assert_eq!(served.metric(r#"altdiffusion_queue_length{kind="prompts",model="emoji"}"#)?, 0.0);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/octet-stream")));
    let (found, expected) =
        (directory.path().join("found.safetensors"), directory.path().join("expected.safetensors"));
    std::fs::write(&found, &answer.body)?;
    for name in ["input_ids", "attention_mask"] {
        let (found, expected) = (tensor(&found, name)?, tensor(&expected, name)?);
        assert_eq!(found.to_vec2::<u32>()?, expected.to_vec2::<u32>()?);
    }
    let (states, expected) = (tensor(&found, "hidden_states")?, tensor(&expected, "hidden_states")?);
    assert!(relative_error(&states, &expected) < f64::from(TOLERANCE));
    let half = served.post("/v1/hidden_states", &json!({ "prompts": prompts, "dtype": "f16" }))?;
    assert!(half.body.len() < answer.body.len() * 6 / 10);
    Ok(())
}

#[test]
fn an_index_is_searched_and_shows_its_images() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    for (seed, prompt) in [("1", "一只猫"), ("2", "a red apple")] {
        succeeded(&run(
            root,
            &["generate", prompt, "--seed", seed, "--steps", "6", "--output", &format!("{seed}.png")],
        )?);
    }
    std::fs::write(root.join("secret.txt"), "not for everyone")?;
    let embed = [
        "embed",
        "--image",
        "1.png",
        "--image",
        "2.png",
        "--text",
        "消防车",
        "--output",
        "photos.safetensors",
    ];
    succeeded(&run(root, &embed)?);
    let served = Served::start_in(root, &["--index", "photos.safetensors"], &[])?;
    let list = served.get("/v1/index")?.json()?;
    assert_eq!((&list["indexes"][0]["name"], &list["indexes"][0]["count"]), (&json!("photos"), &json!(3)));
    let hits = served.post("/v1/search", &json!({ "text": "fire engine", "limit": 1 }))?.json()?;
    assert_eq!((&hits["hits"][0]["name"], &hits["hits"][0]["kind"]), (&json!("消防车"), &json!("text")));
    let image = encoded(&root.join("2.png"))?;
    let hits = served.post("/v1/search", &json!({ "image": image }))?.json()?;
    assert_eq!(hits["hits"][0]["name"], "2.png");
    let shown = served.get(hits["hits"][0]["image"].as_str().ok_or("no image")?)?;
    assert_eq!(shown.header("content-type"), Some("image/png"));
    assert_eq!(shown.body, std::fs::read(root.join("2.png"))?);
    for path in
        ["/v1/index/photos/images/2", "/v1/index/photos/images/..%2fsecret.txt", "/v1/index/x/images/0"]
    {
        assert_eq!(served.get(path)?.status, 404, "{path}");
    }
    Ok(())
}

#[test]
fn an_index_of_folders_may_change_while_it_is_served() -> TestResult {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    std::fs::create_dir(root.join("photos"))?;
    let draw = |name: &str, color: [u8; 3]| {
        image::RgbImage::from_pixel(40, 30, image::Rgb(color)).save(root.join(name))
    };
    draw("photos/red.png", [220, 20, 30])?;
    let add = ["index", "add", "photos", "--database", "photos.db", "--quiet"];
    succeeded(&run(root, &add)?);
    let served = Served::start_in(root, &["--index", "photos.db"], &[])?;
    draw("photos/green.png", [20, 200, 30])?;
    succeeded(&run(root, &add)?);
    let image = encoded(&root.join("photos/green.png"))?;
    let hits = served.post("/v1/search", &json!({ "image": image }))?.json()?;
    assert!(hits["hits"][0]["name"].as_str().is_some_and(|name| name.ends_with("green.png")), "{hits}");
    let shown = served.get(hits["hits"][0]["image"].as_str().ok_or("no image")?)?;
    assert_eq!(shown.body, std::fs::read(root.join("photos/green.png"))?);
    assert_eq!(served.get("/v1/index")?.json()?["indexes"][0]["count"], 2);
    assert_eq!(served.get("/v1/index/photos/images/77")?.status, 404);
    Ok(())
}

#[test]
fn an_image_that_cannot_be_used_fails_alone() -> TestResult {
    let served = Served::start(&[])?;
    let directory = tempfile::tempdir()?;
    let (good, thin) = (directory.path().join("good.png"), directory.path().join("thin.png"));
    image::RgbImage::new(40, 30).save(&good)?;
    // A row of pixels too long to be resized.
    image::GrayImage::new(1, 3_000_000).save(&thin)?;
    let images = json!([{ "image": encoded(&good)? }, { "image": encoded(&thin)? }]);
    let answer = served.post("/v1/embeddings", &json!({ "input": images }))?;
    let error = answer.json()?["error"].clone();
    assert_eq!((answer.status, &error["param"]), (400, &json!("input[1]")), "{error}");
    Ok(())
}
