//! `rbuild build --report` and `rbuild graph`.

use crate::browser::Browser;
use crate::harness::{Harness, tool, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::process::Stdio;

/// Every way in which a text could leave its place, at every place where a text can stand.
const HOSTILE_TEXT: &str = r#"FROM busybox AS evil
ARG X="<img src=x onerror=window.pwned=1>"
WORKDIR "/<script>window.pwned=2</script>"
RUN echo '<script>window.pwned=3</script>' '</script><script>window.pwned=4</script>' '"onload="window.pwned=5' '-->' ']]>' 'U+2028 U+202E' > /one
RUN printf '</pre></style><svg onload=window.pwned=6>\033]0;title\007\033[31mred "quoted"\033[0m\n'; echo $X > /two
RUN echo '#quot; `md` $y {z} [w] | ; %% end \N' > "/<img src=x onerror=window.pwned=7>"
FROM busybox
COPY --from=evil /etc/passwd "/</text><script>window.pwned=8</script>"
"#;

fn hostile() -> String {
    HOSTILE_TEXT.replace("U+2028", "\u{2028}\u{2029}").replace("U+202E", "\u{202e}")
}

fn json(harness: &Harness, args: &[&str]) -> Value {
    serde_json::from_str(&harness.rbuild(args).ok().stdout).unwrap()
}

/// The states of nodes by their labels.
fn states(document: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let nodes = document["nodes"].as_array().unwrap().iter();
    nodes.filter(|node| node["kind"] != "image").map(|node| (text(&node["label"]), text(&node["state"]))).collect()
}

#[test]
fn graphs_tell_what_became_of_steps() {
    let harness = Harness::new();
    let dockerfile = "FROM busybox AS one\nRUN echo 1 > /1\nFROM busybox AS idle\nRUN exit 3\nFROM busybox\nCOPY --from=one /1 /\nRUN test ! -e /fail\nRUN echo end > /end\n";
    let context = harness.context("context", dockerfile);
    let path = context.to_str().unwrap();
    let graph = |more: &[&str]| json(&harness, &[&["graph", "--format=json", path], more].concat());
    let of = |states: [&str; 4]| -> Vec<(String, String)> {
        let labels = ["RUN echo 1 > /1", "COPY --from=one /1 /", "RUN test ! -e /fail", "RUN echo end > /end"];
        labels.iter().zip(states).map(|(label, state)| (label.to_string(), state.to_owned())).collect()
    };
    assert_eq!(states(&graph(&[])), of(["", "", "", ""]), "never built");
    harness.build(&context, &[]).ok();
    assert_eq!(states(&graph(&[])), of(["ran", "ran", "ran", "ran"]));
    fs::write(context.join("Dockerfile"), dockerfile.replace("! -e", "-e")).unwrap();
    harness.build(&context, &[]).fails(1);
    let mut expected = of(["cached", "cached", "failed", "not-reached"]);
    expected[2].0 = "RUN test -e /fail".into();
    assert_eq!(states(&graph(&[])), expected);
    assert_eq!(states(&json(&harness, &["graph", "--last", "--format=json"])), expected);
    // A stage that the target does not need, and a target.
    let all = graph(&["--all"]);
    let unused = all["nodes"].as_array().unwrap().iter().find(|node| node["label"] == "RUN exit 3").unwrap();
    assert_eq!((&unused["used"], &all["stages"][1]["used"]), (&false.into(), &false.into()));
    assert_eq!(states(&graph(&["--target=one"])), [("RUN echo 1 > /1".to_owned(), "cached".to_owned())]);
    let text = harness.rbuild(&["graph", path]).ok().stdout;
    assert!(text.contains("RUN test -e /fail  failed after"), "{text}");
    assert!(text.contains("which failed") && !text.contains('\x1b'), "{text}");
    harness.rbuild(&["graph", "--target=other", path]).fails(1);
}

#[test]
fn graphviz_reads_hostile_graphs() {
    let harness = Harness::new();
    let context = harness.context("context", &hostile());
    let file = harness.path_text("graph.dot");
    harness.rbuild(&["graph", "--format=dot", "-o", &file, context.to_str().unwrap()]).ok();
    let drawn = tool("dot", &["-Tplain", &file]);
    assert_eq!(drawn.lines().filter(|line| line.starts_with("node ")).count(), 6, "{drawn}");
    assert_eq!(drawn.lines().filter(|line| line.starts_with("edge ")).count(), 6, "{drawn}");
    let svg = tool("dot", &["-Tsvg", &file]);
    assert!(svg.contains("pwned") && !svg.contains("<script"), "{svg}");
}

#[test]
fn pages_tell_of_builds_however_they_end() {
    let harness = Harness::new();
    let context =
        harness.context("context", "FROM busybox\nRUN echo told | tee /file; rm /file\nRUN echo again > /x\n");
    let file = harness.path_text("report.html");
    let page = || fs::read_to_string(&file).unwrap();
    let report = format!("--report={file}");
    harness.build(&context, &["-t", "user/name", &report]).ok();
    let first = page();
    for part in ["<h1>user/name:latest", "succeeded</span>", "told\n", "first build", "id=\"layers\"", "sha256:"] {
        assert!(first.contains(part), "{part}");
    }
    // Nothing to record, and yet a page.
    harness.build(&context, &[&report]).ok();
    assert!(page().contains("<strong>2</strong> cached"), "{}", page());
    fs::write(context.join("Dockerfile"), "FROM busybox\nRUN echo because; exit 7\n").unwrap();
    harness.build(&context, &[&report]).fails(1);
    assert!(page().contains("exit code: 7") && page().contains("because\n") && page().contains("failed</span>"));
    // Before it is known what to do.
    fs::write(context.join("Dockerfile"), "FROM busybox\nRUM x\n").unwrap();
    harness.build(&context, &[&report]).fails(1);
    assert!(page().contains("unknown instruction: RUM"), "{}", page());
    harness.build(&context, &["--report=/nowhere/at/all.html"]).fails(2).says("/nowhere/at/all.html");
    let left = fs::read_dir(harness.path(""))
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(".tmp"));
    assert_eq!(left.count(), 0);
}

#[test]
fn a_cancelled_build_has_a_page() {
    let harness = Harness::new();
    let context = harness.context("context", "FROM busybox\nRUN touch /begun; echo begun; sleep 100\n");
    let file = harness.path("report.html");
    let flags = ["build", "--progress=plain", "--report", file.to_str().unwrap(), context.to_str().unwrap()];
    let log = fs::File::create(harness.path("log")).unwrap();
    let mut build = harness.command(&flags).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    wait_until("the step has begun", || {
        fs::read_to_string(harness.path("log")).unwrap().lines().any(|line| line.ends_with(" begun"))
    });
    kill_process(Pid::from_child(&build), Signal::INT).unwrap();
    assert_eq!(build.wait().unwrap().code(), Some(130));
    let page = fs::read_to_string(file).unwrap();
    assert!(page.contains("<span class=\"badge cancelled\">cancelled</span>") && page.contains("begun\n"), "{page}");
}

#[test]
fn secrets_and_arguments_are_not_in_pages() {
    let harness = Harness::new();
    let dockerfile =
        "FROM busybox\nARG TOKEN\nRUN --mount=type=secret,id=s test -s /run/secrets/s && test \"$TOKEN\"\n";
    let context = harness.context("context", dockerfile);
    fs::write(harness.path("secret"), "very-secret-value").unwrap();
    let (file, secret) = (harness.path_text("report.html"), format!("id=s,src={}", harness.path_text("secret")));
    let flags = ["--secret", &secret, "--build-arg=TOKEN=hidden-argument", "--report", &file];
    harness.build(&context, &flags).ok();
    let page = fs::read_to_string(&file).unwrap();
    assert!(!page.contains("very-secret-value") && !page.contains("hidden-argument"));
}

#[test]
fn hostile_texts_stay_texts_in_a_browser() {
    let harness = Harness::new();
    let context = harness.context("context <script>window.pwned=9</script>", &hostile());
    let (page, svg) = (harness.path("report.html"), harness.path("graph.svg"));
    harness.build(&context, &["-t", "evil", "--target=evil", "--report", page.to_str().unwrap()]).ok();
    harness.rbuild(&["graph", "--format=svg", "-o", svg.to_str().unwrap(), context.to_str().unwrap()]).ok();
    let mut browser = Browser::start();
    for path in [&page, &svg] {
        browser.open(path);
        assert_eq!(browser.complaints(), Vec::<String>::new(), "{}", path.display());
        assert_eq!(browser.evaluate("typeof window.pwned"), "undefined", "{}", path.display());
    }
    assert_eq!(browser.evaluate("document.querySelectorAll('.node').length > 5"), true);
    browser.open(&page);
    assert_eq!(browser.evaluate("document.querySelectorAll('script').length"), 1);
    let log = browser.evaluate("Array.from(document.querySelectorAll('.log')).map(log => log.textContent).join()");
    let log = log.as_str().unwrap();
    assert!(log.contains("</pre></style><svg onload=window.pwned=6>red \"quoted\"") && !log.contains('\x1b'), "{log}");
    // The policy holds against what would get through: nothing but the page's own script may run.
    let inserted = "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=window.pwned=10>'); document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.pwned=11'})); new Promise(done => setTimeout(() => done(typeof window.pwned), 200))";
    assert_eq!(browser.evaluate(inserted), "undefined");
}

#[test]
fn pages_work_in_a_browser() {
    let harness = Harness::new();
    let dockerfile = "FROM busybox AS make\nRUN echo making > /made\nFROM busybox\nRUN sleep 0.3; echo slow$((40 + 2))\nCOPY --from=make /made /\n";
    let context = harness.context("context", dockerfile);
    let page = harness.path("report.html");
    harness.build(&context, &["--report", page.to_str().unwrap()]).ok();
    let mut browser = Browser::start();
    browser.prefer_dark();
    browser.open(&page);
    assert_eq!(browser.complaints(), Vec::<String>::new());
    let background = browser.evaluate("getComputedStyle(document.body).backgroundColor");
    assert_eq!(background, "rgb(7, 12, 24)", "dark");
    // A click on a step of the graph opens its details, and the keyboard is there.
    let click = "(() => { const step = Array.from(document.querySelectorAll('#drawing a')).find(a => a.textContent.includes('sleep 0.3')); step.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true})); const open = Array.from(document.querySelectorAll('details.step[open]')); return [open.length, open[0].querySelector('.log').textContent.includes('slow42'), document.activeElement.parentElement === open[0], '#' + open[0].id === step.getAttribute('href')]; })()";
    assert_eq!(browser.evaluate(click), serde_json::json!([1, true, true, true]));
    // The filter looks into logs, too.
    let filter = "(() => { const input = document.getElementById('filter'); input.value = 'SLEEP Slow42'; input.dispatchEvent(new Event('input')); return [Array.from(document.querySelectorAll('#table tbody tr:not([hidden])')).length, document.getElementById('found').textContent]; })()";
    assert_eq!(browser.evaluate(filter), serde_json::json!([1, "1 step"]));
    let sort = "(() => { const input = document.getElementById('filter'); input.value = ''; input.dispatchEvent(new Event('input')); const head = document.querySelectorAll('#table th')[4]; head.querySelector('button').click(); head.querySelector('button').click(); const values = Array.from(document.querySelectorAll('#table tbody tr')).map(row => Number(row.cells[4].dataset.value)); return [head.getAttribute('aria-sort'), values.length > 5, values.every((value, at) => at === 0 || values[at - 1] >= value)]; })()";
    assert_eq!(browser.evaluate(sort), serde_json::json!(["descending", true, true]));
    let zoom = "(() => { const width = () => document.getElementById('lanes').clientWidth; const before = width(); document.querySelector('[data-zoom=in]').click(); return width() > 1.5 * before; })()";
    assert_eq!(browser.evaluate(zoom), true);
    let critical = browser.evaluate("document.querySelector('.path').textContent");
    assert!(critical.as_str().unwrap().contains("sleep 0.3"), "{critical}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
