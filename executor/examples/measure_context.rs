//! Times the digest (cold, then with remembered digests) and the copy of a context of many small files.
//!
//! `cargo run --release -p executor --example measure_context [DIRECTORY]`; without a directory, 100,000 files are made.

use executor::fileop::{CopyRequest, Owner, copy};
use executor::source::digest::selection_digest;
use executor::source::local::LocalSource;
use executor::source::statcache::StatCache;
use solver::op::Selection;
use std::error::Error;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let context = match std::env::args_os().nth(1) {
        Some(directory) => PathBuf::from(directory),
        None => {
            let context = temporary.path().join("context");
            make(&context)?;
            // Else the files are too young for their digests to be remembered.
            std::thread::sleep(Duration::from_secs(4));
            context
        }
    };
    let all = Selection { path: "/".into(), wildcard: false, exclude: Vec::new(), parents: None };
    let source = LocalSource::open(&context, "context", Some(&context.join("Dockerfile")))?;
    let file = temporary.path().join("digests");
    for round in ["cold", "warm", "warm", "warm"] {
        let start = Instant::now();
        let cache = StatCache::load(&file);
        let loaded = start.elapsed();
        selection_digest(&source.tree(), std::slice::from_ref(&all), &cache, false)?;
        let digested = start.elapsed();
        cache.save(&file)?;
        println!("digest {round}: {digested:?} of which loading {loaded:?}; saved after {:?}", start.elapsed());
    }
    for round in 0..3 {
        let to = temporary.path().join(format!("copy{round}"));
        fs::create_dir(&to)?;
        let to = fs::File::open(to)?;
        let start = Instant::now();
        let summary = copy(&CopyRequest {
            source: source.tree(),
            destination: to.as_fd(),
            selection: &all,
            to: "/",
            owner: Owner::Keep,
            chmod: None,
            unpack: false,
        })?;
        println!("copy: {:?}, {summary:?}", start.elapsed());
    }
    Ok(())
}

fn make(context: &Path) -> std::io::Result<()> {
    for d in 0..1000 {
        let dir = context.join(format!("d{}/s{d}", d % 10));
        fs::create_dir_all(&dir)?;
        for f in 0..100 {
            fs::write(dir.join(format!("file{f}")), format!("{d} {f} ").repeat(100))?;
        }
    }
    Ok(())
}
