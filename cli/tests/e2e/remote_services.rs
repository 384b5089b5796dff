//! Remote caches in services: object stores and GitHub's, and the directories of `RUN --mount=type=cache` in them. Two stores on one machine are two
//! machines that share nothing but the service.

#[path = "../../../cache/tests/support/mod.rs"]
mod support;

use crate::harness::{Harness, Outcome, Registry, tool};
use crate::remote_cache::{machine, project};
use std::path::Path;
use support::Moto;
use support::actions::Actions;
use support::server::{self, Response};

const NOTHING: [&str; 0] = [];
const VARIABLES: [&str; 12] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "ACTIONS_RUNTIME_TOKEN",
    "ACTIONS_RESULTS_URL",
    "ACTIONS_CACHE_URL",
];

/// Builds with these variables, and no others of services.
fn build(harness: &Harness, context: &Path, flags: &[&str], variables: &[(&str, &str)]) -> Outcome {
    let mut args = vec!["build", "--progress=plain"];
    args.extend(flags);
    args.push(context.to_str().unwrap());
    let mut command = harness.command(&args);
    for name in VARIABLES {
        command.env_remove(name);
    }
    // Nothing of this machine counts.
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", harness.path(""));
    command.envs(variables.iter().copied());
    Outcome::of(command.output().unwrap())
}

fn s3(moto: &Moto, more: &str) -> String {
    format!("type=s3,bucket=cache,region=us-east-1,endpoint_url=http://{}{more}", moto.host)
}

/// R7.6.15.
#[test]
fn an_object_store_between_machines() {
    let (moto, first) = (Moto::start(&["cache"]), Harness::new());
    let keys = [("AWS_ACCESS_KEY_ID", moto.writer.0.as_str()), ("AWS_SECRET_ACCESS_KEY", &moto.writer.1)];
    let (to, from) = (s3(&moto, ",mode=max,prefix=ci/,name=one;two"), s3(&moto, ",prefix=ci/,name=two"));
    let flags = ["--cache-from", &from, "--cache-to", &to, "-t", "x"];
    let built = build(&first, &project(&first), &flags, &keys).ok();
    let built = built.says("importing cache manifest from s3://cache/ci/two").says("there is no cache yet");
    built.says("exporting cache to Amazon S3").says("writing layer sha256:");
    let listed = moto.boto("sorted(o['Key'] for o in s3.list_objects_v2(Bucket='cache')['Contents'])");
    assert_eq!(listed.matches("'ci/blobs/sha256:").count(), 7, "{listed}");
    assert_eq!(listed.matches("'ci/manifests/").count(), 2, "{listed}");

    let second = machine(&first);
    let built = build(&second, &project(&second), &["--cache-from", &from, "-t", "x"], &keys).ok();
    assert_eq!(built.ran(), NOTHING, "{}", built.stderr);
    assert_eq!(second.output("x", &["cat", "/all"]), "a\nb\n");

    // The bucket as a part of the host's name, which only a proxy can resolve here.
    let proxy = format!("http://{}", moto.host);
    let proxied = [keys[0], keys[1], ("http_proxy", &proxy), ("HTTP_PROXY", &proxy)];
    let amazon = "type=s3,bucket=cache,region=us-east-1,endpoint_url=http://s3.us-east-1.amazonaws.com,prefix=host/";
    build(&second, &project(&second), &["--cache-to", &format!("{amazon},mode=max")], &proxied).ok();
    let listed = moto.boto("s3.list_objects_v2(Bucket='cache', Prefix='host/')['KeyCount']");
    assert_eq!(listed, "8");
    let third = machine(&first);
    let built = build(&third, &project(&third), &["--cache-from", amazon], &proxied).ok();
    assert_eq!(built.ran(), NOTHING, "{}", built.stderr);

    // Who may not read it builds without; who may not write it fails, unless that does not matter (R7.5.4).
    let third = machine(&first);
    let nobody = [("AWS_ACCESS_KEY_ID", moto.nobody.0.as_str()), ("AWS_SECRET_ACCESS_KEY", &moto.nobody.1)];
    let built = build(&third, &project(&third), &["--cache-from", &from], &nobody).ok();
    assert_eq!(built.ran().len(), 7);
    built.says("the credentials need s3:GetObject").says("the build goes on without this cache");
    build(&third, &project(&third), &["--cache-to", &to], &nobody).fails(1).says("exporting cache to Amazon S3 failed");
    let ignored = format!("{to},ignore-error=true");
    build(&third, &project(&third), &["--cache-to", &ignored], &nobody).ok().says("s3:PutObject");
    build(&third, &project(&third), &["--cache-to", &to], &[])
        .fails(1)
        .says("there are no credentials: set access_key_id");

    // What is wrong with the flags.
    let wrong = format!("{to},secret_access_key=hush");
    let outcome = build(&third, &project(&third), &["--cache-to", &wrong], &[]).fails(2).says("are needed together");
    assert!(!outcome.stderr.contains("hush"), "{}", outcome.stderr);
    build(&third, &project(&third), &["--cache-to", "type=s3,region=r"], &[]).fails(2).says("s3 needs a bucket");
}

/// Where CI systems leave credentials. The services that give them are the test's; the store checks that they are right.
#[test]
fn credentials_are_found() {
    let (moto, harness) = (Moto::start(&["cache"]), Harness::new());
    let (key, secret) = moto.writer.clone();
    let given = moto.role.clone();
    let services = server::start(move |request| {
        let json = serde_json::json!({
            "Code": "Success", "AccessKeyId": given.0, "SecretAccessKey": given.1, "Token": given.2, "Expiration": "2999-01-01T00:00:00Z",
        });
        let body = String::from_utf8_lossy(&request.body);
        let is_sts = |text: &str| request.query("Action") == Some(text) || body.contains(&format!("Action={text}"));
        match request.path.as_str() {
            _ if is_sts("AssumeRoleWithWebIdentity") => {
                assert!(body.contains("the-token") || request.query("WebIdentityToken") == Some("the-token"));
                Response::new(200).body(format!(
                    "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{}</AccessKeyId>\
                     <SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration>\
                     </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
                    given.0, given.1, given.2
                ))
            }
            "/container" if request.header("authorization") == Some("let-me-in") => {
                Response::new(200).body(json.to_string())
            }
            "/latest/api/token" => Response::new(200).body("imds"),
            _ if request.header("x-aws-ec2-metadata-token") != Some("imds") => Response::new(401),
            "/latest/meta-data/iam/security-credentials/" => Response::new(200).body("role"),
            "/latest/meta-data/iam/security-credentials/role" => Response::new(200).body(json.to_string()),
            _ => Response::new(404),
        }
    });
    let services = format!("http://{services}");
    let token = harness.path_text("token");
    std::fs::write(&token, "the-token\n").unwrap();
    let file = harness.path_text("credentials");
    std::fs::write(&file, format!("[ci]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")).unwrap();
    let container = format!("{services}/container");
    let sources: [&[(&str, &str)]; 5] = [
        &[("AWS_ACCESS_KEY_ID", &key), ("AWS_SECRET_ACCESS_KEY", &secret)],
        &[
            ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/ci"),
            ("AWS_ENDPOINT_URL_STS", &services),
        ],
        &[("AWS_PROFILE", "ci"), ("AWS_SHARED_CREDENTIALS_FILE", &file)],
        &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &container), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let-me-in")],
        &[("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &services)],
    ];
    let context = harness.context("context", "FROM busybox\nRUN echo x > /x\n");
    for (number, variables) in sources.into_iter().enumerate() {
        let to = s3(&moto, &format!(",name=n{number}"));
        let outcome = build(&harness, &context, &["--cache-to", &to], variables);
        assert_eq!(outcome.code, Some(0), "source {number}: {}", outcome.stderr);
        for hidden in [&secret, &moto.role.1, &moto.role.2, "the-token"] {
            assert!(!outcome.stderr.contains(hidden), "{}", outcome.stderr);
        }
    }
    assert_eq!(moto.boto("s3.list_objects_v2(Bucket='cache', Prefix='manifests/')['KeyCount']"), "5");
    // The first that there is must work.
    let wrong = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/x"),
        ("AWS_ENDPOINT_URL_STS", &container),
    ];
    std::fs::write(&token, "").unwrap();
    build(&harness, &context, &["--cache-to", &s3(&moto, "")], &wrong).fails(1).says("AWS_WEB_IDENTITY_TOKEN_FILE");
    let absent = [("AWS_PROFILE", "absent"), ("AWS_SHARED_CREDENTIALS_FILE", &file)];
    build(&harness, &context, &["--cache-to", &s3(&moto, "")], &absent).fails(1).says("there are no credentials");
}

/// R7.6.14. A branch reads what the branch that it comes from has written.
#[test]
fn githubs_service_between_machines() {
    for version in ["1", "2"] {
        let (server, first) = (Actions::start(), Harness::new());
        let main = server.token(&[("refs/heads/main", 3)]);
        let pull = server.token(&[("refs/heads/main", 1), ("refs/pull/7/merge", 3)]);
        let variables = |token| {
            let url = if version == "2" { "ACTIONS_RESULTS_URL" } else { "ACTIONS_CACHE_URL" };
            let v2 = if version == "2" { "True" } else { "" };
            [(url, server.url.as_str()), ("ACTIONS_RUNTIME_TOKEN", token), ("ACTIONS_CACHE_SERVICE_V2", v2)]
        };
        let flags = ["--cache-from", "type=gha", "--cache-to", "type=gha,mode=max", "-t", "x"];
        let built = build(&first, &project(&first), &flags, &variables(&main)).ok();
        assert_eq!(built.ran().len(), 7);
        built.says("there is no cache yet").says("exporting to GitHub Actions Cache");
        assert_eq!(server.keys().iter().filter(|key| key.starts_with("buildkit-blob-1-sha256:")).count(), 7);

        let second = machine(&first);
        let built = build(&second, &project(&second), &flags, &variables(&pull)).ok();
        assert_eq!(built.ran(), NOTHING, "{}", built.stderr);
        assert_eq!(second.output("x", &["cat", "/all"]), "a\nb\n");
        let keys = server.keys();
        assert_eq!(keys.iter().filter(|key| key.starts_with("index-buildkit-1-")).count(), 2, "{keys:?}");
        assert_eq!(keys.len(), 9, "no blob twice: {keys:?}");

        server.fail("", Response::new(401));
        let third = machine(&first);
        let built = build(&third, &project(&third), &["--cache-from", "type=gha"], &variables(&main)).ok();
        assert_eq!(built.ran().len(), 7);
        let built = built.says("is not accepted").says("the build goes on without this cache");
        assert!(!built.stderr.contains(&main), "{}", built.stderr);
    }
    let harness = Harness::new();
    let context = harness.context("context", "FROM busybox\n");
    build(&harness, &context, &["--cache-to", "type=gha"], &[])
        .fails(2)
        .says("gha needs the cache service of a GitHub runner");
    let outcome = build(&harness, &context, &["--cache-to", "type=gha,url=http://x,token=hush"], &[]).fails(2);
    assert!(!outcome.stderr.contains("hush"), "{}", outcome.stderr);
}

/// Counts in two directories; `GENERATION` makes the steps run.
const COUNTER: &str = "FROM busybox\nARG GENERATION\n\
    RUN --mount=type=cache,id=go-build,target=/c,uid=5,mode=0750 : $GENERATION && n=$(cat /c/n 2>/dev/null || echo 0) && echo $((n+1)) > /c/n && \
    { test -e /c/large || dd if=/dev/urandom of=/c/large bs=1M count=4 2>/dev/null; } && mkdir -p /c/d && echo own > /c/d/own && chown 7:8 /c/d/own && \
    chmod 640 /c/d/own && ln -sf d/own /c/link && stat -c '%n %a %u:%g' /c /c/d/own > /s && cat /c/link >> /s && cp /c/n /n\n\
    RUN --mount=type=cache,id=other,target=/o,sharing=locked : $GENERATION && echo x >> /o/f && cp /o/f /f\n";

fn counted(harness: &Harness, generation: &str, flags: &[&str], variables: &[(&str, &str)]) -> (String, Outcome) {
    let context = harness.context("counter", COUNTER);
    let argument = format!("GENERATION={generation}");
    let mut all = vec!["--build-arg", &argument, "-t", "counter"];
    all.extend(flags);
    let outcome = build(harness, &context, &all, variables).ok();
    (harness.output("counter", &["sh", "-c", "cat /n; wc -l < /f; cat /s"]), outcome)
}

#[test]
fn cache_directories_travel() {
    let first = Harness::new();
    let registry = Registry::start();
    let (moto, actions) = (Moto::start(&["cache"]), Actions::start());
    let token = actions.token(&[("refs/heads/main", 3)]);
    let variables = [
        ("AWS_ACCESS_KEY_ID", moto.writer.0.as_str()),
        ("AWS_SECRET_ACCESS_KEY", &moto.writer.1),
        ("ACTIONS_RESULTS_URL", &actions.url),
        ("ACTIONS_CACHE_SERVICE_V2", "1"),
        ("ACTIONS_RUNTIME_TOKEN", &token),
    ];
    let directory = first.path_text("cache");
    let owners = "/c 750 5:0\n/c/d/own 640 7:8\nown\n";
    for (to, from) in [
        (format!("type=registry,ref={}/cache", registry.host), format!("type=registry,ref={}/cache", registry.host)),
        (format!("type=local,dest={directory}"), format!("type=local,src={directory}")),
        (s3(&moto, ""), s3(&moto, "")),
        ("type=gha".to_owned(), "type=gha".to_owned()),
    ] {
        let (to, from) = (format!("{to},cache-mounts=true,mode=max"), format!("{from},cache-mounts=true"));
        let one = machine(&first);
        let (shown, outcome) = counted(&one, "1", &["--cache-to", &to], &variables);
        let can_own = !outcome.stderr.contains("note:");
        if can_own {
            assert_eq!(shown, format!("1\n1\n{owners}"));
        }
        let outcome = outcome.says("cache mount /go-build: ").says("cache mount /other: 1 of 1 chunks");

        // What is equal is not run, and mounts nothing: nothing of the directories is fetched.
        let two = machine(&first);
        let (_, same) = counted(&two, "1", &["--cache-from", &from], &variables);
        assert_eq!(same.ran(), NOTHING, "{}", same.stderr);
        assert!(!same.stderr.contains("cache mount"), "{}", same.stderr);
        assert_eq!(std::fs::read_dir(two.path("store/mounts")).unwrap().count(), 0);

        // What runs finds what the other machine left, owners and all.
        let (shown, outcome_two) = counted(&two, "2", &["--cache-from", &from, "--cache-to", &to], &variables);
        assert!(shown.starts_with("2\n2\n"), "{shown}{}", outcome_two.stderr);
        assert!(!can_own || shown.ends_with(owners), "{shown}");
        let outcome_two = outcome_two.says("cache mount /go-build: ");
        let sent = |outcome: &Outcome| {
            let line = outcome
                .stderr
                .lines()
                .rfind(|line| line.contains("cache mount /go-build: ") && line.contains(" of "))
                .unwrap();
            let (_, numbers) = line.split_once("go-build: ").unwrap();
            let (moved, rest) = numbers.split_once(" of ").unwrap();
            (moved.parse::<u32>().unwrap(), rest.split(' ').next().unwrap().parse::<u32>().unwrap())
        };
        let (all, changed) = (sent(&outcome), sent(&outcome_two));
        assert!(all.0 == all.1 && all.1 > 10, "{all:?}");
        assert!(changed.0 <= 2 && changed.1 == all.1, "{changed:?}");

        // What is here counts as newer.
        let (shown, _) = counted(&one, "3", &["--cache-from", &from], &variables);
        assert!(shown.starts_with("2\n2\n"), "{shown}");
        // Who does not ask for directories gets none.
        let three = machine(&first);
        let without = from.replace(",cache-mounts=true", "");
        let (shown, _) = counted(&three, "4", &["--cache-from", &without], &variables);
        assert!(shown.starts_with("1\n1\n"), "{shown}");
    }
    // Other readers see layers of a kind that they do not know.
    let manifest =
        tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{}/cache", registry.host)]);
    assert!(manifest.contains("application/vnd.rbuild.cache-mount.pack.v1+zstd"), "{manifest}");
}

/// A step that mounts an empty directory runs without it if the cache is broken.
#[test]
fn broken_directories_do_not_matter() {
    let first = Harness::new();
    let directory = first.path_text("cache");
    let to = format!("type=local,dest={directory},cache-mounts=true");
    counted(&first, "1", &["--cache-to", &to], &[]);
    let index: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(first.path("cache/index.json")).unwrap()).unwrap();
    let blob = |digest: &serde_json::Value| {
        first.path("cache/blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:"))
    };
    let manifest = std::fs::read_to_string(blob(&index["manifests"][0]["digest"])).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        if layer["mediaType"].as_str().unwrap().contains("cache-mount.pack") {
            std::fs::write(blob(&layer["digest"]), "not what it was").unwrap();
        }
    }
    let second = machine(&first);
    let from = format!("type=local,src={directory},cache-mounts=true");
    let (shown, outcome) = counted(&second, "2", &["--cache-from", &from], &[]);
    assert!(shown.starts_with("1\n1\n"), "{shown}");
    outcome.says("cache mount /go-build could not be fetched");
    let inline = second.context("inline", "FROM busybox\n");
    second.build(&inline, &["--cache-to", "type=inline,cache-mounts=true"]).fails(2).says("holds no directories");
}
