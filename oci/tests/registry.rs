//! The registry client against a real registry, and against one that misbehaves.

mod registry_support;

use bytes::Bytes;
use oci::registry::{Client, ClientConfig, Credential, Credentials, Error, Pushed, Timing};
use oci::{Descriptor, Digest, MediaType, Reference, RegistriesConf};
use registry_support::docker_registry::{DockerRegistry, PASSWORD, USER};
use registry_support::scripted::{Request, Response, Scripted};
use std::io::Cursor;
use std::time::{Duration, Instant};

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn client(credentials: Credentials, conf: &str) -> Client {
    let config = ClientConfig {
        registries: RegistriesConf::parse(conf).unwrap(),
        credentials,
        user_agent: "rbuild-test/1".into(),
    };
    let timing =
        Timing { connect: Duration::from_secs(5), stall: Duration::from_secs(2), backoff: Duration::from_millis(20) };
    Client::with_timing(config, timing)
}

fn anonymous() -> Client {
    client(Credentials::anonymous(), "")
}

fn reference(host: &str, rest: &str) -> Reference {
    format!("{host}/{rest}").parse().unwrap()
}

fn descriptor(bytes: &[u8]) -> Descriptor {
    Descriptor::new(MediaType::ImageLayer, bytes.len() as u64, Digest::of(bytes).to_spec())
}

/// Bytes that do not repeat within a chunk.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

async fn push(client: &Client, to: &Reference, blob: &[u8], mount_from: &[Reference]) -> Result<Pushed, Error> {
    let owned = blob.to_vec();
    let open = move || Ok(Cursor::new(owned.clone()));
    client.push_blob(to, Digest::of(blob), blob.len() as u64, mount_from, &open, &mut |_| {}).await
}

async fn pull(client: &Client, from: &Reference, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    client.blob(from, blob, &mut bytes, &mut |_| {}).await?;
    Ok(bytes)
}

fn error_document(code: &str, message: &str) -> String {
    format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#)
}

fn manifest() -> Response {
    Response::new(200)
        .header("Content-Type", INDEX)
        .header("Docker-Content-Digest", Digest::of(MANIFEST.as_bytes()).to_string())
        .body(MANIFEST)
}

/// R6.3.1, R6.4.2 to R6.4.7.
#[tokio::test]
async fn what_is_pushed_can_be_pulled() {
    let registry = DockerRegistry::start();
    let client = anonymous();
    let image = reference(&registry.host, "team/app:1");
    let large = noise(3 << 20);
    for blob in [&large[..], b"small", b""] {
        assert!(!client.has_blob(&image, Digest::of(blob)).await.unwrap());
        assert_eq!(push(&client, &image, blob, &[]).await.unwrap(), Pushed::Uploaded);
        assert_eq!(push(&client, &image, blob, &[]).await.unwrap(), Pushed::Present);
        assert_eq!(pull(&client, &image, &descriptor(blob)).await.unwrap(), blob);
    }
    let other = reference(&registry.host, "team/other:1");
    assert!(client.mount_blob(&other, Digest::of(b"small"), &image).await.unwrap());
    assert!(!client.mount_blob(&other, Digest::of(b"nowhere"), &image).await.unwrap());
    assert_eq!(push(&client, &other, &large, std::slice::from_ref(&image)).await.unwrap(), Pushed::Mounted);
    assert_eq!(push(&client, &other, b"new", std::slice::from_ref(&image)).await.unwrap(), Pushed::Uploaded);

    let digest = client.put_manifest(&image, &INDEX.into(), MANIFEST.into()).await.unwrap();
    assert_eq!(digest, Digest::of(MANIFEST.as_bytes()));
    client.put_manifest(&image, &INDEX.into(), MANIFEST.into()).await.unwrap();
    let resolved = client.resolve(&image).await.unwrap();
    assert_eq!((resolved.digest, resolved.size), (digest, MANIFEST.len() as u64));
    assert_eq!(resolved.media_type, MediaType::ImageIndex);
    for name in [&image, &image.with_digest(digest), &image.at_digest(digest)] {
        let (media_type, found, bytes) = client.manifest(name).await.unwrap();
        assert_eq!((media_type, found, &bytes[..]), (MediaType::ImageIndex, digest, MANIFEST.as_bytes()));
    }
    // Pushed by digest only.
    let untagged = other.at_digest(digest);
    client.put_manifest(&untagged, &INDEX.into(), MANIFEST.into()).await.unwrap();
    assert_eq!(client.resolve(&untagged).await.unwrap().digest, digest);
    assert!(client.resolve(&other).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let registry = DockerRegistry::start();
    let client = anonymous();
    let missing = reference(&registry.host, "no/such:tag");
    assert_eq!(client.resolve(&missing).await.unwrap_err().to_string(), format!("{missing}: not found"));
    assert!(client.manifest(&missing).await.unwrap_err().is_not_found());
    assert!(pull(&client, &missing, &descriptor(b"x")).await.unwrap_err().is_not_found());
    // R6.4.11: the manifest names a config that nobody has pushed.
    let config = descriptor(b"{}");
    let manifest = serde_json::json!({ "schemaVersion": 2, "config": config, "layers": [],
        "mediaType": "application/vnd.oci.image.manifest.v1+json" });
    let error =
        client.put_manifest(&missing, &MediaType::ImageManifest, manifest.to_string().into()).await.unwrap_err();
    assert!(error.is_blob_unknown(), "{error}");
}

/// R6.3.3.
#[tokio::test]
async fn a_digest_may_name_a_blob() {
    let registry = Scripted::start(|request, _| match request.target.contains("/blobs/") {
        true => Response::new(200).header("Content-Type", "application/octet-stream").body("blob"),
        false => Response::new(404),
    });
    let image = reference(&registry.host, "a:1");
    let resolved = anonymous().resolve(&image.at_digest(Digest::of(b"blob"))).await.unwrap();
    assert_eq!((resolved.digest, resolved.size), (Digest::of(b"blob"), 4));
    assert!(anonymous().resolve(&image).await.unwrap_err().is_not_found());
}

/// R6.2.10, R6.5.6.
#[tokio::test]
async fn logs_in_with_a_password() {
    let registry = DockerRegistry::start_with_login();
    let image = reference(&registry.host, "team/app:1");
    let password = |password: &str| Credential::Password { username: USER.into(), password: password.into() };
    let good = client(Credentials::anonymous().with(&registry.host, password(PASSWORD)), "");
    assert_eq!(push(&good, &image, b"blob", &[]).await.unwrap(), Pushed::Uploaded);
    good.put_manifest(&image, &INDEX.into(), MANIFEST.into()).await.unwrap();
    good.resolve(&image).await.unwrap();
    let bad = client(Credentials::anonymous().with(&registry.host, password("wrong")), "");
    for refused in [anonymous(), bad] {
        let error = refused.resolve(&image).await.unwrap_err().to_string();
        assert!(
            error.contains("pull access denied, repository does not exist or may require authorization"),
            "{error}"
        );
        let error = push(&refused, &image, b"blob", &[]).await.unwrap_err().to_string();
        assert!(error.contains("push access denied, repository does not exist"), "{error}");
        assert!(!error.contains("wrong"), "{error}");
    }
}

/// A registry that wants tokens, and the server that gives them, in one.
fn token_registry(accepts: fn(&Request) -> bool) -> Scripted {
    Scripted::start(move |request, before| {
        if request.target.starts_with("/token") {
            return match accepts(request) {
                true => Response::new(200).body(format!(r#"{{"token":"T{before}","expires_in":300}}"#)),
                false => Response::new(401).body(error_document("UNAUTHORIZED", "bad credentials")),
            };
        }
        match request.header("authorization") {
            Some(authorization) if authorization.starts_with("Bearer T") => manifest(),
            _ => {
                let host = request.header("host").unwrap();
                let repository = request.target.trim_start_matches("/v2/").split("/manifests").next().unwrap();
                Response::new(401).header(
                    "WWW-Authenticate",
                    format!(r#"Bearer realm="http://{host}/token",service="s v",scope="repository:{repository}:pull""#),
                )
            }
        }
    })
}

/// R6.2.1 to R6.2.8.
#[tokio::test]
async fn fetches_a_token_once_for_each_scope() {
    let registry = token_registry(|request| request.header("authorization").is_none());
    let client = anonymous();
    let a = reference(&registry.host, "a/a:1");
    let b = reference(&registry.host, "b:1");
    client.resolve(&a).await.unwrap();
    let all = futures_util::future::join_all((0..4).map(|_| client.manifest(&a))).await;
    assert!(all.iter().all(Result::is_ok));
    client.resolve(&b).await.unwrap();
    let tokens: Vec<String> = registry.lines().into_iter().filter(|line| line.contains("/token")).collect();
    assert_eq!(
        tokens,
        [
            "GET /token?service=s%20v&scope=repository%3Aa%2Fa%3Apull",
            "GET /token?service=s%20v&scope=repository%3Ab%3Apull"
        ]
    );
    // The second repository is asked with a token from the start.
    assert_eq!(registry.requests().iter().filter(|r| r.header("authorization").is_none()).count(), 1 + tokens.len());
}

#[tokio::test]
async fn token_servers_get_what_they_want() {
    // Basic on GET is refused: the form is tried (R6.2.5).
    let registry = token_registry(|r| {
        let form = String::from_utf8_lossy(&r.body);
        r.method == "POST" && form.contains("grant_type=password&username=u&password=p%26w")
    });
    let password = Credential::Password { username: "u".into(), password: "p&w".into() };
    let with = |credential| client(Credentials::anonymous().with(&registry.host, credential), "");
    let image = reference(&registry.host, "a:1");
    with(password.clone()).resolve(&image).await.unwrap();
    let error = with(Credential::IdentityToken("id".into())).resolve(&image).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Denied { .. }), "{text}");
    assert!(text.contains("refuses the stored credentials") && text.contains("bad credentials"), "{text}");
    assert!(!text.contains("service="), "no query: {text}");

    // An identity token goes by POST at once (R6.2.6).
    let registry = token_registry(|r| {
        r.method == "POST" && String::from_utf8_lossy(&r.body).contains("grant_type=refresh_token&refresh_token=id")
    });
    let credentials = Credentials::anonymous().with(&registry.host, Credential::IdentityToken("id".into()));
    client(credentials, "").resolve(&reference(&registry.host, "a:1")).await.unwrap();
    assert!(registry.lines().iter().all(|line| !line.starts_with("GET /token")));
}

/// R6.2.9: an expired token is replaced, a useless one is not.
#[tokio::test]
async fn replaces_tokens_that_are_refused() {
    let registry = Scripted::start(|request, before| {
        let bearer = |host: &str, error: &str| {
            let value = format!(r#"Bearer realm="http://{host}/token",scope="repository:a:pull",error="{error}""#);
            Response::new(401).header("WWW-Authenticate", value).body(error_document("DENIED", "not for you"))
        };
        let host = request.header("host").unwrap();
        match (request.header("authorization"), &request.target[..]) {
            (_, target) if target.starts_with("/token") => {
                Response::new(200).body(format!(r#"{{"token":"T{before}"}}"#))
            }
            (None | Some("Bearer T1"), _) => bearer(host, "invalid_token"),
            (Some(_), target) if target.contains("secret") => bearer(host, "insufficient_scope"),
            (Some(_), _) => manifest(),
        }
    });
    let client = anonymous();
    // Request 0 is refused, T1 is refused, T3 does.
    client.resolve(&reference(&registry.host, "a:1")).await.unwrap();
    let before = registry.lines().len();
    let error = client.manifest(&reference(&registry.host, "a:secret")).await.unwrap_err().to_string();
    assert!(error.contains("pull access denied") && error.contains("DENIED: not for you"), "{error}");
    assert_eq!(registry.lines().len() - before, 1, "asked once: {:?}", registry.lines());
}

/// R6.3.9.
#[tokio::test]
async fn a_cut_transfer_goes_on_where_it_ended() {
    let blob = noise(300_000);
    for ranges in [true, false] {
        let bytes = blob.clone();
        let registry = Scripted::start(move |request, before| {
            let start = request
                .header("range")
                .filter(|_| ranges)
                .map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap());
            let response = match start {
                None => Response::new(200).body(bytes.clone()),
                Some(start) => Response::new(206)
                    .header("Content-Range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()))
                    .body(&bytes[start..]),
            };
            Response {
                cut_after: (before < 2).then_some(100_000 * (before + 1) / (1 + usize::from(ranges) * before)),
                ..response
            }
        });
        let pulled = pull(&anonymous(), &reference(&registry.host, "a:1"), &descriptor(&blob)).await.unwrap();
        assert_eq!(pulled, blob);
        let requests = registry.requests();
        let asked: Vec<Option<&str>> = requests.iter().map(|request| request.header("range")).collect();
        assert_eq!(asked, [None, Some("bytes=100000-"), Some("bytes=200000-")], "ranges: {ranges}");
    }
}

/// R6.3.10.
#[tokio::test]
async fn a_stored_beginning_is_continued() {
    use sha2::Digest as _;
    let blob = noise(1000);
    let bytes = blob.clone();
    let registry = Scripted::start(move |_, _| {
        Response::new(206).header("Content-Range", "bytes 400-999/1000").body(&bytes[400..])
    });
    let mut rest = Vec::new();
    let mut seen = Vec::new();
    let hasher = sha2::Sha256::new_with_prefix(&blob[..400]);
    let image = reference(&registry.host, "a:1");
    anonymous()
        .resume_blob(&image, &descriptor(&blob), hasher, 400, &mut rest, &mut |total| seen.push(total))
        .await
        .unwrap();
    assert_eq!(rest, &blob[400..]);
    assert_eq!(seen.last(), Some(&1000));
}

#[tokio::test]
async fn gives_up_on_a_connection_that_always_breaks() {
    let registry = Scripted::start(|_, _| Response { cut_after: Some(0), ..Response::new(200).body("blob") });
    let error = pull(&anonymous(), &reference(&registry.host, "a:1"), &descriptor(b"blob")).await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
    assert_eq!(registry.lines().len(), 3);
}

/// R6.3.8.
#[tokio::test]
async fn wrong_content_is_refused() {
    let registry = Scripted::start(|request, _| match &request.target[..] {
        target if target.contains("/blobs/") => Response::new(200).body("evil"),
        target if target.ends_with("/typed") => Response::new(200).header("Content-Type", INDEX).body(MANIFEST),
        target if target.ends_with("/large") => Response::new(200).body(vec![b' '; (4 << 20) + 1]),
        target if target.ends_with("/old") => Response::new(200)
            .header("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws")
            .body(r#"{"schemaVersion":1}"#),
        _ => manifest().header("X", "y").body("{}"),
    });
    let client = anonymous();
    let image = |tag: &str| reference(&registry.host, &format!("a:{tag}"));
    let same_size = pull(&client, &image("1"), &descriptor(b"good")).await;
    assert!(matches!(same_size, Err(Error::WrongDigest { .. })));
    let longer = pull(&client, &image("1"), &descriptor(b"go")).await;
    assert!(matches!(longer, Err(Error::WrongSize { .. })));
    assert!(matches!(client.manifest(&image("1")).await, Err(Error::WrongDigest { .. })));
    let pinned = image("typed").at_digest(Digest::of(b"other"));
    assert!(matches!(client.manifest(&pinned).await, Err(Error::WrongDigest { .. })));
    assert!(matches!(client.manifest(&image("large")).await, Err(Error::TooLarge { .. })));
    assert!(matches!(client.resolve(&image("old")).await, Err(Error::Schema1 { .. })));
    let config = client.fetch_blob_bytes(&image("1"), &descriptor(&noise(100)), 99).await;
    assert!(matches!(config, Err(Error::TooLarge { size: 100, limit: 99, .. })));
    // Without Docker-Content-Digest, HEAD is not enough (R6.3.2).
    assert_eq!(client.resolve(&image("typed")).await.unwrap().digest, Digest::of(MANIFEST.as_bytes()));
}

/// R6.5.4.
#[tokio::test]
async fn waits_as_long_as_a_throttling_registry_asks() {
    let registry = Scripted::start(|_, before| match before {
        0 => Response::new(429).header("Retry-After", "1"),
        1 => Response::new(503),
        _ => manifest(),
    });
    let start = Instant::now();
    anonymous().resolve(&reference(&registry.host, "a:1")).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(registry.lines().len(), 3);
}

#[tokio::test]
async fn server_errors_end_with_the_registrys_words() {
    let registry = Scripted::start(|_, _| Response::new(500).body(error_document("UNKNOWN", "disk full")));
    let error = anonymous().manifest(&reference(&registry.host, "a:1")).await.unwrap_err().to_string();
    assert!(error.contains("500") && error.contains("UNKNOWN: disk full"), "{error}");
    assert_eq!(registry.lines().len(), 4);
}

#[tokio::test]
async fn silence_ends_a_transfer() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let config = ClientConfig::default();
    let timing = Timing {
        connect: Duration::from_millis(100),
        stall: Duration::from_millis(100),
        backoff: Duration::from_millis(10),
    };
    let error = Client::with_timing(config, timing).resolve(&reference(&host, "a:1")).await.unwrap_err();
    assert!(error.is_unreachable(), "{error}");
}

/// A port on which nobody listens.
fn closed_port() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn a_refused_connection_names_the_registry() {
    let host = closed_port();
    let start = Instant::now();
    let error = anonymous().resolve(&reference(&host, "a:1")).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("cannot connect to http://{host}/v2/a/manifests/1")), "{text}");
    assert!(text.contains("refused") && text.contains("check that the registry"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

fn mirrored(origin: &str, mirrors: &[&str]) -> String {
    let mirrors: String = mirrors
        .iter()
        .map(|host| format!("[[registry.mirror]]\nlocation = \"{host}/hub\"\ninsecure = true\n"))
        .collect();
    format!("[[registry]]\nprefix = \"docker.io\"\nlocation = \"{origin}\"\n{mirrors}")
}

/// R6.1.5.
#[tokio::test]
async fn mirrors_are_asked_first_and_never_pushed_to() {
    let mirror = Scripted::start(|request, _| match request.target.contains("busybox") {
        true => manifest(),
        false => Response::new(404),
    });
    let origin = Scripted::start(|request, _| match &request.method[..] {
        "HEAD" if request.target.contains("/blobs/") => Response::new(404),
        "POST" => Response::new(202).header("Location", "/upload?state=1"),
        "PUT" => Response::new(201),
        _ => manifest(),
    });
    let client = client(Credentials::anonymous(), &mirrored(&origin.host, &[&mirror.host]));
    let resolved = client.resolve(&"busybox".parse().unwrap()).await.unwrap();
    assert_eq!(resolved.endpoint.host, mirror.host);
    assert_eq!(mirror.lines(), ["HEAD /v2/hub/library/busybox/manifests/latest?ns=docker.io"]);
    assert!(origin.lines().is_empty());
    assert_eq!(client.resolve(&"other".parse().unwrap()).await.unwrap().endpoint.host, origin.host);
    push(&client, &"busybox".parse().unwrap(), b"blob", &[]).await.unwrap();
    assert_eq!(mirror.lines().len(), 2);
    let put = format!("PUT /upload?state=1&digest={}", Digest::of(b"blob").to_string().replace(':', "%3A"));
    assert_eq!(origin.lines().last(), Some(&put));
}

#[tokio::test]
async fn a_mirrors_not_found_counts_when_the_origin_is_unreachable() {
    let mirror = Scripted::start(|_, _| Response::new(404).body(error_document("MANIFEST_UNKNOWN", "no")));
    let origin = closed_port();
    let client = client(Credentials::anonymous(), &mirrored(&origin, &[&mirror.host]));
    let start = Instant::now();
    let error = client.resolve(&"nosuch".parse().unwrap()).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(error.is_not_found());
    let text = error.to_string();
    assert!(text.starts_with("docker.io/library/nosuch:latest: not found ("), "{text}");
    assert!(text.contains(&format!("mirror {} does not have it", mirror.host)), "{text}");
    assert!(text.contains(&format!("{origin}: cannot connect")), "{text}");
}

#[tokio::test]
async fn a_broken_mirror_is_passed_over() {
    let broken = Scripted::start(|_, _| Response::new(500));
    let origin = Scripted::start(|_, _| manifest());
    let client = client(Credentials::anonymous(), &mirrored(&origin.host, &[&closed_port(), &broken.host]));
    client.resolve(&"busybox".parse().unwrap()).await.unwrap();
    assert_eq!(broken.lines().len(), 1, "not asked again, since the origin follows");
}

/// R6.1.10.
#[tokio::test]
async fn redirects_lose_the_authorization() {
    let blob = b"blob".to_vec();
    let storage = Scripted::start(move |_, _| Response::new(200).body(blob.clone()));
    let target = format!("http://{}/storage?signature=hush", storage.host);
    let registry = Scripted::start(move |request, _| match request.header("authorization") {
        None => Response::new(401).header("WWW-Authenticate", "Basic realm=x"),
        Some(_) if request.target.contains("loop") => Response::new(302).header("Location", request.target.clone()),
        Some(_) => Response::new(307).header("Location", target.clone()),
    });
    let password = Credential::Password { username: "u".into(), password: "p".into() };
    let client = client(Credentials::anonymous().with(&registry.host, password), "");
    assert_eq!(pull(&client, &reference(&registry.host, "a:1"), &descriptor(b"blob")).await.unwrap(), b"blob");
    assert_eq!(storage.requests()[0].header("authorization"), None);
    let wrong = pull(&client, &reference(&registry.host, "a:1"), &descriptor(b"evil")).await.unwrap_err().to_string();
    assert!(wrong.contains("/storage") && !wrong.contains("hush"), "{wrong}");
    let error = pull(&client, &reference(&registry.host, "loop:1"), &descriptor(b"blob")).await.unwrap_err();
    assert!(error.to_string().contains("more than 10 redirects"), "{error}");
}

/// R11 11, 12: a failed upload begins anew, unless it has succeeded after all.
#[tokio::test]
async fn broken_uploads_begin_anew() {
    let registry = Scripted::start(|request, before| match (&request.method[..], before) {
        ("HEAD", _) => Response::new(404),
        ("POST", _) => Response::new(202).header("Location", format!("session-{before}")),
        ("PUT", 0..=2) => Response::new(503),
        _ => Response::new(201),
    });
    push(&anonymous(), &reference(&registry.host, "a:1"), b"blob", &[]).await.unwrap();
    let methods: Vec<String> = registry.requests().iter().map(|request| request.method.clone()).collect();
    assert_eq!(methods, ["HEAD", "POST", "PUT", "HEAD", "POST", "PUT"]);
    let lines = registry.lines();
    assert!(lines[2].starts_with("PUT /v2/a/blobs/uploads/session-1?digest="), "{lines:?}");
    assert!(lines[5].contains("session-4"), "{lines:?}");
    assert!(registry.requests().iter().filter(|r| r.method == "PUT").all(|r| r.body == b"blob"));

    let stored = Scripted::start(|request, before| match (&request.method[..], before) {
        ("HEAD", 3) => Response::new(200),
        ("HEAD", _) => Response::new(404),
        ("POST", _) => Response::new(202).header("Location", "/session"),
        _ => Response::new(500),
    });
    push(&anonymous(), &reference(&stored.host, "a:1"), b"blob", &[]).await.unwrap();
    assert_eq!(stored.lines().len(), 4);
}

/// R6.4.5.
#[tokio::test]
async fn what_is_too_large_for_one_request_goes_in_pieces() {
    let blob = noise((8 << 20) + 10);
    let registry = Scripted::start(|request, before| match &request.method[..] {
        "HEAD" => Response::new(404),
        "POST" => Response::new(202).header("Location", "/session?n=0"),
        "PUT" if !request.body.is_empty() => Response::new(413),
        "PATCH" => Response::new(202).header("Location", format!("/session?n={before}")),
        _ => Response::new(201),
    });
    push(&anonymous(), &reference(&registry.host, "a:1"), &blob, &[]).await.unwrap();
    let patches: Vec<Request> = registry.requests().into_iter().filter(|r| r.method == "PATCH").collect();
    let ranges: Vec<Option<&str>> = patches.iter().map(|patch| patch.header("content-range")).collect();
    assert_eq!(ranges, [Some("0-8388607"), Some("8388608-8388617")]);
    assert_eq!(patches.iter().flat_map(|patch| patch.body.clone()).collect::<Vec<_>>(), blob);
    assert!(registry.lines().last().unwrap().starts_with("PUT /session?n=5&digest="), "{:?}", registry.lines());
}

/// R11 9: what the store has must be what the registry gets.
#[tokio::test]
async fn a_damaged_local_blob_is_not_uploaded() {
    let registry = DockerRegistry::start();
    let client = anonymous();
    let image = reference(&registry.host, "a:1");
    let digest = Digest::of(&noise(200_000));
    for (damaged, why) in [(vec![0; 200_000], "damaged"), (vec![0; 100], "200000"), (vec![0; 200_001], "200000")] {
        let open = move || Ok(Cursor::new(damaged.clone()));
        let error = client.upload_blob(&image, digest, 200_000, &open, &mut |_| {}).await.unwrap_err();
        assert!(matches!(error, Error::Local { .. }) && error.to_string().contains(why), "{error}");
    }
    let missing = || std::fs::File::open("/nonexistent/blob");
    let error = client.upload_blob(&image, digest, 200_000, &missing, &mut |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::Local { .. }), "{error}");
    assert!(!client.has_blob(&image, digest).await.unwrap());
}

/// R6.1.9.
#[tokio::test]
async fn four_transfers_at_a_time() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let registry = Scripted::start(|_, _| {
        MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(50));
        NOW.fetch_sub(1, Ordering::SeqCst);
        Response::new(200).body("blob")
    });
    let (client, image, blob) = (anonymous(), reference(&registry.host, "a:1"), descriptor(b"blob"));
    let pulls = (0..12).map(|_| pull(&client, &image, &blob));
    assert!(futures_util::future::join_all(pulls).await.iter().all(Result::is_ok));
    assert_eq!(MOST.load(Ordering::SeqCst), 4);
}

/// Callers spawn these.
#[test]
fn futures_can_move_between_threads() {
    fn movable<T: Send>(value: T) -> T {
        value
    }
    let client = anonymous();
    let image: Reference = "a".parse().unwrap();
    let blob = descriptor(b"");
    let (mut sink, mut progress) = (Vec::new(), |_: u64| {});
    let open = || Ok(Cursor::new(Vec::new()));
    drop(movable(client.resolve(&image)));
    drop(movable(client.manifest(&image)));
    drop(movable(client.blob(&image, &blob, &mut sink, &mut progress)));
    drop(movable(client.push_blob(&image, Digest::of(b""), 0, &[], &open, &mut |_| {})));
    drop(movable(client.put_manifest(&image, &MediaType::ImageIndex, Bytes::new())));
}
