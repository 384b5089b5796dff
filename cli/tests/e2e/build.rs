//! Dockerfiles of `testdata`, and what a build does beside them.

use crate::harness::{Harness, testdata};
use serde_json::Value;

#[test]
fn several_stages_run_only_where_they_are_needed() {
    let harness = Harness::new();
    let outcome = harness.build(&testdata("multi-stage"), &["-t", "multi"]).ok();
    assert!(!outcome.stderr.contains("exit 1"), "an unused stage ran:\n{}", outcome.stderr);
    assert_eq!(harness.output("multi", &[]), "one\ntwo\n");
    harness.build(&testdata("multi-stage"), &["--target", "unused"]).fails(1).says("exit code: 1");
}

#[test]
fn arguments_and_variables_expand() {
    let harness = Harness::new();
    harness.build(&testdata("args"), &["-t", "args", "--build-arg", "NAME=there"]).ok();
    assert_eq!(harness.output("args", &["cat", "/text"]), "hello there\n");
    let config = harness.inspect("args")["Config"].clone();
    assert_eq!(config["Labels"]["text"], "hello there");
    let path = config["Env"][0].as_str().unwrap();
    assert!(path.starts_with("PATH=/app:/usr/local/sbin:"), "{path}");
}

#[test]
fn here_documents() {
    let harness = Harness::new();
    harness.build(&testdata("heredoc"), &["-t", "heredoc"]).ok();
    let text = harness.output("heredoc", &["cat", "/documents/EOF", "/documents/RAW", "/script"]);
    assert_eq!(text, "expanded: rbuild\nas written: $NAME\nfirst\nsecond rbuild\n");
}

#[test]
fn ignored_files_are_not_in_the_context() {
    let harness = Harness::new();
    harness.build(&testdata("dockerignore"), &["-t", "ignore"]).ok();
    let files = harness.output("ignore", &["sh", "-c", "cd /context && find . -type f | sort"]);
    assert_eq!(files, "./.dockerignore\n./Dockerfile\n./src/keep.log\n./src/main.c\n");
}

#[test]
fn triggers_of_a_base_stage_run() {
    let harness = Harness::new();
    harness.build(&testdata("onbuild"), &["-t", "onbuild"]).ok();
    assert_eq!(harness.output("onbuild", &["cat", "/both"]), "application\ntriggered\n");
    assert!(harness.inspect("onbuild")["Config"].get("OnBuild").is_none());
}

#[test]
fn copies_follow_the_rules() {
    let harness = Harness::new();
    harness.build(&testdata("copy"), &["-t", "copy"]).ok();
    let script = "find /work /copied /matched -type f | sort | xargs stat -c '%n %u:%g %a'";
    let expected = "/copied/inner/four 0:0 644\n/copied/three 0:0 644\n/copied/through-link 0:0 644\n\
                    /matched/four 0:0 644\n/matched/three 0:0 644\n/work/by-name 1:1 644\n\
                    /work/files/one 0:0 644\n/work/files/two 0:0 644\n/work/owned 1000:100 640\n";
    assert_eq!(harness.output("copy", &["sh", "-c", script]), expected);
}

#[test]
fn archives_are_unpacked_by_add() {
    let harness = Harness::new();
    harness.build(&testdata("add-archive"), &["-t", "add"]).ok();
    let text = harness.output("add", &["cat", "/unpacked/tree/file", "/unpacked/plain.txt"]);
    assert_eq!(text, "inside\nplain\n");
    let owner = harness.output("add", &["stat", "-c", "%u:%g", "/unpacked/tree/file"]);
    assert_eq!(owner, "7:8\n", "X3.71: entries keep their owners");
}

#[test]
fn users_own_what_they_make() {
    let harness = Harness::new();
    harness.build(&testdata("users"), &["-t", "users"]).ok();
    let text = harness.output("users", &["cat", "/owners", "/home/app/work/who"]);
    assert_eq!(text, "1000:100\n33:33\nuid=1000(app) gid=100(users) groups=100(users)\n");
}

#[test]
fn metadata_reaches_the_config() {
    let harness = Harness::new();
    harness.build(&testdata("metadata"), &["-t", "metadata", "--label", "extra=1"]).ok();
    let config = &harness.inspect("metadata")["Config"];
    assert_eq!(config["Labels"]["spaced"], "a b");
    assert_eq!(config["Labels"]["extra"], "1");
    let ports: Vec<_> = config["ExposedPorts"].as_object().unwrap().keys().collect();
    assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
    assert_eq!(config["Healthcheck"]["Interval"], 30_000_000_000_i64);
    assert_eq!(config["Healthcheck"]["Test"], serde_json::json!(["CMD", "true"]));
    assert_eq!(config["StopSignal"], "SIGINT");
    assert_eq!((&config["User"], &config["WorkingDir"]), (&Value::from("daemon"), &Value::from("/work")));
    assert_eq!(harness.output("metadata", &[]), "$KEY as written\n");
    let history = harness.rbuild(&["history", "--no-trunc", "metadata"]).ok().stdout;
    assert!(history.contains("HEALTHCHECK {Test:[CMD true] Interval:30s"), "{history}");
    assert!(history.contains("CMD [\"$KEY\" \"as written\"]"), "{history}");
}

#[test]
fn images_from_scratch_run() {
    let harness = Harness::new();
    harness.build(&testdata("scratch"), &["-t", "scratch"]).ok();
    assert_eq!(harness.output("scratch", &[]), "from scratch\n");
}

#[test]
fn shell_and_exec_forms() {
    let harness = Harness::new();
    let outcome = harness.build(&testdata("shell"), &["-t", "shell"]).ok();
    assert!(outcome.stderr.contains("+ echo traced"), "{}", outcome.stderr);
    assert_eq!(harness.output("shell", &["cat", "/exec", "/shell"]), "exec form\nshell form\n");
}

#[test]
fn a_second_build_runs_nothing_and_gives_the_same_image() {
    let harness = Harness::new();
    let dockerfile = "FROM busybox\nCOPY file /f\nRUN cat /f > /g\nRUN date > /now\n";
    let context = harness.context("c", dockerfile);
    std::fs::write(context.join("file"), "1").unwrap();
    harness.build(&context, &["-t", "a"]).ok();
    let first = harness.inspect("a")["Id"].clone();
    let again = harness.build(&context, &["-t", "a"]).ok();
    assert_eq!(again.stderr.matches("CACHED").count(), 3, "{}", again.stderr);
    assert_eq!(harness.inspect("a")["Id"], first);
    std::fs::write(context.join("file"), "2").unwrap();
    let edited = harness.build(&context, &["-t", "a"]).ok();
    assert_eq!(edited.stderr.matches("CACHED").count(), 0, "{}", edited.stderr);
    assert_eq!(harness.output("a", &["cat", "/g"]), "2");
    let forced = harness.build(&context, &["-t", "a", "--no-cache"]).ok();
    assert_eq!(forced.stderr.matches("CACHED").count(), 0);
}

#[test]
fn a_step_that_gives_the_same_again_keeps_what_follows() {
    let harness = Harness::new();
    let text = |comment: &str| format!("FROM busybox\nRUN echo same > /f # {comment}\nRUN cat /f > /g; sleep 0.01\n");
    harness.build_text(&text("one"), &["-t", "a"]).ok();
    let first = harness.inspect("a")["RootFS"].clone();
    let edited = harness.build_text(&text("two"), &["-t", "a"]).ok();
    assert_eq!(edited.stderr.matches("CACHED").count(), 1, "early cutoff: {}", edited.stderr);
    assert_eq!(harness.inspect("a")["RootFS"], first);
}

#[test]
fn independent_stages_run_at_the_same_time() {
    let harness = Harness::new();
    // Each waits for a sign of the other: one after the other they would wait in vain.
    let dockerfile = "FROM busybox AS a\nRUN --mount=type=cache,target=/c touch /c/a; i=0; while [ ! -e /c/b ]; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || exit 1; done\n\
                      FROM busybox AS b\nRUN --mount=type=cache,target=/c touch /c/b; i=0; while [ ! -e /c/a ]; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || exit 1; done\n\
                      FROM busybox\nCOPY --from=a /bin/true /a\nCOPY --from=b /bin/true /b\n";
    harness.build_text(dockerfile, &[]).ok();
}

#[test]
fn rawjson_is_one_object_a_line() {
    let harness = Harness::new();
    let context = harness.context("c", "FROM busybox\nRUN echo to standard output; echo to standard error >&2\n");
    let outcome = harness.rbuild(&["build", "--progress=rawjson", context.to_str().unwrap()]).ok();
    let mut names = Vec::new();
    let mut streams = Vec::new();
    for line in outcome.stderr.lines() {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        names.extend(object["vertexes"].as_array().into_iter().flatten().map(|vertex| vertex["name"].to_string()));
        streams.extend(object["logs"].as_array().into_iter().flatten().map(|log| log["stream"].as_i64().unwrap()));
    }
    assert!(names.iter().any(|name| name.contains("[2/2] RUN echo to standard output")), "{names:?}");
    assert!(streams.contains(&1) && streams.contains(&2), "{streams:?}");
}

#[test]
fn files_about_the_result() {
    let harness = Harness::new();
    let (id, metadata) = (harness.path_text("id"), harness.path_text("metadata.json"));
    let flags = ["-q", "-t", "named", "--iidfile", &id, "--metadata-file", &metadata];
    let outcome = harness.build_text("FROM busybox\nRUN true\n", &flags).ok();
    let inspected = harness.inspect("named")["Id"].as_str().unwrap().to_owned();
    assert_eq!(outcome.stdout.trim(), inspected);
    assert_eq!(std::fs::read_to_string(&id).unwrap(), inspected);
    let metadata: Value = serde_json::from_str(&std::fs::read_to_string(metadata).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.config.digest"], inspected);
    assert_eq!(metadata["image.name"], "docker.io/library/named:latest");
    // A failed build leaves no old id behind.
    harness.build_text("FROM busybox\nRUN false\n", &["--iidfile", &id]).fails(1);
    assert!(!std::path::Path::new(&id).exists());
}

#[test]
fn outputs_that_are_files() {
    let harness = Harness::new();
    let (directory, tar) = (harness.path_text("out"), harness.path_text("out.tar"));
    let local = format!("type=local,dest={directory}");
    let as_tar = format!("type=tar,dest={tar}");
    let dockerfile = "FROM busybox AS build\nRUN mkdir /r && echo x > /r/f && ln -s f /r/l && chmod 750 /r\nFROM scratch\nCOPY --from=build /r /r\n";
    harness.build_text(dockerfile, &["--output", &local, "--output", &as_tar]).ok();
    assert_eq!(std::fs::read_to_string(format!("{directory}/r/f")).unwrap(), "x\n");
    assert_eq!(std::fs::read_link(format!("{directory}/r/l")).unwrap().to_str(), Some("f"));
    let listing = crate::harness::tool("tar", &["tf", &tar]);
    assert_eq!(listing, "r/\nr/f\nr/l\n");
}

/// One layer may be in a stack twice, which no overlay takes.
#[test]
fn steps_of_equal_layers() {
    const EQUAL: &str = "FROM busybox\nRUN true\nRUN true #\nRUN true # #\nCOPY --link f /f\nRUN echo changed > /f\n\
        COPY --link f /f\nRUN cat /f > /g\n";
    let harness = Harness::new();
    let context = harness.context("c", EQUAL);
    std::fs::write(context.join("f"), "linked\n").unwrap();
    harness.build(&context, &["-t", "x"]).ok();
    assert_eq!(harness.output("x", &["cat", "/f", "/g"]), "linked\nlinked\n");
}

#[test]
fn mounts_of_run() {
    let harness = Harness::new();
    let context = harness.context(
        "c",
        "FROM busybox AS a\nRUN echo from a stage > /f\nFROM busybox\n\
         RUN --mount=type=bind,from=a,target=/a --mount=target=/context cat /a/f /context/file > /both\n\
         RUN --mount=type=tmpfs,target=/t touch /t/x\nRUN test ! -e /a && test ! -e /t && test ! -e /context\n\
         RUN --mount=type=bind,target=/context touch /context/x 2>/dev/null && exit 1 || true\n",
    );
    std::fs::write(context.join("file"), "from the context\n").unwrap();
    harness.build(&context, &["-t", "mounts"]).ok();
    assert_eq!(harness.output("mounts", &["cat", "/both"]), "from a stage\nfrom the context\n");
}

#[test]
fn two_hundred_steps() {
    let harness = Harness::new();
    let mut dockerfile = "FROM busybox\n".to_owned();
    for step in 0..200 {
        dockerfile.push_str(&format!("RUN echo {step} > /f{step}\n"));
    }
    harness.build_text(&dockerfile, &["-t", "deep"]).ok();
    assert_eq!(harness.output("deep", &["cat", "/f0", "/f199"]), "0\n199\n");
}

/// Directories and files that go to the same place one after the other, over what a base has there (X3.8, X3.24).
#[test]
fn sources_that_overlap() {
    let harness = Harness::new();
    let dockerfile = "FROM busybox\nRUN mkdir -p /dst/sub && echo old > /dst/sub/x && echo keep > /dst/keep && ln -s dst/sub /link\n\
                      COPY one* two* /dst/\nCOPY one two /link/new/\nCOPY one /dst/\n";
    let context = harness.context("overlap", dockerfile);
    for (path, text) in [
        ("one/sub/a", "one a"),
        ("one/sub/x", "one x"),
        ("one/both", "one"),
        ("one.txt", "file"),
        ("two/one.txt", "two"),
        ("two/sub/x", "two x"),
        ("two/both", "two"),
        ("two.txt", "file"),
    ] {
        let file = context.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, format!("{text}\n")).unwrap();
    }
    for flags in [&["-t", "overlap"][..], &["-t", "overlap", "--no-cache"]] {
        harness.build(&context, flags).ok();
        let script = "cd /dst && for f in $(find . -type f | sort); do echo $f $(cat $f); done";
        let expected = "./both one\n./keep keep\n./one.txt two\n./sub/a one a\n./sub/new/both two\n./sub/new/one.txt two\n\
                        ./sub/new/sub/a one a\n./sub/new/sub/x two x\n./sub/x one x\n./two.txt file\n";
        assert_eq!(harness.output("overlap", &["sh", "-c", script]), expected);
    }
}

/// Deeper than the usual limit of open files; the steps themselves keep that.
#[test]
fn deep_contexts() {
    let harness = Harness::new();
    let limit = std::process::Command::new("sh").args(["-c", "ulimit -Sn"]).output().unwrap().stdout;
    let context = harness.context("deep", "FROM busybox\nCOPY d /d/\nCOPY d /d/\nRUN ulimit -Sn > /limit\n");
    let deep = context.join("d/".repeat(1200));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("f"), "bottom").unwrap();
    harness.build(&context, &["-t", "deep"]).ok();
    // Without find, which has the limit.
    let script = "cat /limit; p=/d; while [ -d $p/d ]; do p=$p/d; done; cat $p/f";
    let found = harness.output("deep", &["sh", "-c", script]);
    assert_eq!(found, format!("{}bottom", String::from_utf8_lossy(&limit)));
}
