//! Tests who may use the server.

use serde_json::json;

use test_support::TestResult;

use crate::common::run;
use crate::server::Served;

#[test]
fn a_key_is_asked_for() -> TestResult {
    let directory = tempfile::tempdir()?;
    let served = Served::start_in(directory.path(), &[], &[("ALTDIFFUSION_API_KEY", "secret")])?;
    for path in ["/v1/models", "/metrics", "/sdapi/v1/options"] {
        let answer = served.get(path)?;
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{path}");
        assert_eq!(served.get_with(path, &[("authorization", "Bearer wrong")])?.status, 401, "{path}");
        assert_eq!(served.get_with(path, &[("authorization", "Bearer secret")])?.status, 200, "{path}");
    }
    // user:secret, as clients of the web interface send it
    assert_eq!(
        served.get_with("/sdapi/v1/options", &[("authorization", "Basic dXNlcjpzZWNyZXQ=")])?.status,
        200
    );
    // As clients ask whose address ends with a slash; what needs the key still does.
    assert_eq!(served.get("//health")?.status, 200);
    assert_eq!(served.get("//v1/models?page=1")?.status, 401);
    assert_eq!(served.get_with("///v1/models?page=1", &[("authorization", "Bearer secret")])?.status, 200);
    for path in ["/", "/page/style.css", "/health", "/ready", "/ping", "/openapi.json"] {
        assert_eq!(served.get(path)?.status, 200, "{path}");
    }
    Ok(())
}

#[test]
fn other_machines_need_a_key() -> TestResult {
    let directory = tempfile::tempdir()?;
    let output = run(directory.path(), &["serve", "--host", "0.0.0.0", "--port", "0"])?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && error.contains("--insecure"), "{error}");
    // The last address counts: the first is fixed in a container's image.
    let served = Served::start(&["--host", "0.0.0.0", "--host", "127.0.0.1"])?;
    assert!(served.address.starts_with("http://127.0.0.1:"), "{}", served.address);
    Ok(())
}

/// A page in a browser on this machine could otherwise use a server without a key.
#[test]
fn pages_of_others_are_kept_out() -> TestResult {
    let served = Served::start(&["--cors", "https://chat.example"])?;
    let status = |headers: &[(&str, &str)]| {
        Ok::<_, Box<dyn std::error::Error>>(served.get_with("/v1/models", headers)?.status)
    };
    assert_eq!(status(&[("host", "attacker.example")])?, 403);
    assert_eq!(status(&[("host", "attacker.example:7860")])?, 403);
    assert_eq!(status(&[("host", "localhost:7860")])?, 200);
    assert_eq!(status(&[("host", "[::1]:7860")])?, 200);
    assert_eq!(status(&[("host", "localhost.:7860")])?, 200);
    assert_eq!(status(&[("host", "localhost..:7860")])?, 403);
    assert_eq!(status(&[("origin", "https://attacker.example")])?, 403);
    assert_eq!(status(&[("origin", "null")])?, 403);
    let own = served.address.clone();
    assert_eq!(status(&[("origin", &own)])?, 200);
    let allowed = served.get_with("/v1/models", &[("origin", "https://chat.example")])?;
    assert_eq!(
        (allowed.status, allowed.header("access-control-allow-origin")),
        (200, Some("https://chat.example"))
    );
    let form = served.post_with(
        "/v1/embeddings",
        &[("content-type", "text/plain")],
        json!({ "input": "x" }).to_string().as_bytes(),
    )?;
    assert_eq!(form.status, 415);
    Ok(())
}

/// Browsers ask before a page of another origin sends a key, and want its header named.
#[test]
fn pages_of_other_origins_may_send_the_key() -> TestResult {
    let directory = tempfile::tempdir()?;
    let key = [("ALTDIFFUSION_API_KEY", "secret")];
    let served = Served::start_in(directory.path(), &["--cors", "https://chat.example"], &key)?;
    let origin = ("origin", "https://chat.example");
    let asked = [
        origin,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,x-stainless-lang"),
    ];
    let answer = served.options("/v1/embeddings", &asked)?;
    let allowed = answer.header("access-control-allow-headers").unwrap_or_default();
    assert!(answer.status == 200 && allowed.split(',').any(|name| name == "authorization"), "{allowed}");
    let answer = served.get_with("/v1/models", &[origin, ("authorization", "Bearer secret")])?;
    let exposed = answer.header("access-control-expose-headers").unwrap_or_default();
    assert!(answer.status == 200 && exposed.contains("x-request-id"), "{exposed}");
    Ok(())
}
