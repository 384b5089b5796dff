//! A cache in an object store, against moto, which checks signatures (R7.6.15).

mod support;

use bytes::Bytes;
use cache::remote::{Published, S3Cache, S3Config, Transport};
use oci::fetch::{Exchange, Timing};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::server::{self, Response};
use support::{Moto, attributes, blob, read};

fn exchange() -> Exchange {
    Exchange::with_timing("test/1", Timing { backoff: Duration::from_millis(1), ..Timing::default() })
}

fn s3(mut attributes: cache::remote::Attributes) -> S3Cache {
    let config = S3Config::new(&mut attributes, &|_| None);
    attributes.finish().unwrap();
    S3Cache::new(config.ok().unwrap(), exchange())
}

#[tokio::test]
async fn blobs_and_documents_go_there_and_back() {
    let (moto, directory) = (Moto::start(&["cache"]), tempfile::tempdir().unwrap());
    let more = [("prefix", "a b/+ü/"), ("name", "one;two"), ("upload_parallelism", "2")];
    let s3 = s3(moto.attributes("cache", &more));
    assert!(s3.published().await.unwrap().is_empty());
    // One request, and parts of which the last is smaller.
    for size in [0, 1000, 8 << 20, (20 << 20) + 7] {
        let (blob, path) = blob(directory.path(), size);
        assert!(!s3.has_blob(&blob).await.unwrap());
        let error = read(&s3, &blob).await.unwrap_err().to_string();
        assert!(error.ends_with("is not in the cache"), "{error}");
        let mut seen = 0;
        s3.write_blob(&blob, &path, &mut |done| seen = done).await.unwrap();
        assert_eq!(seen, size as u64);
        assert!(s3.has_blob(&blob).await.unwrap());
        assert_eq!(read(&s3, &blob).await.unwrap(), std::fs::read(&path).unwrap());
    }
    let published = Published { config: Bytes::from_static(b"{\"layers\":[]}"), blobs: Vec::new() };
    assert!(s3.publish(&published).await.unwrap().is_none());
    assert_eq!(s3.published().await.unwrap()[0].config, published.config);
    // Where BuildKit looks (R7.6.15), as another client sees it.
    let keys = moto.boto("sorted(o['Key'] for o in s3.list_objects_v2(Bucket='cache')['Contents'])");
    assert_eq!(keys.matches("'a b/+ü/blobs/sha256:").count(), 4, "{keys}");
    assert!(keys.ends_with("'a b/+ü/manifests/one', 'a b/+ü/manifests/two']"), "{keys}");
    assert_eq!(moto.boto("len(s3.list_multipart_uploads(Bucket='cache').get('Uploads', []))"), "0");
}

/// A blob that is older than `touch_refresh` is made new, and keeps its bytes.
#[tokio::test]
async fn old_blobs_are_renewed() {
    let (moto, directory) = (Moto::start(&["cache"]), tempfile::tempdir().unwrap());
    let s3 = s3(moto.attributes("cache", &[("touch_refresh", "1s")]));
    let (blob, path) = blob(directory.path(), 5000);
    s3.write_blob(&blob, &path, &mut |_| {}).await.unwrap();
    let head = format!("s3.head_object(Bucket='cache', Key='blobs/{}')['LastModified']", blob.digest());
    let before = moto.boto(&head);
    std::thread::sleep(Duration::from_millis(2100));
    assert!(s3.has_blob(&blob).await.unwrap());
    assert_ne!(moto.boto(&head), before);
    assert_eq!(read(&s3, &blob).await.unwrap(), std::fs::read(&path).unwrap());
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let (moto, directory) = (Moto::start(&["cache"]), tempfile::tempdir().unwrap());
    let (blob, path) = blob(directory.path(), 10);
    let (large, large_path) = support::blob(directory.path(), 9 << 20);
    let error = async |bucket: &str, more: &[(&str, &str)]| {
        let s3 = s3(moto.attributes(bucket, more));
        let reading = s3.published().await.unwrap_err().to_string();
        let writing = s3.write_blob(&blob, &path, &mut |_| {}).await.unwrap_err().to_string();
        let parts = s3.write_blob(&large, &large_path, &mut |_| {}).await.unwrap_err().to_string();
        for text in [&reading, &writing, &parts] {
            assert!(text.contains("s3://") && !text.contains(&moto.writer.1), "{text}");
        }
        [reading, writing, parts].join("\n")
    };
    let text = error("absent", &[]).await;
    assert_eq!(text.matches("there is no bucket \"absent\": make it").count(), 3, "{text}");
    let text = error("cache", &[("secret_access_key", "wrong")]).await;
    assert_eq!(text.matches("does not know these credentials").count(), 3, "{text}");
    let nobody = [("access_key_id", moto.nobody.0.as_str()), ("secret_access_key", &moto.nobody.1)];
    let text = error("cache", &nobody).await;
    assert_eq!(text.matches("the credentials need s3:GetObject").count(), 3, "{text}");
}

/// The tests' own environment has no credentials, so that those of a test's process can be tried in e2e tests only.
#[tokio::test]
async fn nobody_listens() {
    let given = [
        ("bucket", "b"),
        ("region", "r"),
        ("endpoint_url", "http://127.0.0.1:1"),
        ("access_key_id", "k"),
        ("secret_access_key", "hush"),
    ];
    let error = s3(attributes(&given)).published().await.unwrap_err().to_string();
    assert!(
        error.starts_with("cannot read s3://b/manifests/buildkit: cannot connect to http://127.0.0.1:1"),
        "{error}"
    );
    assert!(!error.contains("hush"), "{error}");
}

/// Stores that are busy, that break off, and that say of a large blob at its very end that they could not.
#[tokio::test]
async fn what_passes_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let (blob, path) = blob(directory.path(), 9 << 20);
    let bytes = std::fs::read(&path).unwrap();
    let (content, seen) = (bytes.clone(), Arc::new(Mutex::new(Vec::<String>::new())));
    let log = seen.clone();
    let host = server::start(move |request| {
        let what = format!("{} {}", request.method, request.query.first().map_or("", |(name, _)| name));
        let range = request.header("range").map(str::to_owned);
        let mut log = log.lock().unwrap();
        let before = log.iter().filter(|known| **known == what).count();
        log.push(what.clone());
        let slow_down = Response::new(503).header("Retry-After", "0").body("<Error><Code>SlowDown</Code></Error>");
        match (what.as_str(), before, range) {
            ("GET ", 0, None) | ("POST uploads", 0, _) | ("PUT partNumber", 0, _) => slow_down,
            ("GET ", 1, None) => Response { cut_after: Some(5_000_000), ..Response::new(200).body(content.clone()) },
            ("GET ", _, Some(range)) => {
                let from: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
                let length = content.len();
                let answer = Response::new(206).body(&content[from..]);
                answer.header("content-range", format!("bytes {from}-{}/{length}", length - 1))
            }
            ("POST uploads", ..) => Response::new(200)
                .body("<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"),
            ("PUT partNumber", ..) => Response::new(200).header("etag", "\"t\""),
            ("POST uploadId", 0, _) => Response::new(200).body("<Error><Code>InternalError</Code></Error>"),
            ("POST uploadId", ..) => {
                Response::new(200).body("<CompleteMultipartUploadResult><ETag>t</ETag></CompleteMultipartUploadResult>")
            }
            _ => Response::new(404),
        }
    });
    let endpoint = format!("http://{host}");
    let pairs = [
        ("bucket", "b"),
        ("region", "r"),
        ("endpoint_url", endpoint.as_str()),
        ("access_key_id", "k"),
        ("secret_access_key", "s"),
    ];
    let s3 = s3(attributes(&pairs));
    assert_eq!(read(&s3, &blob).await.unwrap(), bytes);
    s3.write_blob(&blob, &path, &mut |_| {}).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().filter(|what| *what == "POST uploadId").count(), 2, "{seen:?}");
    assert!(!seen.iter().any(|what| what.starts_with("DELETE")), "{seen:?}");
}
