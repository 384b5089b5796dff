//! Why steps run: Dockerfiles built over an in-memory worker, one after the other.

use oci::image::ImageConfig;
use oci::{Digest, Platform, Reference};
use solver::event::EventSink;
use solver::explain::Explainer;
use solver::graph::Graph;
use solver::key::{ContentId, ContentKey};
use solver::lower::{ImageResolver, LowerOptions, ResolvedImage, lower};
use solver::op::{Op, Source};
use solver::schedule::{CacheIndex, InputTask, OpTask, ScheduleOptions, Worker, solve};
use solver::trace::{Change, FileChange, FileChanges, Reason, State, Trace, Tracer, VariableKind};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

/// The machine: results, the context's files, and what image names stand for. A value is a text.
#[derive(Default)]
struct Machine {
    results: Mutex<HashMap<[u8; 32], String>>,
    files: Mutex<BTreeMap<String, String>>,
    /// Contributions of the context that were computed.
    seen: Mutex<Vec<String>>,
    image_version: Mutex<u8>,
    ran: Mutex<Vec<String>>,
}

#[derive(Debug, thiserror::Error)]
#[error("it failed")]
struct Failed;

fn content(text: &str) -> ContentId {
    ContentId(*blake3::hash(text.as_bytes()).as_bytes())
}

impl Worker for Machine {
    type Value = String;
    type Error = Failed;

    fn content_id(&self, value: &String) -> ContentId {
        content(value)
    }

    fn result_id(&self, value: &String) -> Option<String> {
        Some(hex::encode(content(value).0))
    }

    async fn selection_digest(&self, task: InputTask<'_, String>) -> Result<ContentId, Failed> {
        let id = match task.value.as_str() {
            "context" => {
                let files = self.files.lock().unwrap();
                let wanted = |path: &String| task.selections.iter().any(|selection| path.starts_with(&selection.path));
                content(&format!("{:?}", files.iter().filter(|(path, _)| wanted(path)).collect::<Vec<_>>()))
            }
            value => content(value),
        };
        self.seen.lock().unwrap().push(hex::encode(id.0));
        Ok(id)
    }

    async fn run(&self, task: OpTask<'_, String>) -> Result<String, Failed> {
        Ok(match task.op {
            Op::Source(Source::Local { .. }) => "context".into(),
            Op::Source(Source::Image { manifest, .. }) => manifest.to_string(),
            Op::Source(_) => "source".into(),
            Op::Merge => task.inputs.join("+"),
            Op::Exec(exec) if exec.args.last().is_some_and(|last| last.contains("fail")) => return Err(Failed),
            Op::Exec(exec) if exec.args.last().is_some_and(|last| last.contains("wait")) => {
                std::future::pending().await
            }
            // What `same` writes does not depend on what it is.
            Op::Exec(exec) if exec.args.last().is_some_and(|last| last.contains("same")) => {
                format!("{} same", task.inputs[0])
            }
            op => {
                self.ran.lock().unwrap().push(task.vertex.clone());
                format!("{} {op:?} {:?}", task.inputs[0], task.contributions)
            }
        })
    }
}

impl CacheIndex<String> for Machine {
    type Error = Infallible;
    type Lock = ();

    fn lookup(&self, key: &ContentKey, _: &[String]) -> Result<Option<String>, Infallible> {
        Ok(self.results.lock().unwrap().get(&key.0).cloned())
    }

    async fn lock(&self, _: &ContentKey) -> Result<(), Infallible> {
        Ok(())
    }

    fn record(&self, key: &ContentKey, value: &String, _: &str) -> Result<(), Infallible> {
        self.results.lock().unwrap().insert(key.0, value.clone());
        Ok(())
    }
}

impl ImageResolver for Machine {
    type Error = String;

    async fn resolve(&self, reference: &Reference, platform: &Platform) -> Result<ResolvedImage, String> {
        let version = *self.image_version.lock().unwrap();
        let mut config =
            ImageConfig { os: platform.os.clone(), architecture: platform.architecture.clone(), ..Default::default() };
        config.rootfs.diff_ids = vec![oci::DiffId(Digest::of(&[version]))];
        let digest = Digest::of(format!("{reference}{version}").as_bytes());
        Ok(ResolvedImage { manifest: digest, digest, config })
    }
}

/// Builds of the same context, one after the other.
#[derive(Default)]
struct Builds {
    machine: Arc<Machine>,
    traces: Vec<Trace>,
}

impl Builds {
    fn new(files: &[(&str, &str)]) -> Builds {
        let builds = Builds::default();
        for (path, text) in files {
            builds.machine.files.lock().unwrap().insert((*path).into(), (*text).into());
        }
        builds
    }

    async fn build(&mut self, dockerfile: &str) -> Vec<(String, Vec<Reason>)> {
        self.build_with(dockerfile, LowerOptions::default(), false).await
    }

    /// The steps that ran, and why.
    async fn build_with(&mut self, text: &str, options: LowerOptions, no_cache: bool) -> Vec<(String, Vec<Reason>)> {
        let dockerfile = parser::parse(text).unwrap();
        let plan = lower(&dockerfile, &options, self.machine.as_ref()).await.plan.unwrap();
        let (sender, _receiver) = tokio::sync::mpsc::unbounded_channel();
        let tracer = Tracer::default();
        let schedule = ScheduleOptions { no_cache, tracer: tracer.clone(), ..Default::default() };
        let graph: Arc<Graph> = Arc::new(plan.graph);
        let targets = [plan.result];
        let machine = &self.machine;
        let solved = solve(graph.clone(), &targets, machine.clone(), machine.clone(), schedule, EventSink::new(sender));
        // Whoever waits for longer gives up.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(5), solved).await;
        let mut trace = tracer.trace(&graph, &targets, text, &[7; 32]);
        // Kept as JSON.
        let kept: Vec<Trace> = self
            .traces
            .iter()
            .rev()
            .map(|trace| serde_json::from_str(&serde_json::to_string(trace).unwrap()).unwrap())
            .collect();
        let seen = |old: &str, new: &str| {
            let seen = machine.seen.lock().unwrap();
            let is_known = seen.iter().any(|id| id == old) && seen.iter().any(|id| id == new);
            let file = FileChange { path: "/f".into(), change: Change::Changed };
            is_known.then(|| FileChanges { total: 1, files: vec![file] })
        };
        Explainer { no_cache, files: &seen }.explain(&mut trace, kept);
        self.traces.push(trace.clone());
        let ran = trace.vertices.into_iter().filter(|vertex| vertex.has_run());
        ran.map(|vertex| (vertex.name, vertex.reasons)).collect()
    }
}

/// `old / new` of each change of words, or a word for the reason.
fn told(reasons: &[Reason]) -> String {
    let one = |reason: &Reason| match reason {
        Reason::TextChanged { words } => {
            words.iter().map(|change| format!("{} / {}", change.old, change.new)).collect::<Vec<_>>().join("; ")
        }
        Reason::VariablesChanged { variables } => {
            let one = |variable: &solver::trace::VariableChange| {
                let kind = if variable.kind == VariableKind::Arg { "ARG" } else { "ENV" };
                format!("{kind} {} {:?}", variable.name, variable.change)
            };
            variables.iter().map(one).collect::<Vec<_>>().join(", ")
        }
        Reason::SettingsChanged { settings } => settings.join(", "),
        Reason::ImageChanged { old, new } => {
            let name = |text: &str| text.split('@').next().unwrap().to_owned();
            format!("image {} / {}", name(old), name(new))
        }
        Reason::FilesChanged { from, changes } => {
            let count = changes.as_ref().map_or("?".to_owned(), |changes| changes.total.to_string());
            format!("{count} files of {from}")
        }
        Reason::InputChanged { name, .. } => format!("input {name}"),
        Reason::Forced { flag } => flag.clone(),
        other => format!("{other:?}"),
    };
    reasons.iter().map(one).collect::<Vec<_>>().join(" | ")
}

/// What each step that runs in the second of two builds says.
async fn second(first: &str, second: &str) -> Vec<String> {
    let mut builds = Builds::new(&[("/f", "1")]);
    builds.build(first).await;
    builds.build(second).await.iter().map(|(_, reasons)| told(reasons)).collect()
}

#[tokio::test]
async fn a_first_build_and_a_new_step() {
    let mut builds = Builds::new(&[]);
    let ran = builds.build("FROM base\nRUN a\nRUN b\n").await;
    assert_eq!(ran.len(), 2);
    assert!(ran.iter().all(|(_, reasons)| *reasons == [Reason::FirstBuild]));
    assert_eq!(builds.build("FROM base\nRUN a\nRUN b\n").await, []);
    let ran = builds.build("FROM base\nRUN a\nRUN b\nRUN c\n").await;
    assert_eq!(ran, [("[4/4] RUN c".to_owned(), vec![Reason::NewStep])]);
    // One that was there before the last build only.
    builds.machine.results.lock().unwrap().clear();
    builds.build("FROM base\nRUN a\n").await;
    let ran = builds.build("FROM base\nRUN a\nRUN b\n").await;
    assert_eq!(told(&ran[0].1), "Evicted");
}

#[tokio::test]
async fn texts() {
    assert_eq!(
        second("FROM base\nRUN make -j2\nRUN b", "FROM base\nRUN make -j4\nRUN b").await,
        ["RUN make -j2 / RUN make -j4", "input [2/3] RUN make -j4"]
    );
    // A step before it takes its place, and it is still known.
    assert_eq!(
        second("FROM base\nRUN cd /x && make one", "FROM base\nRUN new\nRUN cd /x && make two").await,
        ["NewStep", "&& make one / && make two | input [2/3] RUN new"]
    );
    assert_eq!(
        second("FROM base\nRUN <<E\na\nb\nE\n", "FROM base\nRUN <<E\na\nc\nE\n").await,
        ["<<E a b E / <<E a c E"]
    );
    assert_eq!(second("FROM base\nRUN a  b", "FROM base\nRUN a b").await, ["RUN a  b / RUN a b"]);
    // What is not part of a step is no reason, and does not run it.
    assert_eq!(second("FROM base AS one\n# c\nLABEL a=1\nRUN a", "FROM base AS two\nRUN a").await, [""; 0]);
    // A renamed stage is known by its place.
    assert_eq!(second("FROM base AS one\nRUN a 1", "FROM base AS two\nRUN a 2").await, ["RUN a 1 / RUN a 2"], "D12.15");
}

#[tokio::test]
async fn variables_and_settings() {
    for (first, then, expected) in [
        ("FROM base\nENV A=1\nRUN r", "FROM base\nENV A=2\nRUN r", "ENV A Changed"),
        ("FROM base\nARG A=1\nRUN r", "FROM base\nARG A=2\nRUN r", "ARG A Changed"),
        ("FROM base\nRUN r", "FROM base\nENV A=1\nARG B=2\nRUN r", "ENV A Added, ARG B Added"),
        ("FROM base\nARG A=1\nRUN r", "FROM base\nRUN r", "ARG A Removed"),
        ("FROM base\nARG A=1\nENV A=1\nRUN r", "FROM base\nARG A=1\nENV A=2\nRUN r", "ENV A Changed"),
        ("FROM base\nARG D=x\nCOPY f /$D/", "FROM base\nARG D=y\nCOPY f /$D/", "ARG D Changed"),
        ("FROM base\nARG D=x\nWORKDIR /${D}", "FROM base\nARG D=y\nWORKDIR /${D}", "ARG D Changed"),
        (
            "FROM base\nARG D=x\nCOPY <<E /f\n$D\nE\nRUN x",
            "FROM base\nARG D=y\nCOPY <<E /f\n$D\nE\nRUN x",
            "ARG D Changed",
        ),
        ("FROM base\nUSER a\nRUN r", "FROM base\nUSER b\nRUN r", "user"),
        ("FROM base\nSHELL [\"a\", \"-c\"]\nRUN r", "FROM base\nSHELL [\"b\", \"-c\"]\nRUN r", "shell"),
        ("FROM base\nRUN --network=none r", "FROM base\nRUN r", "RUN --network=none r / RUN r"),
    ] {
        assert_eq!(second(first, then).await[0], expected, "{then:?}");
    }
    // An ARG that a COPY does not use is no part of it.
    assert_eq!(second("FROM base\nARG A=1\nCOPY f /", "FROM base\nARG A=2\nCOPY f /").await, [""; 0], "E131");
    let moved = second("FROM base\nWORKDIR /a\nCOPY f .\n", "FROM base\nWORKDIR /b\nCOPY f .\n").await;
    assert_eq!(moved, ["WORKDIR /a / WORKDIR /b", "working directory | input [2/3] WORKDIR /b"]);
}

/// No value of a variable is in a trace.
#[tokio::test]
async fn values_stay_out_of_traces() {
    let mut builds = Builds::new(&[("/f", "1")]);
    let options =
        LowerOptions { build_args: BTreeMap::from([("TOKEN".into(), "hunter2".into())]), ..LowerOptions::default() };
    let text = "FROM base\nARG TOKEN\nENV COPIED=$TOKEN\nWORKDIR /$TOKEN\nCOPY f /$TOKEN\nRUN echo $TOKEN\nADD https://me:hunter2@h.example/x /\n";
    let ran = builds.build_with(text, options, false).await;
    let names: Vec<_> = ran.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[..3], ["[2/5] WORKDIR /$TOKEN", "[3/5] COPY f /$TOKEN", "[4/5] RUN echo $TOKEN"]);
    let kept = serde_json::to_string(&builds.traces[0]).unwrap();
    assert!(!kept.contains("hunter2"), "{kept}");
    assert!(kept.contains("TOKEN"));
}

#[tokio::test]
async fn inputs() {
    let text = "FROM base\nCOPY f /\nRUN r\n";
    let mut builds = Builds::new(&[("/f", "1"), ("/g", "1")]);
    builds.build(text).await;
    builds.machine.files.lock().unwrap().insert("/g".into(), "2".into());
    assert_eq!(builds.build(text).await, [], "it takes another file");
    builds.machine.files.lock().unwrap().insert("/f".into(), "2".into());
    let ran = builds.build(text).await;
    assert_eq!(told(&ran[0].1), "1 files of the context");
    assert_eq!(told(&ran[1].1), "input [2/3] COPY f /");
    // What the files were is not known any more.
    builds.machine.seen.lock().unwrap().clear();
    builds.machine.files.lock().unwrap().insert("/f".into(), "3".into());
    assert_eq!(told(&builds.build(text).await[0].1), "? files of the context");
    // The base.
    *builds.machine.image_version.lock().unwrap() = 1;
    let ran = builds.build(text).await;
    let name = "docker.io/library/base:latest";
    assert_eq!(told(&ran[0].1), format!("image {name} / {name}"));
    let ran = builds.build("FROM base:2\nCOPY f /\nRUN r\n").await;
    assert_eq!(told(&ran[0].1), format!("image {name} / docker.io/library/base:2"));
    // Of another stage; what is between says nothing of its own.
    let stages = |text: &str| format!("FROM base AS one\nRUN {text}\nFROM base\nCOPY --link --from=one /x /\nRUN r\n");
    builds.build(&stages("1")).await;
    let ran: Vec<_> = builds.build(&stages("2")).await.iter().map(|(_, reasons)| told(reasons)).collect();
    let copy = "[stage-1 2/3] COPY --link --from=one /x /";
    assert_eq!(ran, ["RUN 1 / RUN 2".to_owned(), "1 files of stage one".to_owned(), format!("input {copy}")]);
}

/// Early cutoff: what gives the same as before runs nothing after it.
#[tokio::test]
async fn equal_results_end_it() {
    let ran = second("FROM base\nRUN same 1\nRUN r", "FROM base\nRUN same 2\nRUN r").await;
    assert_eq!(ran, ["RUN same 1 / RUN same 2"]);
}

#[tokio::test]
async fn forced() {
    let mut builds = Builds::new(&[]);
    let text = "FROM base AS one\nRUN a\nFROM base AS two\nRUN a\nRUN b\nFROM base\nCOPY --from=one / /\nCOPY --from=two / /\n";
    assert_eq!(builds.build(text).await.len(), 4, "equal steps are one");
    let ran = builds.build_with(text, LowerOptions::default(), true).await;
    assert_eq!(ran.len(), 4);
    assert!(ran.iter().all(|(_, reasons)| told(reasons) == "--no-cache"), "{ran:?}");
    // R7.4.1, R7.4.2: what is equal in another stage is a vertex of its own, and cached.
    for filter in ["TWO", "1"] {
        let options = LowerOptions { no_cache_filter: vec![filter.into()], ..LowerOptions::default() };
        let ran = builds.build_with(text, options, false).await;
        let names: Vec<_> = ran.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["[two 2/3] RUN a", "[two 3/3] RUN b"], "R7.4.1");
        assert!(ran.iter().all(|(_, reasons)| told(reasons) == "--no-cache-filter"));
        let digests: Vec<_> = builds
            .machine
            .ran
            .lock()
            .unwrap()
            .iter()
            .rev()
            .take(2)
            .map(|digest| digest.contains("-ignorecache"))
            .collect();
        assert_eq!(digests, [true, true], "R7.4.2");
    }
    // Results were stored.
    assert_eq!(builds.build(text).await, []);
    let options = LowerOptions { no_cache_filter: vec!["tow".into()], ..LowerOptions::default() };
    let errors = lower(&parser::parse(text).unwrap(), &options, builds.machine.as_ref()).await.plan.err().unwrap();
    assert_eq!(errors[0].to_string(), "stage \"tow\" of --no-cache-filter could not be found (did you mean two?)");
}

#[tokio::test(start_paused = true)]
async fn what_did_not_go_well_before() {
    let mut builds = Builds::new(&[]);
    let texts = ["FROM base\nRUN fail\nRUN r", "FROM base\nRUN wait\nRUN r", "FROM base\nRUN fine\nRUN r"];
    let states = |builds: &Builds| {
        let steps = builds.traces.last().unwrap().vertices.iter().filter(|vertex| vertex.is_step());
        steps.map(|vertex| vertex.state).collect::<Vec<_>>()
    };
    builds.build(texts[0]).await;
    assert_eq!(states(&builds), [State::Failed, State::NotReached]);
    assert_eq!(told(&builds.build(texts[0]).await[0].1), "FailedBefore");
    assert_eq!(told(&builds.build(texts[1]).await[0].1), "RUN fail / RUN wait");
    assert_eq!(states(&builds), [State::Cancelled, State::NotReached]);
    assert_eq!(told(&builds.build(texts[1]).await[0].1), "UnfinishedBefore");
    let ran: Vec<_> = builds.build(texts[2]).await.iter().map(|(_, reasons)| told(reasons)).collect();
    assert_eq!(ran, ["RUN wait / RUN fine", "UnfinishedBefore"]);
    // A build that failed does not hide the one before it.
    builds.build(texts[0]).await;
    let ran: Vec<_> =
        builds.build("FROM base\nRUN other\nRUN r").await.iter().map(|(_, reasons)| told(reasons)).collect();
    assert_eq!(ran, ["RUN fail / RUN other", "input [2/3] RUN other"]);
}

#[tokio::test]
async fn results_that_are_gone() {
    let mut builds = Builds::new(&[]);
    let text = "FROM base\nRUN a\nRUN b\n";
    builds.build(text).await;
    builds.machine.results.lock().unwrap().clear();
    let ran = builds.build(text).await;
    assert!(ran.len() == 2 && ran.iter().all(|(_, reasons)| *reasons == [Reason::Evicted]), "{ran:?}");
    // Keys were made in another way.
    builds.machine.results.lock().unwrap().clear();
    for vertex in &mut builds.traces.last_mut().unwrap().vertices {
        vertex.key = vertex.key.as_ref().map(|key| key.chars().rev().collect());
    }
    let ran = builds.build(text).await;
    assert!(ran.iter().all(|(_, reasons)| *reasons == [Reason::OtherVersion]), "{ran:?}");
}

/// Hostile sizes end soon.
#[tokio::test]
async fn many_instructions() {
    let text = |word: &str| {
        let steps: String = (0..1500).map(|number| format!("RUN {word} {number}\n")).collect();
        format!("FROM base\n{steps}")
    };
    let parse = |text: &str| parser::parse(text).unwrap();
    let machine = Machine::default();
    let mut traces = Vec::new();
    for word in ["a", "b"] {
        let text = text(word);
        let plan = lower(&parse(&text), &LowerOptions::default(), &machine).await.plan.unwrap();
        let mut trace = Tracer::default().trace(&plan.graph, &[plan.result], &text, &[0; 32]);
        for vertex in &mut trace.vertices {
            (vertex.state, vertex.key) = (State::Ran, Some(word.into()));
        }
        traces.push(trace);
    }
    let old = traces.remove(0);
    Explainer { no_cache: false, files: &|_, _| None }.explain(&mut traces[0], [old]);
    let reasons = |at: usize| traces[0].vertices[at].reasons.clone();
    assert_eq!(reasons(1), [Reason::NewStep]);
}
