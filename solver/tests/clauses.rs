//! Clauses of the specification on stages, arguments and configs that no other test shows; each row cites its clause.

use oci::image::ImageConfig;
use oci::{Digest, Platform, Reference};
use solver::lower::{ImageResolver, LowerOptions, Plan, ResolvedImage, lower};
use solver::op::{Exec, Mount, MountKind, Op, SecretEnv, Source};

/// `plain` is of the platform that is asked for; `full` has a config; `empty` has no layers.
struct Images;

impl ImageResolver for Images {
    type Error = String;

    async fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<ResolvedImage, String> {
        let mut config = ImageConfig {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            created: Some("2020-01-01T00:00:00Z".into()),
            ..Default::default()
        };
        config.rootfs.diff_ids = vec![oci::DiffId(Digest::of(b"layer"))];
        match reference.repository() {
            "library/plain" => {}
            "library/full" => {
                config.config.env = vec!["PATH=/p".into(), "E=base".into()];
                config.config.working_dir = "/base".into();
                config.config.user = "app".into();
            }
            "library/empty" => config.rootfs.diff_ids.clear(),
            _ => return Err("not found".into()),
        }
        let digest = Digest::of(reference.to_string().as_bytes());
        Ok(ResolvedImage { manifest: digest, digest, config })
    }
}

async fn lowered(text: &str, options: &LowerOptions) -> Result<Plan, String> {
    let dockerfile = parser::parse(text).map_err(|errors| errors[0].to_string())?;
    lower(&dockerfile, options, &Images).await.plan.map_err(|errors| errors[0].to_string())
}

async fn plan(text: &str) -> Plan {
    lowered(text, &LowerOptions::default()).await.unwrap_or_else(|error| panic!("{text}: {error}"))
}

async fn error(text: &str) -> String {
    lowered(text, &LowerOptions::default()).await.err().unwrap_or_else(|| panic!("{text}: no error"))
}

fn ops(plan: &Plan) -> Vec<Op> {
    plan.graph.needed(&[plan.result]).into_iter().map(|id| plan.graph[id].op.clone()).collect()
}

fn last_exec(plan: &Plan) -> Exec {
    let mut execs = ops(plan).into_iter().filter_map(|op| match op {
        Op::Exec(exec) => Some(exec),
        _ => None,
    });
    execs.next_back().expect("a RUN")
}

fn with_args(args: &[(&str, &str)]) -> LowerOptions {
    let build_args = args.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    LowerOptions { build_args, ..LowerOptions::default() }
}

#[tokio::test]
async fn bases() {
    for (clause, text, message) in [
        ("D12.5", "FROM later\nFROM plain AS later\nFROM later", ""),
        ("D12.6", "FROM plain\nFROM 0", "docker.io/library/0:latest"),
        ("D12.8", "FROM Scratch", "failed to parse stage name \"Scratch\""),
        ("D12.9", "FROM a:b:c", "failed to parse stage name \"a:b:c\": invalid reference format"),
        ("D12.10", "FROM B:x\nFROM plain", "failed to parse stage name"),
        ("D12.11", "FROM --platform=$NO plain", "empty platform value from expression $NO"),
        ("D12.21", "FROM plain AS one\nCOPY --from=two /x /\nFROM one AS two", ""),
        (
            "D12.21",
            "FROM plain AS one\nRUN --mount=from=two,target=/t x\nFROM plain AS two\nFROM one",
            "cannot mount from stage \"two\" to \"/t\", stage needs to be defined before current command",
        ),
    ] {
        match message {
            "" => drop(lowered(text, &LowerOptions::default()).await),
            message => assert!(error(text).await.contains(message), "{clause}: {}", error(text).await),
        }
    }
    // D12.8: a stage of that name shadows the empty base.
    let shadowed = plan("FROM plain AS scratch\nRUN x\nFROM scratch\nLABEL a=b").await;
    assert_eq!(last_exec(&shadowed).args[2], "x", "D12.8");
    assert_eq!(plan("FROM scratch").await.config.history, [], "D12.8");
    // D12.14: no layers, so nothing to fetch.
    assert!(matches!(ops(&plan("FROM empty").await).as_slice(), [Op::Source(Source::Scratch)]), "D12.14");
    // D12.12: the stage's platform stays.
    let kept = plan("FROM --platform=linux/arm64 plain AS a\nFROM --platform=linux/s390x a\nRUN x").await;
    assert_eq!(last_exec(&kept).platform.architecture, "arm64", "D12.12");
    // D16.5: the request names the image's platform.
    let options = LowerOptions { platform: Some("linux/riscv64".parse().unwrap()), ..LowerOptions::default() };
    let requested = lowered("FROM --platform=linux/arm64 plain", &options).await.unwrap();
    assert_eq!(requested.config.architecture, "riscv64", "D16.5");
}

#[tokio::test]
async fn arguments() {
    let env = |plan: &Plan| last_exec(plan).env.join(" ");
    for (clause, text, expected) in [
        ("D12.26", "FROM plain AS a\nENV v=env\nARG v=arg\nFROM a\nRUN x", "v=env"),
        ("D13.4", "ARG v=1\nFROM plain\nRUN x", ""),
        ("D13.9", "FROM plain\nRUN x", ""),
        ("D15.27", "FROM full\nRUN x", "E=base"),
        ("D14.4", "FROM plain\nENV a \"x  y\" z\nRUN x", "a=x  y z"),
        ("D14.9", "FROM plain\nENV a=\nRUN x", "a="),
    ] {
        let plan = lowered(text, &with_args(&[("unused", "1")])).await.unwrap();
        let env = env(&plan).replace("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "");
        assert_eq!(env.replace("PATH=/p", "").trim(), expected, "{clause}");
    }
    // D10.1 to D10.3: what expands and what does not.
    let text = "FROM plain\nARG v=x\nWORKDIR /$v\nUSER $v\nVOLUME /$v\nLABEL $v=$v\nSTOPSIGNAL ${n:-9}\nCMD $v\nENTRYPOINT [\"$v\"]\n\
                ONBUILD RUN $v\nHEALTHCHECK CMD $v\nMAINTAINER $v\nEXPOSE ${p:-80}";
    let config = plan(text).await.config;
    let inner = &config.config;
    assert_eq!(
        (inner.working_dir.as_str(), inner.user.as_str(), inner.stop_signal.as_str()),
        ("/x", "x", "9"),
        "D10.1"
    );
    assert!(inner.volumes.contains_key("/x") && inner.labels["x"] == "x" && inner.exposed_ports.contains_key("80/tcp"));
    assert_eq!(inner.cmd.as_ref().unwrap()[2], "$v", "D10.3, D15.14");
    assert_eq!((inner.entrypoint.as_ref().unwrap()[0].as_str(), inner.on_build[0].as_str()), ("$v", "RUN $v"), "D10.3");
    assert_eq!(config.author.as_deref(), Some("$v"), "D15.15");
}

#[tokio::test]
async fn configs() {
    let config = plan("FROM full\nENV E=mine N=1").await.config;
    assert_eq!(config.config.env, ["PATH=/p", "E=mine", "N=1"], "D14.6, D16.1");
    assert_eq!((config.created, config.config.user.as_str()), (None, "app"), "D16.1");
    let none = plan("FROM plain").await.config;
    assert_eq!(none.config.env, ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "D16.2");
    assert_eq!(plan("FROM full\nENTRYPOINT []").await.config.config.entrypoint, None, "D15.12");
    // D12.27: triggers are for children, not for theirs.
    assert_eq!(
        plan("FROM plain AS a\nONBUILD RUN x\nFROM a AS b\nFROM b").await.config.config.on_build,
        [""; 0],
        "D12.27"
    );
    // D15.44: the shell of later commands, but not of checks.
    let shell = plan("FROM plain\nSHELL [\"s\", \"-c\"]\nHEALTHCHECK CMD h\nRUN r").await;
    assert_eq!(last_exec(&shell).args, ["s", "-c", "r"], "D15.44");
    assert_eq!(shell.config.config.healthcheck.unwrap().test, ["CMD-SHELL", "h"], "D15.44");
    // D15.23: USER is for steps, not for copies.
    assert_eq!(last_exec(&plan("FROM plain\nUSER 5:6\nRUN x").await).user, "5:6", "D15.21, D15.23");
    // D16.8, E129: what the builder runs is what the history tells.
    let told = |plan: &Plan| plan.config.history.last().unwrap().created_by.clone().unwrap();
    assert_eq!(told(&plan("FROM plain\nRUN <<E\na\nb\nE").await), "RUN /bin/sh -c a\nb\n # buildkit", "D16.8");
    assert_eq!(told(&plan("FROM plain\nCMD a").await), "CMD [\"/bin/sh\" \"-c\" \"a\"]", "E129");
    assert_eq!(told(&plan("FROM plain\nENV a=b\nONBUILD RUN x").await), "ENV a=b", "E88");
}

/// D23.2, D23.5, D23.6, E130, E131: which vertices a change leaves equal.
#[tokio::test]
async fn keys_depend_on_what_a_step_takes() {
    let equal = async |one: &str, other: &str| {
        let (one, other) = (plan(one).await, plan(other).await);
        one.graph[one.result].definition == other.graph[other.result].definition
    };
    for (clause, one, other, expected) in [
        ("E130", "FROM plain\nLABEL x=1\nRUN r", "FROM plain\nLABEL x=2\nRUN r", true),
        ("D23.5", "FROM plain\n# c\nCMD a\nRUN r", "from plain\nRUN r", true),
        ("D23.5", "FROM plain\nRUN r", "FROM plain\nRUN  r", true),
        ("D23.5", "FROM plain\nRUN r s", "FROM plain\nRUN r  s", false),
        ("D23.5", "FROM plain\nENV a=1\nRUN r", "FROM plain\nENV a=2\nRUN r", false),
        ("D23.2", "FROM plain\nARG v=1\nRUN r", "FROM plain\nARG v=2\nRUN r", false),
        ("E131", "FROM plain\nARG v=1\nCOPY a /", "FROM plain\nARG v=2\nCOPY a /", true),
        ("D23.6", "FROM plain\nSHELL [\"s\"]\nRUN [\"r\"]", "FROM plain\nRUN [\"r\"]", true),
        ("D23.1", "FROM plain\nUSER a\nRUN r", "FROM plain\nUSER b\nRUN r", false),
        ("D23.1", "FROM plain\nRUN --network=none r", "FROM plain\nRUN r", false),
    ] {
        assert_eq!(equal(one, other).await, expected, "{clause}: {one:?} {other:?}");
    }
}

/// D13.15.
#[tokio::test]
async fn epochs() {
    let epoch = async |text: &str, args: &[(&str, &str)]| lowered(text, &with_args(args)).await.map(|plan| plan.epoch);
    assert_eq!(epoch("FROM plain", &[]).await, Ok(None));
    assert_eq!(epoch("FROM plain", &[("SOURCE_DATE_EPOCH", "")]).await, Ok(None));
    assert_eq!(epoch("FROM plain", &[("SOURCE_DATE_EPOCH", "12")]).await, Ok(Some(12)));
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=7\nFROM plain", &[]).await, Ok(Some(7)));
    let invalid = epoch("FROM plain", &[("SOURCE_DATE_EPOCH", "yesterday")]).await;
    assert_eq!(invalid.unwrap_err(), "invalid SOURCE_DATE_EPOCH: yesterday");
    let run = lowered("FROM plain\nRUN x", &with_args(&[("SOURCE_DATE_EPOCH", "12")])).await.unwrap();
    assert!(!last_exec(&run).env.iter().any(|entry| entry.contains("EPOCH")), "RUN sees it only if declared");
}

/// X2.36 to X2.38, X2.45 to X2.50: what secrets and agents come to.
#[tokio::test]
async fn secrets_and_agents() {
    let exec = async |mounts: &str| last_exec(&plan(&format!("FROM plain\nWORKDIR /w\nRUN {mounts} x")).await);
    let secret = |target: &str, mode, uid, gid| Mount {
        target: target.into(),
        readonly: true,
        kind: MountKind::Secret { id: "a/key".into(), required: false, mode, uid, gid },
    };
    let file = |mount| exec(mount);
    assert_eq!(file("--mount=type=secret,id=a/key").await.mounts, [secret("/run/secrets/key", 0o400, 0, 0)], "X2.36");
    assert_eq!(file("--mount=type=secret,src=a/key,dst=t").await.mounts, [secret("/w/t", 0o400, 0, 0)], "D17.9");
    assert_eq!(
        file("--mount=type=secret,id=a/key,uid=5,mode=7777").await.mounts,
        [secret("/run/secrets/key", 0o777, 5, 0)],
        "X2.38"
    );
    let variable = exec("--mount=type=secret,id=a/key,env=K,required").await;
    let expected = SecretEnv { name: "K".into(), id: "a/key".into(), required: true };
    assert_eq!((variable.mounts, variable.secret_env), (vec![], vec![expected]), "X2.37");
    let both = exec("--mount=type=secret,id=a/key,env=K,dst=/t").await;
    assert_eq!((both.mounts, both.secret_env.len()), (vec![secret("/t", 0o400, 0, 0)], 1), "X2.37");
    assert!(error("FROM plain\nRUN --mount=type=secret,id=a,dst=/ x").await.contains("invalid mount target \"/\""));

    let ssh = exec("--mount=type=ssh,id=b,dst=/s --mount=type=ssh,required,uid=1").await;
    let agent = |target: &str, id: &str, required, uid| Mount {
        target: target.into(),
        readonly: false,
        kind: MountKind::Ssh { id: id.into(), required, mode: 0o600, uid, gid: 0 },
    };
    assert_eq!(ssh.mounts, [agent("/run/buildkit/ssh_agent.1", "", true, 1), agent("/s", "b", false, 0)], "X2.45");
    assert!(ssh.env.contains(&"SSH_AUTH_SOCK=/s".to_owned()), "X2.46");
    let own = last_exec(&plan("FROM plain\nENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh x").await);
    assert!(own.env.contains(&"SSH_AUTH_SOCK=/mine".to_owned()) && own.env.len() == 2, "X2.46");
}

/// X2.43.
#[tokio::test]
async fn names_of_steps_mask_variables_that_hold_secrets() {
    let plan = plan("FROM plain\nENV K=image L=l\nRUN --mount=type=secret,id=k,env=K echo $K $L\nRUN echo $K").await;
    let names: Vec<_> = plan.graph.needed(&[plan.result]).into_iter().map(|id| plan.graph[id].name.clone()).collect();
    assert!(names[1].ends_with("RUN --mount=type=secret,id=k,env=K echo **** l"), "{names:?}");
    assert!(names[2].ends_with("RUN echo image"), "{names:?}");
}
