//! Parsing with its checks: a file of 10,000 lines takes less than 20 ms, in proportion to its length; hostile shapes take no longer.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use parser::parse;

/// A stage of 25 lines with about everything.
const STAGE: &str = r#"# STAGE builds a part
FROM debian:bookworm-slim AS STAGE
ARG VERSION=1.2.3 DEBUG
ENV PATH="/opt/STAGE/bin:$PATH" LANG=C.UTF-8
LABEL org.opencontainers.image.title="STAGE" \
      org.opencontainers.image.version=$VERSION
# hadolint ignore=DL3008
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    apt-get update && \
    # what the build needs
    apt-get install -y --no-install-recommends build-essential \
        cmake \
        git
WORKDIR /src
COPY --chown=1000:1000 --exclude=*.md Makefile src/ ./
RUN <<EOF
set -eu
make -j"$(nproc)"
make install DESTDIR=/out
EOF
COPY <<"CONF" /etc/STAGE.conf
key = "value"
CONF
USER 1000
EXPOSE 8080/tcp
"#;

fn dockerfile(lines: usize) -> String {
    let length = STAGE.lines().count();
    (0..lines / length).map(|index| STAGE.replace("STAGE", &format!("stage-{index}"))).collect()
}

fn benchmarks(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for lines in [1_000, 10_000, 20_000, 40_000] {
        let source = dockerfile(lines);
        assert!(parse(&source).is_ok());
        group.throughput(Throughput::Bytes(source.len() as u64));
        group.bench_with_input(BenchmarkId::new("lines", lines), &source, |b, source| b.iter(|| parse(source)));
    }
    group.finish();

    let mut group = c.benchmark_group("hostile");
    let stages: String = (0..10_000).map(|index| format!("FROM a AS stage{index}\n")).collect();
    let shapes = [
        ("one instruction of 10,000 lines", format!("FROM a\nRUN true{}", " && \\\n  true".repeat(10_000))),
        ("10,000 stages", stages),
        ("10,000 errors", "FROM a\nFOO bar\n".repeat(10_000)),
        ("10,000 here-documents", format!("FROM a\n{}", "COPY <<A /a\nx\nA\n".repeat(10_000))),
        ("10,000 warnings", format!("FROM a\n{}", "Run x\n".repeat(10_000))),
    ];
    for (name, source) in &shapes {
        group.bench_with_input(BenchmarkId::from_parameter(name), source, |b, source| b.iter(|| parse(source)));
    }
    group.finish();

    let source = dockerfile(10_000);
    c.bench_function("format/10000", |b| b.iter(|| parser::format(&source)));
}

criterion_group!(parsing, benchmarks);
criterion_main!(parsing);
