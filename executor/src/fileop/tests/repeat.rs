//! Copies that keep account: of sources that change, and after earlier copies.

use super::*;
use crate::fileop::statcache::StatCache;
use crate::fileop::{Account, Book, BookWriter, Previous, Recent, selection_digest, stat_of};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// A tree that is copied again and again.
struct Repeated {
    fixture: Fixture,
    cache: StatCache,
    recent: Recent,
    work: tempfile::TempDir,
    copies: usize,
}

impl Repeated {
    fn new(source: &[&str]) -> Repeated {
        let fixture = Fixture::new(source, &[]);
        Repeated {
            fixture,
            cache: StatCache::new(),
            recent: Recent::default(),
            work: tempfile::tempdir().unwrap(),
            copies: 0,
        }
    }

    /// As if the files had been there for a while.
    fn remember(&self) {
        let later = SystemTime::now() + Duration::from_secs(60);
        for name in list(self.fixture.source.path()) {
            let path = self.fixture.source(name.split(['=', '-']).next().unwrap());
            if path.is_file() && !path.is_symlink() {
                let stat = stat_of(fs::File::open(&path).unwrap()).unwrap();
                self.cache.insert(&stat, blake3::hash(&fs::read(&path).unwrap()).as_bytes(), later);
            }
        }
    }

    fn directory(&self, name: &str, number: usize) -> PathBuf {
        self.work.path().join(format!("{name}{number}"))
    }

    /// Copies into a directory of its own, after the copy before; gives the number of it and the summary.
    fn copy(&mut self) -> (usize, CopySummary) {
        let number = self.copies;
        self.copies += 1;
        let previous = number.checked_sub(1).and_then(|before| {
            let root: OwnedFd = fs::File::open(self.directory("copy", before)).unwrap().into();
            Some(Previous::new(root, Book::open(&self.directory("book", before))?))
        });
        let book = BookWriter::create(&self.directory("book", number)).unwrap();
        for name in ["copy", "stage"] {
            fs::create_dir(self.directory(name, number)).unwrap();
        }
        let open = |path: PathBuf| fs::File::open(path).unwrap();
        let source = open(self.fixture.source.path().into());
        let (to, stage) = (open(self.directory("copy", number)), open(self.directory("stage", number)));
        let account = Account {
            digests: &self.cache,
            recent: Some(&self.recent),
            keep_owner: false,
            previous: previous.as_ref(),
            book: Some(&book),
            listing: None,
        };
        let request = CopyRequest {
            source: SourceTree { root: source.as_fd(), ignore: None, ignore_name: "", cancelled: None },
            layer: to.as_fd(),
            staging: stage.as_fd(),
            selection: &Selection::tree("/"),
            to: "/",
            owner: self.fixture.owner,
            chmod: self.fixture.chmod.as_ref(),
            unpack: false,
            account: Some(account),
        };
        let summary = copy(&request, &mut Plain(to.as_fd())).unwrap();
        book.finish().unwrap();
        (number, summary)
    }

    fn is_shared(&self, number: usize, name: &str) -> bool {
        let inode = |number| fs::symlink_metadata(self.directory("copy", number).join(name)).unwrap().ino();
        inode(number) == inode(number - 1)
    }

    fn digest(&self, directory: &Path) -> [u8; 32] {
        let root = fs::File::open(directory).unwrap();
        let tree = SourceTree { root: root.as_fd(), ignore: None, ignore_name: "", cancelled: None };
        selection_digest(&tree, &Selection::tree("/"), &StatCache::new(), None, false).unwrap()
    }
}

/// What was read for the key is not read again, if it is as it was.
#[test]
fn files_read_a_moment_ago() {
    let mut repeated = Repeated::new(&["same=1", "changed=1"]);
    let root = fs::File::open(repeated.fixture.source.path()).unwrap();
    let tree = SourceTree { root: root.as_fd(), ignore: None, ignore_name: "", cancelled: None };
    let all = Selection::tree("/");
    selection_digest(&tree, &all, &repeated.cache, Some(&repeated.recent), false).unwrap();
    let stat = |name: &str| stat_of(fs::File::open(repeated.fixture.source(name)).unwrap()).unwrap();
    let (_, digest) = repeated.recent.take(&stat("same")).unwrap();
    // Planted, to see where the copy takes it from.
    repeated.recent.put(&stat("same"), b"2".to_vec(), digest);
    fs::write(repeated.fixture.source("changed"), "3").unwrap();
    let (number, _) = repeated.copy();
    assert_eq!(list(&repeated.directory("copy", number)), ["changed=3", "same=2"]);
}

#[test]
fn unchanged_files_are_linked_from_the_copy_before() {
    let mut repeated = Repeated::new(&["same", "d/same", "d/changed", "moded", "touched", "linked", "sub/new/same"]);
    fs::write(repeated.fixture.source("d/changed"), "one").unwrap();
    repeated.remember();
    repeated.copy();
    fs::write(repeated.fixture.source("d/changed"), "two").unwrap();
    set_mode(&repeated.fixture.source("moded"), 0o600);
    let touched = fs::File::options().write(true).open(repeated.fixture.source("touched")).unwrap();
    touched.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    fs::hard_link(repeated.fixture.source("linked"), repeated.fixture.source("link")).unwrap();
    repeated.remember();
    let (number, summary) = repeated.copy();
    for (name, is_shared) in [
        ("same", true),
        ("d/same", true),
        ("sub/new/same", true),
        ("d/changed", false),
        ("moded", false),
        ("touched", false),
        ("linked", false),
    ] {
        assert_eq!(repeated.is_shared(number, name), is_shared, "{name}");
    }
    let copy = repeated.directory("copy", number);
    assert_eq!(list(&copy), list(repeated.fixture.source.path()));
    assert_eq!(fs::read(copy.join("d/changed")).unwrap(), b"two");
    assert_eq!(fs::symlink_metadata(copy.join("linked")).unwrap().nlink(), 2);
    assert_eq!(summary.digest, Some(repeated.digest(repeated.fixture.source.path())));
    // Other attributes than before: nothing is shared, and the old copy stays as it is.
    repeated.fixture.chmod = Some(Chmod::Octal(0o640));
    let (number, _) = repeated.copy();
    assert!(!repeated.is_shared(number, "same"));
    assert_eq!(
        mode(&repeated.directory("copy", number - 1).join("same")) & 0o777,
        mode(&repeated.fixture.source("same"))
    );
}

/// What is too young to be known by its times is copied.
#[test]
fn young_files_are_not_linked() {
    let mut repeated = Repeated::new(&["f"]);
    repeated.copy();
    let (number, _) = repeated.copy();
    assert!(!repeated.is_shared(number, "f"));
}

/// The book and the digest are of what was copied.
#[test]
fn books_and_digests() {
    let mut repeated = Repeated::new(&["a", "d/b", "d/e/"]);
    fs::write(repeated.fixture.source("d/b"), "text").unwrap();
    std::os::unix::fs::symlink("a", repeated.fixture.source("l")).unwrap();
    let (number, summary) = repeated.copy();
    let book = Book::open(&repeated.directory("book", number)).unwrap();
    assert_eq!(book.digest(b"d/b"), Some(*blake3::hash(b"text").as_bytes()));
    assert_eq!((book.digest(b"l"), book.digest(b"d/none")), (None, None));
    assert_eq!(summary.digest, Some(repeated.digest(repeated.fixture.source.path())));
    assert_eq!(summary.into, Some(Vec::new()));
}

/// Whatever is written to the source meanwhile, the digest is that of the copy (X6.44).
#[test]
fn files_that_change_while_they_are_copied() {
    let mut repeated = Repeated::new(&["busy", "other"]);
    let path = repeated.fixture.source("busy");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut state = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                state += 1;
                let length = 1 + state as usize % 300_000;
                fs::write(&path, vec![state.to_le_bytes()[0]; length]).unwrap();
                std::thread::sleep(Duration::from_micros(u64::from(state % 7) * 300));
            }
        });
        for _ in 0..40 {
            let attempt = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| repeated.copy()));
            // Where it never held still the copy says so.
            let Ok((number, summary)) = attempt else { continue };
            assert_eq!(summary.digest, Some(repeated.digest(&repeated.directory("copy", number))));
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (number, summary) = repeated.copy();
    assert_eq!(summary.digest, Some(repeated.digest(&repeated.directory("copy", number))));
}
