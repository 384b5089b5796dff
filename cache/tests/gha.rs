//! A cache in the service of GitHub Actions (R7.6.14), against a server of its protocols. That the server is like GitHub's is shown with GitHub's own client, where
//! that is installed.

mod support;

use bytes::Bytes;
use cache::remote::{GhaCache, GhaConfig, Published, Transport};
use oci::fetch::{Exchange, Timing};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::actions::Actions;
use support::server::Response;
use support::{attributes, blob, read};

const MAIN: &str = "refs/heads/main";
const PULL: &str = "refs/pull/7/merge";

fn gha(server: &Actions, version: &str, token: &str, more: &[(&str, &str)]) -> GhaCache {
    let mut pairs = vec![("url", server.url.as_str()), ("version", version), ("token", token)];
    pairs.extend(more);
    let mut attributes = attributes(&pairs);
    let url = server.url.clone();
    let config = GhaConfig::new(&mut attributes, &|name| (name == "GITHUB_API_URL").then(|| url.clone()));
    attributes.finish().unwrap();
    let timing = Timing { backoff: Duration::from_millis(1), ..Timing::default() };
    GhaCache::new(config.ok().unwrap(), Exchange::with_timing("test/1", timing))
}

fn document(text: &'static str) -> Published {
    Published { config: Bytes::from_static(text.as_bytes()), blobs: Vec::new() }
}

async fn documents(cache: &GhaCache) -> Vec<Bytes> {
    cache.published().await.unwrap().into_iter().map(|published| published.config).collect()
}

#[tokio::test]
async fn blobs_and_documents_go_there_and_back() {
    for version in ["1", "2"] {
        let (server, directory) = (Actions::start(), tempfile::tempdir().unwrap());
        let cache = gha(&server, version, &server.token(&[(MAIN, 3)]), &[]);
        assert!(documents(&cache).await.is_empty());
        // One request, and pieces of which the last is smaller.
        for size in [1000, 8 << 20, (20 << 20) + 7] {
            let (blob, path) = blob(directory.path(), size);
            assert!(!cache.has_blob(&blob).await.unwrap());
            let error = read(&cache, &blob).await.unwrap_err().to_string();
            assert!(error.ends_with("is not in the cache"), "{error}");
            let mut seen = 0;
            cache.write_blob(&blob, &path, &mut |done| seen = done).await.unwrap();
            assert_eq!(seen, size as u64);
            assert!(cache.has_blob(&blob).await.unwrap());
            assert_eq!(read(&cache, &blob).await.unwrap(), std::fs::read(&path).unwrap());
            // Somebody else had it first: nothing moves.
            cache.write_blob(&blob, &path, &mut |_| {}).await.unwrap();
        }
        for text in ["{\"first\":1}", "{\"second\":2}"] {
            cache.publish(&document(text)).await.unwrap();
            assert_eq!(documents(&cache).await, [text]);
        }
        let (first, _) = blob(directory.path(), 1000);
        let keys = server.keys();
        assert_eq!(keys[0], format!("buildkit-blob-1-{}", first.digest()));
        // The hash is sha256 of the branch's name.
        assert_eq!(keys[3..], ["index-buildkit-1-f921bd05#1", "index-buildkit-1-f921bd05#2"].map(|key| key.to_owned()));
    }
}

#[tokio::test]
async fn branches_read_what_they_come_from() {
    let server = Actions::start();
    let main = gha(&server, "2", &server.token(&[(MAIN, 3)]), &[]);
    let pull = gha(&server, "2", &server.token(&[(MAIN, 1), (PULL, 3)]), &[]);
    let fork = gha(&server, "2", &server.token(&[(MAIN, 1)]), &[]);
    main.publish(&document("main")).await.unwrap();
    pull.publish(&document("pull")).await.unwrap();
    assert_eq!(documents(&main).await, ["main"]);
    assert_eq!(documents(&pull).await, ["pull", "main"], "its own first");
    assert_eq!(documents(&fork).await, ["main"]);
    let error = fork.publish(&document("fork")).await.unwrap_err().to_string();
    assert!(error.contains("the token may only read caches"), "{error}");
    let other = gha(&server, "2", &server.token(&[(MAIN, 3)]), &[("scope", "other")]);
    assert!(documents(&other).await.is_empty());
}

/// Whoever died after it had reserved the next number does not stop others for ever.
#[tokio::test]
async fn reserved_numbers_are_passed() {
    let server = Actions::start();
    let cache = gha(&server, "1", &server.token(&[(MAIN, 3)]), &[]);
    cache.publish(&document("1")).await.unwrap();
    server.reserve("index-buildkit-1-f921bd05#2", "index-");
    cache.publish(&document("3")).await.unwrap();
    assert_eq!(documents(&cache).await, ["3"]);
    assert!(server.keys().contains(&"index-buildkit-1-f921bd05#3".to_owned()));
}

#[tokio::test]
async fn what_passes_is_waited_for() {
    for version in ["1", "2"] {
        let (server, directory) = (Actions::start(), tempfile::tempdir().unwrap());
        let cache = gha(&server, version, &server.token(&[(MAIN, 3)]), &[]);
        let (blob, path) = blob(directory.path(), 100_000);
        let busy = |status| Response::new(status).header("Retry-After", "0");
        for part in ["CreateCacheEntry", "FinalizeCacheEntryUpload", "GetCacheEntry", "/account/", "caches", "cache"] {
            server.fail(part, busy(429));
            server.fail(part, busy(503));
        }
        cache.write_blob(&blob, &path, &mut |_| {}).await.unwrap();
        // A connection that breaks in the middle, and a URL that has expired.
        let bytes = std::fs::read(&path).unwrap();
        let begun = Response { cut_after: Some(60_000), ..Response::new(200).body(bytes.clone()) };
        server.requests();
        server.fail("/account/", begun);
        server.fail("/account/", Response::new(403));
        assert_eq!(read(&cache, &blob).await.unwrap(), bytes);
        let ranges: Vec<_> =
            server.requests().iter().filter_map(|request| request.header("range").map(str::to_owned)).collect();
        assert!(
            ranges.len() >= 2 && ranges.iter().all(|range| range == &ranges[0] && range != "bytes=0-"),
            "{ranges:?}"
        );
    }
}

#[tokio::test]
async fn errors_say_why_and_keep_the_token() {
    let directory = tempfile::tempdir().unwrap();
    let (blob, path) = blob(directory.path(), 10);
    let token =
        "e30.eyJhYyI6Ilt7XCJTY29wZVwiOlwieFwiLFwiUGVybWlzc2lvblwiOjN9XSIsImV4cCI6OTk5OTk5OTk5OTksIm5iZiI6MX0.c2ln";
    for version in ["1", "2"] {
        let server = Actions::start();
        let cache = gha(&server, version, token, &[]);
        let error = cache.published().await.err().unwrap().to_string();
        assert!(error.contains("401") && error.contains("is not accepted") && !error.contains("eyJ"), "{error}");
        let cache = gha(&server, version, &server.token(&[(MAIN, 3)]), &[("timeout", "50ms")]);
        server.fail("", Response::new(429).header("Retry-After", "60"));
        let error = cache.write_blob(&blob, &path, &mut |_| {}).await.unwrap_err().to_string();
        assert!(error.contains("429") && error.contains("too many requests"), "{error}");
        server.fail("/account/", Response::new(403).body("<Error/>"));
        server.fail("caches/", Response::new(403).body("<Error/>"));
        let error = cache.write_blob(&blob, &path, &mut |_| {}).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot save \"buildkit-blob-1-sha256:") && !error.contains("sig"), "{error}");
    }
    let old = "e30.eyJhYyI6Ilt7XCJTY29wZVwiOlwieFwiLFwiUGVybWlzc2lvblwiOjN9XSIsImV4cCI6MTAwMCwibmJmIjoxfQ.c2ln";
    let server = Actions::start();
    let error = gha(&server, "2", old, &[]).published().await.err().unwrap().to_string();
    assert!(error.contains("has expired") && server.requests().is_empty(), "{error}");
}

/// With `repository` and `ghtoken`, GitHub's API is asked once for all keys.
#[tokio::test]
async fn keys_are_listed_at_once() {
    let (server, directory) = (Actions::start(), tempfile::tempdir().unwrap());
    let token = server.token(&[(MAIN, 3)]);
    let writer = gha(&server, "2", &token, &[]);
    let blobs: Vec<_> = (1..=101).map(|size| blob(directory.path(), size)).collect();
    for (blob, path) in &blobs {
        writer.write_blob(blob, path, &mut |_| {}).await.unwrap();
    }
    server.requests();
    let cache = gha(&server, "2", &token, &[("repository", "o/n"), ("ghtoken", &token)]);
    for (blob, _) in &blobs {
        assert!(cache.has_blob(blob).await.unwrap());
    }
    assert!(!cache.has_blob(&blob(directory.path(), 500).0).await.unwrap());
    let asked = server.requests();
    assert_eq!(asked.len(), 2, "two pages");
    assert!(asked.iter().all(|request| request.path == "/repos/o/n/actions/caches"));
}

/// GitHub's client, `@actions/cache`, takes the server for GitHub's. `scripts/actions-cache target/actions-cache` installs it.
#[test]
fn the_server_is_like_githubs() {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/actions-cache/node_modules");
    if !modules.exists() {
        eprintln!("not run: there is no {}", modules.display());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for version in ["1", "2"] {
        let server = Actions::start();
        let output = Command::new("node")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/actions-cache.cjs"))
            .current_dir(directory.path())
            .env("NODE_PATH", &modules)
            .env("RUNNER_TEMP", directory.path())
            .env("GITHUB_WORKSPACE", directory.path())
            .env("GITHUB_SERVER_URL", "https://github.com")
            .env("ACTIONS_RUNTIME_TOKEN", server.token(&[(MAIN, 3)]))
            .env("ACTIONS_CACHE_URL", format!("{}/", server.url))
            .env("ACTIONS_RESULTS_URL", format!("{}/", server.url))
            .env("ACTIONS_CACHE_SERVICE_V2", if version == "2" { "true" } else { "" })
            .output()
            .unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "version {version}: {stdout}{stderr}");
        let requests = server.requests();
        let is_new = requests.iter().any(|request| request.path.contains("FinalizeCacheEntryUpload"));
        assert_eq!(is_new, version == "2", "{stdout}");
        assert_eq!(server.keys(), ["key-1", "key-2"]);
    }
}
