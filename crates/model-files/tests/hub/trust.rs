//! Tests that only the hub gets the token, and access through proxies and private certificate authorities.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use model_files::source::{HubOptions, ModelSource, Proxies};
use tempfile::TempDir;

use crate::mock_hub::{Fault, Hub, Manner, Proxy, Redirect};
use crate::place::{CONFIG, Place, REPOSITORY, line_of, weights};

#[test]
fn a_private_repository_needs_the_token() {
    let place = Place::new();
    let hub = place.hub(Manner::default());
    hub.require("Bearer hf_right");
    let line = line_of(place.open(&hub).file("unet/config.json"));
    assert!(line.contains("HTTP 401") && line.contains("HF_TOKEN") && line.contains("no token"), "{line}");
    let with = |token: &str| HubOptions { token: Some(token.into()), ..place.options(hub.endpoint()) };
    let model = ModelSource::open_with(REPOSITORY, &with("hf_wrong")).unwrap();
    let line = line_of(model.file("unet/config.json"));
    assert!(line.contains("not enough") && !line.contains("hf_wrong"), "{line}");
    // The hub's own words tell an expired token, which even public repositories refuse, from conditions to accept.
    assert!(line.ends_with("; it says: Invalid credentials in Authorization header"), "{line}");
    let model = ModelSource::open_with(REPOSITORY, &with("hf_right")).unwrap();
    assert_eq!(&*model.read("unet/config.json").unwrap(), CONFIG);
}

/// `token-to-another-host`: the token is only for the endpoint's scheme, host and port.
#[test]
fn the_token_goes_to_the_hub_alone() {
    for redirect in [Redirect::No, Redirect::Relative, Redirect::OtherHost] {
        for endpoint in ["", "me:secret@"] {
            let place = Place::new();
            let hub = place.hub(Manner { redirect, ..Manner::default() });
            hub.require(if endpoint.is_empty() { "Bearer hf_secret" } else { "Basic bWU6c2VjcmV0" });
            let options = HubOptions {
                token: Some("hf_secret".into()),
                ..place.options(hub.endpoint().replace("localhost", &format!("{endpoint}localhost")))
            };
            let model = ModelSource::open_with(REPOSITORY, &options).unwrap();
            assert!(fs::read(model.file("weights.bin").unwrap()).unwrap() == weights());
            for request in hub.requests() {
                let is_hub = request.header("host").unwrap().starts_with("localhost");
                assert_eq!(request.header("authorization").is_some(), is_hub, "{request:?}");
                // Nor in another header or in the URL.
                let whole = format!("{request:?}");
                assert!(
                    is_hub || !["secret", "bWU6c2VjcmV0"].iter().any(|text| whole.contains(text)),
                    "{whole}"
                );
            }
            hub.fail(&[Fault::Status(500, None); 20]);
            let line = line_of(model.file("unet/config.json"));
            let shown = format!("{line} {model:?} {options:?}");
            assert!(!shown.contains("secret") && shown.contains("localhost"), "{shown}");
        }
    }
}

/// `hub-private-ca`: a file, a directory, and no trust without either.
#[test]
fn a_private_authority_is_trusted_when_it_is_named() {
    let place = Place::new();
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
    let directory = TempDir::new().unwrap();
    fs::copy(tls.join("authority.pem"), directory.path().join("0123abcd.0")).unwrap();
    let hub = Hub::start_encrypted(
        place.root.path(),
        Manner { redirect: Redirect::OtherHost, ..Manner::default() },
        &tls,
    );
    assert!(hub.is_encrypted);
    for authority in [tls.join("authority.pem"), directory.path().to_owned()] {
        let home = TempDir::new().unwrap();
        let options = HubOptions {
            authorities: vec![authority],
            cache: home.path().into(),
            ..place.options(hub.endpoint())
        };
        let model = ModelSource::open_with(REPOSITORY, &options).unwrap();
        assert!(fs::read(model.file("weights.bin").unwrap()).unwrap() == weights());
    }
    let line = line_of(place.open(&hub).file("weights.bin"));
    assert!(line.contains("certificate") && line.contains("SSL_CERT_FILE"), "{line}");
    let options = HubOptions { authorities: vec!["/none.pem".into()], ..place.options(hub.endpoint()) };
    let line = line_of(ModelSource::open_with(REPOSITORY, &options).unwrap().file("weights.bin"));
    assert!(line.contains("/none.pem") && line.contains("SSL_CERT_FILE"), "{line}");
    // No redirect from there leads to an unencrypted connection.
    hub.set_manner(Manner { redirect: Redirect::Unprotected, api: false, ..Manner::default() });
    let options = HubOptions {
        authorities: vec![tls.join("authority.pem")],
        retries: 0,
        ..place.options(hub.endpoint())
    };
    let line = line_of(ModelSource::open_with(REPOSITORY, &options).unwrap().file("weights.bin"));
    assert!(line.contains("redirect from https:// to http://"), "{line}");
}

/// What `openssl req -x509` makes is an authority's certificate, which OpenSSL takes from a server too, and rustls does
/// not.
#[test]
fn a_server_with_an_authoritys_certificate_is_told_from_an_unknown_one() {
    let place = Place::new();
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls/self_signed");
    let hub = Hub::start_encrypted(place.root.path(), Manner::default(), &tls);
    let options = HubOptions { authorities: vec![tls.join("server.pem")], ..place.options(hub.endpoint()) };
    let line = line_of(ModelSource::open_with(REPOSITORY, &options).unwrap().file("weights.bin"));
    assert!(line.contains("basicConstraints=critical,CA:FALSE"), "{line}");
}

#[test]
fn proxies_are_asked_for_urls_and_for_tunnels() {
    let place = Place::new();
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls");
    for encrypted in [false, true] {
        let hub = match encrypted {
            false => place.hub(Manner::default()),
            true => Hub::start_encrypted(place.root.path(), Manner::default(), &tls),
        };
        let proxy = Proxy::start(&hub);
        let home = TempDir::new().unwrap();
        // Only the proxy knows this host.
        let endpoint = hub.endpoint().replace("localhost", "hub.invalid");
        let options = HubOptions {
            proxies: Proxies {
                all: Some(format!("http://me:secret@{}", proxy.address)),
                ..Proxies::default()
            },
            authorities: vec![tls.join("authority.pem")],
            token: Some("hf_right".into()),
            cache: home.path().into(),
            ..place.options(endpoint)
        };
        let model = ModelSource::open_with(REPOSITORY, &options).unwrap();
        assert!(fs::read(model.file("weights.bin").unwrap()).unwrap() == weights());
        let seen = proxy.requests();
        for request in &seen {
            let host = format!("hub.invalid:{}", hub.address.port());
            assert_eq!(request.header("proxy-authorization"), Some("Basic bWU6c2VjcmV0"));
            match encrypted {
                true => assert!(
                    request.method == "CONNECT"
                        && request.target == host
                        && request.header("authorization").is_none()
                ),
                false => assert!(request.target.starts_with(&format!("http://{host}/")), "{request:?}"),
            }
        }
        assert!(!seen.is_empty());
        assert!(hub.requests().iter().all(|request| request.header("proxy-authorization").is_none()));
    }
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for proxy in [format!("http://me:secret@{refused}"), "me:secret@what ever".to_owned()] {
        for scheme in ["http", "https"] {
            let options = HubOptions {
                proxies: Proxies { all: Some(proxy.clone()), ..Proxies::default() },
                ..place.options(format!("{scheme}://hub.invalid"))
            };
            let line = line_of(ModelSource::open_with(REPOSITORY, &options).unwrap().file("weights.bin"));
            assert!(line.contains("cannot reach") && !line.contains("secret"), "{line}");
            // It is the proxy that has to be corrected, not the hub.
            assert!(line.contains(proxy.rsplit('@').next().unwrap()), "{line}");
        }
    }
}
