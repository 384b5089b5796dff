//! Times the digest (cold, then with remembered digests) and the copy of a context of many small files, the later ones linked from the first.
//!
//! `cargo run --release -p executor --example measure_context [DIRECTORY]`; without a directory, 100,000 files are made.

use executor::fileop::statcache::StatCache;
use executor::fileop::{Account, Book, BookWriter, CopyRequest, Owner, Plain, Previous, copy, selection_digest};
use executor::source::local::LocalSource;
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
        selection_digest(&source.tree(), &all, &cache, None, false)?;
        let digested = start.elapsed();
        cache.save(&file)?;
        println!("digest {round}: {digested:?} of which loading {loaded:?}; saved after {:?}", start.elapsed());
    }
    let digests = StatCache::load(&file);
    let mut previous: Option<Previous> = None;
    for round in 0..3 {
        let path = temporary.path().join(format!("copy{round}"));
        let stage = temporary.path().join(format!("stage{round}"));
        fs::create_dir(&path)?;
        fs::create_dir(&stage)?;
        let (to, stage) = (fs::File::open(&path)?, fs::File::open(stage)?);
        let book_path = temporary.path().join(format!("book{round}"));
        let book = BookWriter::create(&book_path)?;
        let start = Instant::now();
        let account = Account {
            digests: &digests,
            recent: None,
            keep_owner: false,
            previous: previous.as_ref(),
            book: Some(&book),
            listing: None,
        };
        let request = CopyRequest {
            source: source.tree(),
            layer: to.as_fd(),
            staging: stage.as_fd(),
            selection: &all,
            to: "/",
            owner: Owner::Keep,
            chmod: None,
            unpack: false,
            account: Some(account),
        };
        let summary = copy(&request, &mut Plain(to.as_fd()))?;
        println!("copy: {:?}, {} files, {} bytes", start.elapsed(), summary.files, summary.bytes);
        book.finish()?;
        previous = Book::open(&book_path).map(|book| Previous::new(to.into(), book));
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
