//! Lowering against a resolver that knows one image.

use oci::image::{History, ImageConfig};
use oci::{Digest, Platform, Reference};
use solver::lower::{ImageResolver, LowerOptions, Plan, Purpose, ResolvedImage, lower, lower_all};
use solver::op::{Exec, FileAction, Network, Op};

/// `base` has an environment, a command and a trigger or two; `plain` has a PATH only.
struct Images;

impl ImageResolver for Images {
    type Error = String;

    async fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<ResolvedImage, String> {
        let mut config = ImageConfig {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            history: vec![History { created_by: Some("base".into()), ..Default::default() }],
            ..Default::default()
        };
        config.rootfs.diff_ids = vec![oci::DiffId(Digest::of(b"layer"))];
        match reference.repository() {
            "library/plain" => config.config.env = vec!["PATH=/bin".into()],
            "library/base" => {
                config.config.cmd = Some(vec!["from-base".into()]);
                config.config.on_build = vec!["ENV TRIGGERED=1".into(), "RUN trigger".into()];
            }
            _ => return Err(format!("{reference}: not found")),
        }
        let digest = Digest::of(reference.to_string().as_bytes());
        Ok(ResolvedImage { manifest: digest, digest, config })
    }
}

async fn plan_with(text: &str, options: &LowerOptions) -> Result<Plan, String> {
    let dockerfile = parser::parse(text).map_err(|errors| errors[0].to_string())?;
    lower(&dockerfile, options, &Images).await.plan.map_err(|errors| errors[0].to_string())
}

async fn plan(text: &str) -> Plan {
    plan_with(text, &LowerOptions::default()).await.unwrap_or_else(|error| panic!("{text}: {error}"))
}

async fn error(text: &str) -> String {
    match plan_with(text, &LowerOptions::default()).await {
        Ok(_) => panic!("{text}: no error"),
        Err(error) => error,
    }
}

/// The history that the Dockerfile adds, empty entries marked.
fn history(plan: &Plan) -> Vec<String> {
    let added = &plan.config.history[plan.base_history..];
    added
        .iter()
        .map(|entry| format!("{}{}", entry.created_by.as_deref().unwrap(), if entry.empty_layer { "" } else { " +" }))
        .collect()
}

fn steps(plan: &Plan) -> Vec<Op> {
    let needed = plan.graph.needed(&[plan.result]);
    needed.into_iter().map(|id| plan.graph[id].op.clone()).filter(|op| !matches!(op, Op::Source(_))).collect()
}

fn execs(plan: &Plan) -> Vec<Exec> {
    let execs = steps(plan).into_iter().filter_map(|op| match op {
        Op::Exec(exec) => Some(exec),
        _ => None,
    });
    execs.collect()
}

fn names(plan: &Plan) -> Vec<String> {
    plan.graph.needed(&[plan.result]).into_iter().map(|id| plan.graph[id].name.clone()).collect()
}

#[tokio::test]
async fn histories_are_the_norm_s() {
    let plan = plan(
        "FROM plain\nARG A=1 B\nENV K=v L='a b'\nLABEL x=1\nMAINTAINER me <a@b.c>\nWORKDIR /w\nWORKDIR /\nUSER app\nEXPOSE 81/udp 80\n\
         VOLUME /a [\"/b\"]\nSTOPSIGNAL SIGTERM\nSHELL [\"/bin/sh\",\"-ec\"]\nCMD run it\nENTRYPOINT []\nHEALTHCHECK --interval=30s CMD x\n\
         RUN one $A\nRUN [\"a\", \"b c\"]\nCOPY --chown=1:2 --chmod=755 --link f g /d/\nADD f /\nONBUILD RUN x\n",
    )
    .await;
    assert_eq!(
        history(&plan),
        [
            "ARG A=1 B",
            "ENV K=v L=a b",
            "LABEL x=1",
            "MAINTAINER me <a@b.c>",
            "WORKDIR /w +",
            "WORKDIR /",
            "USER app",
            "EXPOSE [80/tcp 81/udp]",
            "VOLUME [/a [/b]]",
            "STOPSIGNAL SIGTERM",
            "SHELL [/bin/sh -ec]",
            "CMD [\"/bin/sh\" \"-ec\" \"run it\"]",
            "ENTRYPOINT []",
            "HEALTHCHECK {Test:[CMD-SHELL x] Interval:30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}",
            "RUN |2 A=1 B= /bin/sh -ec one $A # buildkit +",
            "RUN |2 A=1 B= a b c # buildkit +",
            "COPY --chown=1:2 --chmod=755 f g /d/ # buildkit +",
            "ADD f / # buildkit +",
        ]
    );
    assert_eq!(plan.config.config.on_build, ["RUN x"]);
    assert_eq!(plan.config.author.as_deref(), Some("me <a@b.c>"));
}

#[tokio::test]
async fn arguments_and_variables() {
    let env = |plan: &Plan| execs(plan).last().unwrap().env.join(" ");
    for (id, text, expected) in [
        ("E64", "FROM plain\nARG X\nARG Y=\nRUN x", "PATH=/bin Y="),
        ("E65", "FROM plain\nENV v=1\nARG v=2\nRUN x", "PATH=/bin v=2"),
        ("E66", "FROM plain\nARG v=2\nENV v=1\nRUN x", "PATH=/bin v=1"),
        ("E67", "ARG T=1\nFROM plain\nRUN x$T", "PATH=/bin"),
        ("E68", "ARG T=1\nFROM plain\nARG T\nRUN x", "PATH=/bin T=1"),
        ("E69", "FROM plain AS b\nARG v=1\nFROM b\nRUN x", "PATH=/bin v=1"),
        ("D10.4", "FROM plain\nENV a=0\nENV a=1 b=$a\nRUN x", "PATH=/bin a=1 b=0"),
        ("D10.5", "FROM plain\nARG a=1 b=$a\nRUN x", "PATH=/bin a=1 b=1"),
        ("D13.11", "FROM plain\nARG TARGETOS\nRUN x", "PATH=/bin TARGETOS=linux"),
    ] {
        assert_eq!(env(&plan(text).await), expected, "{id}");
    }
    let plan = plan("FROM plain\nENV v=1\nARG v=2\nRUN x").await;
    assert_eq!(plan.config.config.env, ["PATH=/bin", "v=1"], "D13.8");
    let build_args = [("v".to_owned(), "$x".to_owned())].into();
    let options = LowerOptions { build_args, ..Default::default() };
    let given = plan_with("FROM plain\nARG v=${broken:=}\nRUN x", &options).await.unwrap();
    assert_eq!(env(&given), "PATH=/bin v=$x", "D10.6");
    let required = error("FROM plain\nARG V\nENV X=\"${V:?need V}\"").await;
    assert!(required.ends_with("V: need V"), "E63: {required}");
}

#[tokio::test]
async fn commands_and_entrypoints() {
    let of = |plan: Plan| (plan.config.config.entrypoint, plan.config.config.cmd);
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
    for (id, text, expected) in [
        ("E85", "FROM base\nENTRYPOINT [\"a\"]", (words(&["a"]), None)),
        ("E86", "FROM plain\nCMD [\"c\"]\nENTRYPOINT [\"a\"]", (words(&["a"]), words(&["c"]))),
        ("E87", "FROM plain AS b\nCMD [\"c\"]\nFROM b\nENTRYPOINT [\"e\"]", (words(&["e"]), None)),
        ("D15.11", "FROM plain\nCMD []", (None, words(&[]))),
        ("D8.7", "FROM plain\nCMD a  b", (None, words(&["/bin/sh", "-c", "a  b"]))),
    ] {
        assert_eq!(of(plan(text).await), expected, "{id}");
    }
}

#[tokio::test]
async fn stages_are_found_by_the_rules_of_each_place() {
    for (id, text, message) in [
        ("E71", "FROM plain AS Base\nFROM Base", "failed to parse stage name \"Base\""),
        (
            "E77",
            "FROM plain AS s\nFROM plain\nARG S=s\nCOPY --from=$S /x /",
            "variable expansion is not supported for --from",
        ),
        ("E78", "FROM plain\nCOPY --from=later /x /\nFROM plain AS later", ""),
        ("E125", "FROM plain AS x\nFROM plain AS x\nCOPY --from=x f /", "circular dependency detected on stage: x"),
        ("D12.3", "ARG B\nFROM $B", "base name ($B) should not be blank"),
        ("D12.16", "FROM plan", "failed to resolve source metadata for docker.io/library/plan:latest"),
        ("D18.8", "FROM plain\nCOPY --from=7 /x /", "invalid stage index 7"),
        ("D18.6", "FROM plain\nCOPY https://h/f /d", "source can't be a URL for COPY"),
        ("E120", "FROM plain\nSTOPSIGNAL 0", "invalid signal: 0"),
        (
            "E81",
            "FROM plain\nRUN --mount=size=1m,type=tmpfs,target=/t x",
            "unexpected key 'size' for mount type 'bind'",
        ),
        ("D17.9", "FROM plain\nRUN --mount=target=/ x", "invalid mount target \"/\""),
        ("X1.92", "FROM plain\nRUN --security=insecure x", "security.insecure is not allowed"),
        ("X1.89", "FROM plain\nRUN --network=host x", "network.host is not allowed"),
    ] {
        if message.is_empty() {
            // The stage that asks is not the target: nothing is wrong with the build.
            plan(text).await;
        } else {
            let error = error(text).await;
            assert!(error.contains(message), "{id}: {error}");
        }
    }
    let variables =
        plan("FROM plain AS a\nRUN in a\nFROM plain\nARG T=bind\nRUN --mount=type=$T,from=a,target=/m x").await;
    assert_eq!(execs(&variables).len(), 2, "a mount whose type is a variable still needs its stage");
    let upper = plan("FROM plain AS Base\nRUN in base\nFROM plain\nCOPY --from=BASE /x /").await;
    assert_eq!(execs(&upper).len(), 1, "E72");
    let by_position = plan("FROM plain\nRUN in 0\nFROM plain\nCOPY --from=0 /x /").await;
    assert_eq!(execs(&by_position).len(), 1, "E75");
    let target = LowerOptions { target: Some("BASE".into()), ..Default::default() };
    assert!(plan_with("FROM plain AS base\nFROM plain", &target).await.is_ok(), "E73");
    let position = LowerOptions { target: Some("0".into()), ..Default::default() };
    assert!(plan_with("FROM plain AS base\nFROM plain", &position).await.is_err(), "E74");
}

#[tokio::test]
async fn entitlements_allow_what_they_name() {
    let mut options = LowerOptions::default();
    options.entitlements.allow("network.host").unwrap();
    let host = plan_with("FROM plain\nRUN --network=host x", &options).await.unwrap();
    assert_eq!(execs(&host)[0].network, Network::Host, "R1.9.3");
    let insecure = "FROM plain\nRUN --security=insecure x";
    assert!(plan_with(insecure, &options).await.is_err(), "R1.10.2");
    options.entitlements.allow("security.insecure").unwrap();
    assert!(execs(&plan_with(insecure, &options).await.unwrap())[0].insecure);
    // The build's mode needs the entitlement as well; the flag brings it along.
    let all = LowerOptions { network: Network::Host, ..Default::default() };
    assert!(plan_with("FROM plain\nRUN x", &all).await.is_err());
    assert!(plan_with("FROM plain\nRUN --network=none x", &all).await.is_ok(), "R1.9.4");
    let check = LowerOptions { purpose: Purpose::Check, ..Default::default() };
    assert!(plan_with(insecure, &check).await.is_ok(), "a check runs nothing");
}

#[tokio::test]
async fn triggers_run_once() {
    let child = plan("FROM base AS child\nRUN own\nFROM child\nRUN grandchild").await;
    let commands: Vec<_> = execs(&child).iter().map(|exec| exec.args[2].clone()).collect();
    assert_eq!(commands, ["trigger", "own", "grandchild"], "D15.56, E89");
    assert!(child.config.config.on_build.is_empty(), "D15.57");
    assert!(child.config.config.env.contains(&"TRIGGERED=1".to_owned()));
    assert!(names(&child).contains(&"[child 2/3] ONBUILD RUN trigger".to_owned()), "X5.12: {:?}", names(&child));
}

#[tokio::test]
async fn steps_are_named_for_progress() {
    let plan = plan("FROM plain AS build\nARG V=1\nRUN echo \"$V\" $UNSET\nFROM scratch\nWORKDIR /\nWORKDIR /w\nCOPY --from=build a b\n").await;
    let names = names(&plan);
    for expected in
        ["[build 2/2] RUN echo \"1\" $UNSET", "[stage-1 1/3] WORKDIR /w", "[stage-1 2/3] COPY --from=build a b"]
    {
        assert!(names.iter().any(|name| name == expected), "{expected} is not in {names:#?}");
    }
    assert_eq!(plan.config.config.env, ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "E124");
    assert_eq!(plan.config.config.working_dir, "/w");
}

#[tokio::test]
async fn equal_steps_of_two_stages_are_one() {
    let plan = plan(
        "FROM plain AS a\nRUN same\nFROM plain AS b\nRUN same\nFROM scratch\nCOPY --from=a /x /\nCOPY --from=b /y /\n",
    )
    .await;
    assert_eq!(execs(&plan).len(), 1, "D23.10");
}

#[tokio::test]
async fn copies_become_actions() {
    let plan = plan("FROM plain\nWORKDIR /w\nCOPY a ../b/ <<E dst/\nbody $PATH\nE\n").await;
    let Some(Op::File(file)) = steps(&plan).pop() else { panic!("not a file op") };
    let actions: Vec<_> = file
        .actions
        .iter()
        .map(|action| match action {
            FileAction::Copy(copy) => format!("{} -> {}", copy.selection.path, copy.destination),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(actions, ["/a -> /w/dst/", "/b -> /w/dst/", "/E -> /w/dst/"], "D18.11, D5.20");
    assert_eq!(history(&plan).pop().unwrap(), "COPY a ../b/ <<E dst/ # buildkit +");
}

/// R9.8, R9.7, X5.14, D21.6.
#[tokio::test]
async fn platforms_share_what_does_not_depend_on_them() {
    let text = "\
FROM --platform=$BUILDPLATFORM plain AS tools
RUN make tools
FROM --platform=$BUILDPLATFORM plain AS cross
ARG TARGETARCH
RUN make for $TARGETARCH
FROM plain as last
COPY --from=tools /t /t
COPY --from=cross /c /c
RUN last
";
    let dockerfile = parser::parse(text).unwrap();
    let host = Platform::host();
    let other: Platform = if host.architecture == "arm64" { "linux/amd64" } else { "linux/arm64" }.parse().unwrap();
    let options = [&other, &host].map(|platform| LowerOptions {
        platform: Some(platform.clone()),
        names_platform: true,
        ..LowerOptions::default()
    });
    let lowered = lower_all(&dockerfile, &options, &Images).await;
    assert_eq!(lowered.warnings.iter().map(|warning| warning.rule).collect::<Vec<_>>(), ["FromAsCasing"]);
    let plans = lowered.plans.unwrap();
    let architectures: Vec<_> = plans.targets.iter().map(|target| target.config.architecture.as_str()).collect();
    assert_eq!(architectures, [other.architecture.as_str(), host.architecture.as_str()]);
    let results: Vec<_> = plans.targets.iter().map(|target| target.result).collect();
    let needed = plans.graph.needed(&results);
    let mut names: Vec<_> = needed.into_iter().map(|id| plans.graph[id].name.clone()).collect();
    names.retain(|name| name.contains("RUN"));
    let expected = [
        format!("[{host} tools 2/2] RUN make tools"),
        format!("[{host}->{} cross 2/2] RUN make for {}", other.architecture, other.architecture),
        format!("[{other} last 4/4] RUN last"),
        format!("[{host} cross 2/2] RUN make for {}", host.architecture),
        format!("[{host} last 4/4] RUN last"),
    ];
    names.sort();
    let mut sorted = expected.to_vec();
    sorted.sort();
    assert_eq!(names, sorted);
}

/// D16.5.
#[tokio::test]
async fn a_requested_platform_is_that_of_the_image() {
    for text in ["windows(10.0.20348.1006)/amd64", "darwin/arm64", "linux/arm/v6", "linux/quantum"] {
        let platform: Platform = text.parse().unwrap();
        let options = LowerOptions { platform: Some(platform.clone()), ..LowerOptions::default() };
        for from in ["FROM scratch\nCOPY . /\n", "FROM plain\n"] {
            assert_eq!(plan_with(from, &options).await.unwrap().config.platform(), platform, "{text}");
        }
    }
}
