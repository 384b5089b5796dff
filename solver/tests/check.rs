//! Build checks that need values, the context or images (D21), several errors at once, and outlines.

use oci::image::ImageConfig;
use oci::{Digest, Platform, Reference};
use parser::{IgnoreFile, LineIndex};
use solver::check::{Report, check, violation};
use solver::lower::{ImageResolver, LowerOptions, ResolvedImage};
use solver::outline::{Outline, outline};
use std::collections::BTreeMap;

/// `shell` has a SHELL, `home` has variables, `arm` is of another platform, `offline` cannot be asked about.
struct Images;

impl ImageResolver for Images {
    type Error = String;

    async fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<ResolvedImage, String> {
        let mut config =
            ImageConfig { os: platform.os.clone(), architecture: platform.architecture.clone(), ..Default::default() };
        match reference.repository() {
            "library/plain" => {}
            "library/shell" => config.config.shell = Some(vec!["/bin/bash".into(), "-c".into()]),
            "library/home" => {
                config.config.env = vec!["HOME_DIR=/h".into()];
                config.config.working_dir = "/w".into();
            }
            "library/arm" => config.architecture = "arm".into(),
            "library/trigger" => config.config.on_build = vec!["CMD one".into(), "ENV a b".into()],
            "library/offline" => return Err("no route".into()),
            _ => return Err("not found".into()),
        }
        let digest = Digest::of(b"");
        Ok(ResolvedImage { manifest: digest, digest, config })
    }

    fn is_definite(&self, error: &String) -> bool {
        error == "not found"
    }
}

fn with_args(args: &[(&str, &str)]) -> LowerOptions {
    let build_args = args.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    LowerOptions { build_args, platform: Some("linux/amd64".parse().unwrap()), ..LowerOptions::default() }
}

async fn report_with(source: &str, options: &LowerOptions) -> Report {
    check(source, options, &Images).await
}

async fn report(source: &str) -> Report {
    report_with(source, &with_args(&[])).await
}

/// Line, rule, message, and what is underlined.
fn listed<'a>(report: &'a Report, source: &'a str) -> Vec<(usize, &'a str, String, &'a str)> {
    let index = LineIndex::new(source);
    let warnings = report.warnings.iter().map(|warning| {
        let focus = warning.focus;
        (index.line(warning.span.start), warning.rule, warning.to_string(), &source[focus.start..focus.end])
    });
    warnings.collect()
}

/// One row for each trigger of D21.6 that is the solver's.
#[tokio::test]
async fn each_rule_has_its_trigger() {
    let json = "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals";
    let cases: &[(&str, usize, &str, &str, &str)] = &[
        ("FROM plain\nCMD x", 2, "JSONArgsRecommended", json, "CMD x"),
        (
            "FROM plain\nENV a b",
            2,
            "LegacyKeyValueFormat",
            "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
            "ENV a b",
        ),
        (
            "FROM plain\nCMD [\"x\"]\nCMD [\"y\"]",
            2,
            "MultipleInstructionsDisallowed",
            "Multiple CMD instructions should not be used in the same stage because only the last one will be used",
            "CMD [\"x\"]",
        ),
        (
            "FROM plain\nhealthcheck none\nHEALTHCHECK NONE\nRUN x",
            2,
            "MultipleInstructionsDisallowed",
            "Multiple HEALTHCHECK instructions should not be used in the same stage because only the last one will be used",
            "healthcheck none",
        ),
        (
            "ARG VERSIO=1\nFROM ${VERSION}plain",
            2,
            "UndefinedArgInFrom",
            "FROM argument 'VERSION' is not declared (did you mean VERSIO?)",
            "${VERSION}",
        ),
        (
            "FROM plain\nARG NAME=1\nCOPY a \\\n  /x$NAMES",
            3,
            "UndefinedVar",
            "Usage of undefined variable '$NAMES' (did you mean $NAME?)",
            "$NAMES",
        ),
        ("FROM plain\nCOPY <<E /f\n${NOT}\nE", 2, "UndefinedVar", "Usage of undefined variable '$NOT'", "${NOT}"),
        ("FROM plain\nRUN --mount=target=/a/$NOT x", 2, "UndefinedVar", "Usage of undefined variable '$NOT'", "$NOT"),
        (
            "FROM plain\nWORKDIR sub",
            2,
            "WorkdirRelativePath",
            "Relative workdir \"sub\" can have unexpected results if the base image changes",
            "sub",
        ),
        (
            "FROM home\nWORKDIR sub",
            2,
            "WorkdirRelativePath",
            "Relative workdir \"sub\" can have unexpected results if the base image changes",
            "sub",
        ),
        (
            "FROM --platform=$TARGETPLATFORM plain",
            1,
            "RedundantTargetPlatform",
            "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
            "$TARGETPLATFORM",
        ),
        (
            "FROM --platform=linux/amd64 plain",
            1,
            "FromPlatformFlagConstDisallowed",
            "FROM --platform flag should not use constant value \"linux/amd64\"",
            "linux/amd64",
        ),
        (
            "FROM plain\nARG db_password",
            2,
            "SecretsUsedInArgOrEnv",
            "Do not use ARG or ENV instructions for sensitive data (ARG \"db_password\")",
            "db_password",
        ),
        (
            "FROM plain\nENV API_TOKEN=1",
            2,
            "SecretsUsedInArgOrEnv",
            "Do not use ARG or ENV instructions for sensitive data (ENV \"API_TOKEN\")",
            "API_TOKEN",
        ),
        (
            "ARG IMAGE\nFROM $IMAGE",
            2,
            "InvalidDefaultArgInFrom",
            "Default value for ARG $IMAGE results in empty or invalid base image name",
            "$IMAGE",
        ),
        (
            "FROM arm",
            1,
            "InvalidBaseImagePlatform",
            "Base image arm was pulled with platform \"linux/arm\", expected \"linux/amd64\" for current build",
            "arm",
        ),
        (
            "FROM plain\nEXPOSE 80/TCP",
            2,
            "ExposeProtoCasing",
            "Defined protocol '80/TCP' in EXPOSE instruction should be lowercase",
            "80/TCP",
        ),
        (
            "FROM plain\nEXPOSE 8080:80",
            2,
            "ExposeInvalidFormat",
            "EXPOSE instruction should not define an IP address or host-port mapping, found '8080:80'",
            "8080:80",
        ),
    ];
    for (source, line, rule, message, underlined) in cases {
        let report = report_with(source, &with_args(&[("IMAGE", "plain")])).await;
        let found: Vec<_> = listed(&report, source).into_iter().filter(|(_, found, ..)| found == rule).collect();
        assert_eq!(found, [(*line, *rule, (*message).to_owned(), *underlined)], "{source}: {report:?}");
        assert_eq!(report.errors, [], "{source}");
    }
}

#[tokio::test]
async fn clean_files_have_no_findings() {
    for source in [
        "FROM plain\nSHELL [\"s\"]\nCMD x",
        "FROM shell\nCMD x",
        "FROM plain\nCMD [\"x\"]\nFROM plain\nCMD [\"x\"]",
        "FROM plain AS a\nWORKDIR /a\nFROM a\nWORKDIR b",
        // Declared without a value; set by the base; provided for; RUN's text is the shell's (D21.7, D21.8).
        "FROM home\nARG X\nCOPY $X$HOME_DIR ${Y:-y}${Z+z} /\nRUN echo $NOPE",
        "ARG V\nFROM plain$V",
        "FROM --platform=$BUILDPLATFORM plain",
        "FROM --platform=linux/amd64 plain AS build-amd64",
        "FROM --platform=arm64 plain AS linux",
        "FROM plain\nARG PUBLIC_KEY KEYBOARD token_file",
        "FROM offline\nLABEL a=$ANYTHING",
    ] {
        assert_eq!(listed(&report(source).await, source), [], "{source}");
    }
}

/// D21.7, D12.23: without a target all stages count.
#[tokio::test]
async fn a_target_limits_the_checks() {
    let source = "FROM plain AS a\nCMD x\nFROM plain\nWORKDIR b";
    let rules = |report: &Report| report.warnings.iter().map(|warning| warning.rule).collect::<Vec<_>>();
    assert_eq!(rules(&report(source).await), ["JSONArgsRecommended", "WorkdirRelativePath"]);
    let options = LowerOptions { target: Some("a".into()), ..with_args(&[]) };
    assert_eq!(rules(&report_with(source, &options).await), ["JSONArgsRecommended"]);
}

#[tokio::test]
async fn triggers_are_checked_where_they_run() {
    let source = "FROM trigger\nCMD [\"two\"]";
    let report = report(source).await;
    let found: Vec<_> = listed(&report, source).into_iter().map(|(line, rule, ..)| (line, rule)).collect();
    let expected = [(1, "JSONArgsRecommended"), (1, "LegacyKeyValueFormat"), (1, "MultipleInstructionsDisallowed")];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn ignored_files_are_not_copied() {
    let options = |text: &str| LowerOptions { ignore: Some(IgnoreFile::parse(text).unwrap()), ..with_args(&[]) };
    for (ignore, line, expected) in [
        ("secret", "COPY ./secret /", Some("Attempting to Copy file \"secret\" that is excluded by .dockerignore")),
        ("secret", "ADD secret/key /", Some("Attempting to Add file \"secret/key\" that is excluded by .dockerignore")),
        ("secret", "COPY other /", None),
        ("secret\n!secret/key", "COPY secret /", None),
        ("secret", "COPY . /", None),
        ("*", "COPY . /", Some("Attempting to Copy file \".\" that is excluded by .dockerignore")),
        ("secret", "COPY --from=plain secret /", None),
    ] {
        let source = format!("FROM plain\n{line}");
        let report = report_with(&source, &options(ignore)).await;
        let found = report.warnings.first().map(|warning| &*warning.message);
        assert_eq!(found, expected, "{ignore:?} {line}");
    }
}

/// D21.2 to D21.5.
#[tokio::test]
async fn options_choose() {
    let rules = async |source: &str, given: &[(&str, &str)]| {
        let report = report_with(source, &with_args(given)).await;
        (report.warnings.iter().map(|w| w.rule).collect::<Vec<_>>(), report.warnings_are_errors)
    };
    let both = ["StageNameCasing", "JSONArgsRecommended"];
    assert_eq!(rules("FROM plain AS A\nCMD x", &[]).await, (both.to_vec(), false));
    assert_eq!(rules("# check=skip=StageNameCasing\nFROM plain AS A\nCMD x", &[]).await.0, ["JSONArgsRecommended"]);
    assert_eq!(rules("# check=skip=all\nFROM plain AS A\nCMD x", &[]).await.0, [""; 0]);
    assert!(rules("# check=error=true\nFROM plain AS A\nCMD x", &[]).await.1);
    let overridden = [("BUILDKIT_DOCKERFILE_CHECK", "skip=JSONArgsRecommended")];
    let given = rules("# check=skip=all;error=true\nFROM plain AS A\nCMD x", &overridden).await;
    assert_eq!(given, (vec!["StageNameCasing"], false));
    let source =
        "# check=skip=StageNameCasing\nFROM plain AS A\n# check=skip=JSONArgsRecommended;error=true\nCMD x\nCMD y";
    let source = format!("#!\n\n{source}");
    let found = rules(&source, &[]).await;
    assert_eq!(found, (vec!["MultipleInstructionsDisallowed", "JSONArgsRecommended"], false));
    let described = "# check=experimental=all;skip=all\n# not the name\nARG X\nFROM plain";
    assert_eq!(rules(described, &[]).await.0, ["InvalidDefinitionDescription"]);

    let report = report("# check=skip=X;bogus=1\nFROM plain").await;
    assert_eq!(report.errors[0].to_string(), "failed to parse check options: invalid check option \"bogus\"");
    let report = self::report("FROM plain AS A\nCMD x\nCMD y").await;
    assert_eq!(
        violation(&report.warnings),
        "lint violation found for rules: JSONArgsRecommended, MultipleInstructionsDisallowed, StageNameCasing"
    );
}

/// All of them are said at once, the one first that BuildKit reports.
#[tokio::test]
async fn independent_errors_are_reported_together() {
    let source = "ARG TAG=1\nFROM --platform=$TAGG plain AS a\nCOPY --from=later x /\nSTOPSIGNAL nope\nEXPOSE x\n\
                  RUN --mount=type=cash,target=/c true\nFROM $EMPTY\nENV A=${B:?needed}\nFROM plain AS later\nFROM missing";
    let report = report(source).await;
    let errors: Vec<_> = report.errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "empty platform value from expression $TAGG (did you mean TAG?)",
            "base name ($EMPTY) should not be blank",
            "missing: failed to resolve source metadata for docker.io/library/missing:latest: not found",
            "cannot copy from stage \"later\", it needs to be defined before current stage \"a\"",
            "invalid signal: nope",
            "invalid containerPort: x",
            "unsupported mount type \"cash\" (did you mean cache?)",
            "failed to process \"${B:?needed}\": B: needed",
        ]
    );
}

/// What is wrong with the lines comes first, but is not all that is said.
#[tokio::test]
async fn errors_of_lines_do_not_hide_those_of_stages() {
    let rules = async |source: &str| {
        let report = report(source).await;
        let rule = |finding: &parser::Diagnostic| finding.rule;
        (report.errors.iter().map(rule).collect::<Vec<_>>(), report.warnings.iter().map(rule).collect::<Vec<_>>())
    };
    let source = "FROM plain AS A\nRUN --mont=x y\nSTOPSIGNAL nope\nCOPY $V /";
    let expected = (vec!["UnknownFlag", "InvalidSignal"], vec!["StageNameCasing", "UndefinedVar"]);
    assert_eq!(rules(source).await, expected);
    // The variable may have been meant here.
    let source = "FROM plain\nENV V 1=2 \"\nAGR V\nCOPY $V /";
    assert_eq!(rules(source).await, (vec!["UnknownInstruction"], vec![]));
}

#[tokio::test]
async fn what_cannot_be_asked_about_is_no_error() {
    let report =
        report("FROM offline AS a\nFROM plain\nCOPY --from=missing /x /\nRUN --mount=type=secret,id=s x").await;
    assert_eq!(report.unresolved, [("docker.io/library/offline:latest".to_owned(), "no route".to_owned())]);
    assert_eq!(report.errors.len(), 1, "{:?}", report.errors);
}

#[tokio::test]
async fn mount_errors_underline_the_option() {
    for (mount, underlined, suggestion) in [
        ("type=cash,target=/c", "cash", Some("cache")),
        ("type=cache,targt=/c", "targt", Some("target")),
        ("type=cache,target", "target", None),
        ("type=cache,target=/c,sharing=lock", "lock", Some("locked")),
        ("type=cache,target=/c,mode=9", "9", None),
    ] {
        let source = format!("FROM plain\nRUN --mount={mount} x");
        let report = report(&source).await;
        let [error] = report.errors.as_slice() else { panic!("{mount}: {report:?}") };
        assert_eq!(&source[error.focus.start..error.focus.end], underlined, "{error}");
        assert_eq!((error.rule, error.suggestion.as_deref()), ("InvalidMount", suggestion), "{error}");
    }
}

/// D12.22; nothing behind a cycle makes sense, so nothing else is said.
#[tokio::test]
async fn a_cycle_is_reported_alone() {
    for (source, stage, line, chain) in [
        (
            "FROM plain AS a\nCOPY --from=b /x /\nFROM plain AS b\nCOPY --from=a /x /\nSTOPSIGNAL nope",
            "a",
            4,
            "a, b, a",
        ),
        ("FROM plain\nRUN x\nCOPY --from=0 /x /", "stage-0", 3, "stage-0, stage-0"),
        ("FROM plain AS x\nFROM plain AS x\nCOPY --from=x f /", "x", 3, "x, x"),
    ] {
        let report = report(source).await;
        let [error] = report.errors.as_slice() else { panic!("{source}: {report:?}") };
        assert_eq!(&*error.message, format!("circular dependency detected on stage: {stage}"));
        assert_eq!(LineIndex::new(source).line(error.span.start), line, "{source}");
        assert_eq!(error.notes, [format!("each takes files from the next: {chain}")]);
    }
    // FROM sees no later stage, so a circle of bases is a missing image.
    let circle = report("FROM b AS a\nFROM a AS b").await;
    assert_eq!(circle.errors[0].rule, "UnresolvedImage");
    assert_eq!(circle.errors[0].notes, ["a stage of that name comes later: FROM sees only the stages above it"]);
    // A base is an earlier stage: this is no cycle, but taking from a later one.
    let report = report("FROM plain AS a\nCOPY --from=b /x /\nFROM a AS b").await;
    assert_eq!(report.errors[0].rule, "StageDefinedLater");
}

async fn outlined(source: &str, options: &LowerOptions) -> Outline {
    let dockerfile = parser::parse(source).unwrap();
    outline(&dockerfile, options, &Images).await.unwrap()
}

#[tokio::test]
async fn outlines_list_what_the_target_takes() {
    let source = "# BASE the base\nARG BASE=plain\nARG UNUSED=1\nARG TAG=$BASE\nFROM $TAG AS base\nARG UNUSED\nARG OWN\n\
                  RUN --mount=type=secret,id=key,required --mount=type=cache,target=/c x\n\
                  FROM plain AS other\nARG HIDDEN\n# target makes it\nFROM base AS target\n# V a version\nARG V=1\n\
                  RUN --mount=type=ssh --mount=type=secret,id=key x\n";
    let options = with_args(&[("V", "2")]);
    let outline = outlined(source, &options).await;
    assert_eq!((outline.name.as_deref(), outline.description.as_deref()), (Some("target"), Some("makes it")));
    let args: Vec<_> =
        outline.args.iter().map(|arg| (arg.name.as_str(), arg.value.as_deref(), arg.description.as_deref())).collect();
    assert_eq!(
        args,
        [
            ("BASE", Some("plain"), Some("the base")),
            ("UNUSED", Some("1"), None),
            ("TAG", Some("plain"), None),
            ("OWN", None, None),
            ("V", Some("2"), Some("a version")),
        ]
    );
    let secrets: Vec<_> = outline.secrets.iter().map(|secret| (secret.id.as_str(), secret.required)).collect();
    assert_eq!(secrets, [("key", false)]);
    assert_eq!(outline.ssh[0].id, "default");
    assert_eq!(outline.caches[0].id, "/c");
    let other = LowerOptions { target: Some("other".into()), ..with_args(&[]) };
    let args: BTreeMap<_, _> =
        outlined(source, &other).await.args.into_iter().map(|arg| (arg.name, arg.value)).collect();
    assert_eq!(args.into_iter().collect::<Vec<_>>(), [("HIDDEN".to_owned(), None)]);
}
