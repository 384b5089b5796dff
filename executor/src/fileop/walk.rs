//! A walk over a source tree on all cores.
//!
//! Directories are tasks that wait for nobody: a directory's node lives as long as anything below it is at work, and
//! whoever lets go of it last closes it (`Visitor::leave`), then its parent. So the stack stays flat, however deep a hostile tree
//! is, and a directory's times can be set when nothing is written below it any more.
//!
//! The walk begins on the calling thread. Only what is left after a while goes to the others: a small tree is done before they would have started.

use super::error::{Context, Error};
use super::path::{join, push, shown};
use super::resolve::open_dir;
use super::select::{Filter, FilterState, Verdict};
use super::stat::{self, Stat};
use rayon::Scope;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, RawDir};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Non-directories that one task takes at most.
const CHUNK: usize = 128;
/// How long the calling thread walks alone.
const ALONE: Duration = Duration::from_millis(1);

pub(crate) struct Entry {
    pub name: Vec<u8>,
    pub kind: FileType,
}

/// A directory that is being walked.
pub(crate) struct Node<D> {
    pub parent: Option<Arc<Node<D>>>,
    pub fd: OwnedFd,
    pub stat: Stat,
    /// Canonical, from the top of the tree.
    pub path: Vec<u8>,
    pub name: Vec<u8>,
    /// Counts only if something below it does.
    pub lazy: bool,
    pub data: D,
    state: FilterState,
}

pub(crate) trait Visitor: Sync {
    /// What the visitor keeps with a directory.
    type Dir: Send + Sync;

    /// A directory is about to be read; `lazy` ones must not be acted on yet.
    fn enter(&self, parent: &Node<Self::Dir>, name: &[u8], lazy: bool) -> Result<Self::Dir, Error>;

    /// Some of a directory's entries that are no directories, in no order, on any thread.
    fn entries(&self, dir: &Node<Self::Dir>, entries: &[Entry]) -> Result<(), Error>;

    /// All that is below has been visited.
    fn leave(&self, dir: &mut Node<Self::Dir>) -> Result<(), Error>;
}

/// A piece of work that depends on no other.
enum Task<D> {
    Directory(Arc<Node<D>>),
    Enter { parent: Arc<Node<D>>, name: Vec<u8>, state: FilterState, lazy: bool },
    Entries { dir: Arc<Node<D>>, entries: Vec<Entry> },
}

struct Walk<'a, V: Visitor> {
    visitor: &'a V,
    filter: &'a Filter<'a>,
    root_path_len: usize,
    failed: AtomicBool,
    error: Mutex<Option<Error>>,
}

/// Walks what lies below a directory, which is open for reading and has the canonical `path`.
pub(crate) fn walk<V: Visitor>(
    visitor: &V,
    filter: &Filter<'_>,
    fd: OwnedFd,
    path: &[u8],
    data: V::Dir,
) -> Result<(), Error> {
    let stat = stat::of(&fd).context("stat", path)?;
    let state = filter.root_state(path);
    let walk =
        Walk { visitor, filter, root_path_len: path.len(), failed: AtomicBool::new(false), error: Mutex::new(None) };
    let root = Node { parent: None, fd, stat, path: path.to_vec(), name: Vec::new(), lazy: false, data, state };
    let (began, mut tasks) = (Instant::now(), vec![Task::Directory(Arc::new(root))]);
    while began.elapsed() < ALONE
        && let Some(task) = tasks.pop()
    {
        walk.run(task, &mut |task| tasks.push(task));
    }
    if !tasks.is_empty() {
        rayon::scope(|scope| tasks.into_iter().for_each(|task| walk.spawn(scope, task)));
    }
    match walk.error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

impl<'a, V: Visitor> Walk<'a, V> {
    fn fail(&self, error: Error) {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }

    fn spawn<'s>(&'s self, scope: &Scope<'s>, task: Task<V::Dir>)
    where
        V::Dir: 's,
    {
        scope.spawn(move |scope| self.run(task, &mut |next| self.spawn(scope, next)));
    }

    /// `more` takes what comes out of it.
    fn run(&self, task: Task<V::Dir>, more: &mut dyn FnMut(Task<V::Dir>)) {
        match task {
            Task::Directory(node) => self.directory(node, more),
            Task::Enter { parent, name, state, lazy } => self.enter(parent, name, state, lazy, more),
            Task::Entries { dir, entries } => {
                self.entries(&dir, &entries);
                self.release(dir);
            }
        }
    }

    fn directory(&self, node: Arc<Node<V::Dir>>, more: &mut dyn FnMut(Task<V::Dir>)) {
        if self.filter.cancelled.is_some_and(|cancelled| cancelled.load(Ordering::Relaxed)) {
            self.fail(Error::Cancelled);
        }
        if !self.failed.load(Ordering::Relaxed)
            && let Err(error) = self.list(&node, more)
        {
            self.fail(error);
        }
        self.release(node);
    }

    fn list(&self, node: &Arc<Node<V::Dir>>, more: &mut dyn FnMut(Task<V::Dir>)) -> Result<(), Error> {
        let mut files = Vec::new();
        let mut path = node.path.clone();
        for entry in read_dir(&node.fd, &node.path)? {
            let is_dir = entry.kind == FileType::Directory;
            let (state, lazy) = if self.filter.is_empty() {
                (FilterState::default(), false)
            } else {
                path.truncate(node.path.len());
                push(&mut path, &entry.name);
                let rel = &path[self.root_path_len..];
                let rel = rel.strip_prefix(b"/").unwrap_or(rel);
                match self.filter.decide(&node.state, &path, rel, is_dir) {
                    Verdict::Skip => continue,
                    Verdict::Keep(state) => (state, false),
                    Verdict::Lazy(state) => (state, true),
                }
            };
            if is_dir {
                more(Task::Enter { parent: Arc::clone(node), name: entry.name, state, lazy });
            } else {
                files.push(entry);
            }
        }
        while files.len() > CHUNK {
            let entries = files.split_off(files.len() - CHUNK);
            more(Task::Entries { dir: Arc::clone(node), entries });
        }
        self.entries(node, &files);
        Ok(())
    }

    fn entries(&self, dir: &Node<V::Dir>, entries: &[Entry]) {
        if !entries.is_empty()
            && !self.failed.load(Ordering::Relaxed)
            && let Err(error) = self.visitor.entries(dir, entries)
        {
            self.fail(error);
        }
    }

    fn enter(
        &self,
        parent: Arc<Node<V::Dir>>,
        name: Vec<u8>,
        state: FilterState,
        lazy: bool,
        more: &mut dyn FnMut(Task<V::Dir>),
    ) {
        if self.failed.load(Ordering::Relaxed) {
            return self.release(parent);
        }
        let opened = || {
            let path = join(&parent.path, &name);
            let fd = open_dir(&parent.fd, &name, &path)?;
            let stat = stat::of(&fd).context("stat", &path)?;
            let data = self.visitor.enter(&parent, &name, lazy)?;
            Ok((path, fd, stat, data))
        };
        match opened() {
            Ok((path, fd, stat, data)) => {
                let node = Node { parent: Some(parent), fd, stat, path, name, lazy, data, state };
                self.directory(Arc::new(node), more);
            }
            Err(error) => {
                self.fail(error);
                self.release(parent);
            }
        }
    }

    /// Lets go of a directory, and leaves it and then its parents where this was the last hold. A loop, because dropping a chain of
    /// parents would recurse as deep as the tree is.
    fn release(&self, node: Arc<Node<V::Dir>>) {
        let mut next = Some(node);
        while let Some(mut node) = next.and_then(Arc::into_inner) {
            if !self.failed.load(Ordering::Relaxed)
                && let Err(error) = self.visitor.leave(&mut node)
            {
                self.fail(error);
            }
            next = node.parent.take();
        }
    }
}

/// All entries but `.` and `..`, in the file system's order.
pub(crate) fn read_dir(fd: impl AsFd, path: &[u8]) -> Result<Vec<Entry>, Error> {
    let fd = fd.as_fd();
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut entries = Vec::new();
    let mut dir = RawDir::new(fd, buffer.spare_capacity_mut());
    while let Some(entry) = dir.next() {
        let entry = entry.context("read", path)?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not tell.
            FileType::Unknown => stat::at(fd, name).context("stat", &join(path, name))?.kind,
            kind => kind,
        };
        entries.push(Entry { name: name.to_vec(), kind });
    }
    Ok(entries)
}

/// Whether the filter leaves anything below a directory.
pub(crate) fn any_entry(filter: &Filter<'_>, fd: OwnedFd, path: &[u8]) -> Result<bool, Error> {
    struct Any(AtomicBool);
    impl Visitor for Any {
        type Dir = ();
        fn enter(&self, parent: &Node<()>, name: &[u8], lazy: bool) -> Result<(), Error> {
            match lazy {
                true => Ok(()),
                false => self.entries(parent, &[Entry { name: name.to_vec(), kind: FileType::Directory }]),
            }
        }
        fn entries(&self, dir: &Node<()>, _: &[Entry]) -> Result<(), Error> {
            self.0.store(true, Ordering::Relaxed);
            // Ends the walk; the caller sees that something was found.
            Err(Error::Changed { path: shown(&dir.path) })
        }
        fn leave(&self, _: &mut Node<()>) -> Result<(), Error> {
            Ok(())
        }
    }
    let any = Any(AtomicBool::new(false));
    match walk(&any, filter, fd, path, ()) {
        Err(_) if any.0.load(Ordering::Relaxed) => Ok(true),
        walked => walked.map(|()| false),
    }
}
