//! What a `Selection` means in a tree: its source roots, and which entries below them count.
//!
//! Copying and digesting both start here, so that the key of a copy is that of exactly the files that it would take.
//!
//! Three sets of patterns decide about an entry below a root. An ignore file sees paths from the top of the tree (D20.6),
//! `--exclude` and the pattern of `--parents` see them from the source root (X3.43, X3.46). A directory that is itself excluded but may hold
//! something that is not is `Lazy`: it counts only if something below it does (X3.45, D20.12).

use super::error::Error;
use super::path::{below, clean, join, names, parent_and_name, push, shown};
use super::resolve::{self, Resolved, resolve};
use super::stat::Stat;
use super::{SourceTree, walk};
use parser::glob::has_wildcard;
use parser::ignore::{MatchState as PatternState, PatternMatcher};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::FileType;
use solver::op::Selection;
use std::sync::atomic::AtomicBool;

/// Something that was named or matched, links followed (X3.11, X3.12).
pub(crate) struct SourceRoot {
    /// Canonical path in the tree.
    pub path: Vec<u8>,
    /// Last element of the path as it was selected: the name of a file that is put into a directory.
    pub name: Vec<u8>,
    pub stat: Stat,
    /// `O_PATH` descriptor.
    pub node: OwnedFd,
    /// Directory that holds it, where it is no directory.
    pub parent: Option<OwnedFd>,
}

pub(crate) struct Selected<'a> {
    /// In the order in which they are copied (X3.8).
    pub roots: Vec<SourceRoot>,
    pub filter: Filter<'a>,
    /// `--parents`: the destination is a directory in any case (D18.35), also when nothing matched (D18.36).
    pub parents: bool,
}

/// Finds the source roots. Nothing found is an error for a literal path (X3.9), not for a wildcard (X3.10).
pub(crate) fn select<'a>(tree: &SourceTree<'a>, selection: &Selection) -> Result<Selected<'a>, Error> {
    let path = clean(selection.path.as_bytes());
    let exclude = match selection.exclude.is_empty() {
        true => None,
        false => Some(matcher(&selection.exclude)?),
    };
    let mut filter = Filter { ignore: tree.ignore, exclude, include: None, cancelled: tree.cancelled };
    let Some(pivot) = &selection.parents else {
        let roots = if selection.wildcard && has_wildcard(&path) {
            glob(tree, &path)?
        } else {
            vec![named(tree, &path, &path)?]
        };
        let counts = |root: &SourceRoot| match &filter.exclude {
            // A file that is the source is tested too, by its base name (D18.33).
            Some(exclude) if !root.stat.is_dir() => !exclude.is_excluded(&root.name),
            _ => true,
        };
        let roots = roots.into_iter().filter(counts).collect();
        return Ok(Selected { roots, filter, parents: false });
    };

    let pivot = clean(pivot.as_bytes());
    let Some(rest) = below(&path, &pivot) else {
        return Err(Error::NotFound { path: shown(&path) });
    };
    let roots = if selection.wildcard && has_wildcard(&pivot) {
        glob(tree, &pivot)?
    } else {
        match named(tree, &pivot, &path) {
            Err(Error::NotFound { .. } | Error::Excluded { .. }) if selection.wildcard => Vec::new(),
            found => vec![found?],
        }
    };
    let literal = !(selection.wildcard && has_wildcard(rest));
    let mut dirs = Vec::new();
    for root in roots {
        if !root.stat.is_dir() {
            if selection.wildcard {
                continue;
            }
            return Err(Error::NotFound { path: shown(&path) });
        }
        if literal && !rest.is_empty() && !selection.wildcard {
            // Below the pivot nothing is followed: a link is copied as one (X3.46).
            let full = join(&root.path, rest);
            let mut at = lookup(tree, &full, false, true)?;
            if at.path != full {
                at.missing.push(Vec::new());
            }
            existing(tree, at, &path)?;
        }
        dirs.push(root);
    }
    filter.include = match (rest.is_empty(), literal) {
        (true, _) => None,
        (false, true) => Some(Include::Literal(rest.to_vec())),
        (false, false) => Some(Include::pattern(rest)?),
    };
    Ok(Selected { roots: dirs, filter, parents: true })
}

fn matcher<S: AsRef<str>>(list: &[S]) -> Result<PatternMatcher, Error> {
    PatternMatcher::new(list).map_err(|reason| Error::Pattern {
        pattern: list.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "),
        reason: reason.to_string(),
    })
}

fn lookup(tree: &SourceTree<'_>, path: &[u8], follow_last: bool, ignoring: bool) -> Result<Resolved, Error> {
    let visible = |path: &[u8], is_dir: bool| match tree.ignore {
        Some(ignore) if ignoring => !ignore.is_excluded(path) || is_dir && ignore.may_reinclude_below(path),
        _ => true,
    };
    resolve(tree.root, path, follow_last, &visible)
}

/// A source that must exist. Errors speak of `wanted`.
fn named(tree: &SourceTree<'_>, path: &[u8], wanted: &[u8]) -> Result<SourceRoot, Error> {
    let (_, name) = parent_and_name(path);
    let at = existing(tree, lookup(tree, path, true, true)?, wanted)?;
    Ok(SourceRoot { path: at.path, name: name.to_vec(), stat: at.stat, node: at.node, parent: at.parent })
}

/// Says why `at` does not exist, if so: nothing there, or an ignore file hides it (D22.4).
fn existing(tree: &SourceTree<'_>, at: Resolved, wanted: &[u8]) -> Result<Resolved, Error> {
    if at.exists() && counts(tree, &at)? {
        return Ok(at);
    }
    let found = lookup(tree, wanted, true, false);
    if let (Some(ignore), Ok(found)) = (tree.ignore, found)
        && found.exists()
        && let Some(pattern) = ignore.deciding_pattern(&found.path).or_else(|| ignore.deciding_pattern(wanted))
    {
        let (ignore_file, pattern) = (tree.ignore_name.to_string(), pattern.to_string());
        return Err(Error::Excluded { path: shown(wanted), ignore_file, pattern });
    }
    Err(Error::NotFound { path: shown(wanted) })
}

/// Whether the ignore file leaves anything of it: an excluded directory exists for the sake of what is re-included (D20.12).
fn counts(tree: &SourceTree<'_>, at: &Resolved) -> Result<bool, Error> {
    match tree.ignore {
        Some(ignore) if !at.path.is_empty() && ignore.is_excluded(&at.path) => {
            let filter = Filter { ignore: Some(ignore), exclude: None, include: None, cancelled: tree.cancelled };
            let fd = resolve::open_dir(&at.node, b".", &at.path)?;
            walk::any_entry(&filter, fd, &at.path)
        }
        _ => Ok(true),
    }
}

/// Wildcards, element by element below the fixed part (X3.7). Links on the way are not followed, a match is (X3.12).
fn glob(tree: &SourceTree<'_>, pattern: &[u8]) -> Result<Vec<SourceRoot>, Error> {
    let elements: Vec<&[u8]> = names(pattern).collect();
    let fixed = elements.iter().take_while(|name| !has_wildcard(name)).count();
    let (fixed, elements) = elements.split_at(fixed);
    let fixed = fixed.join(&b'/');
    // That nothing matches is no error (X3.10), but the fixed part must exist.
    let base = existing(tree, lookup(tree, &fixed, true, true)?, &fixed)?;
    let mut roots = Vec::new();
    if !base.stat.is_dir() {
        return Ok(roots);
    }
    // Directories still to be listed, in reverse order of their names.
    let mut pending = vec![(base.path, 0)];
    while let Some((path, depth)) = pending.pop() {
        if depth == elements.len() {
            match named(tree, &path, &path) {
                Ok(root) => roots.push(root),
                // A match that an ignore file hides does not exist; a link that leads nowhere is missed.
                Err(Error::Excluded { .. }) => {}
                Err(error) => return Err(error),
            }
            continue;
        }
        let fd = resolve::open_dirs(tree.root, &path)?;
        let fd = resolve::open_dir(&fd, b".", &path)?;
        let mut entries = walk::read_dir(&fd, &path)?;
        entries.retain(|entry| matches(elements[depth], &entry.name));
        entries.sort_by(|a, b| b.name.cmp(&a.name));
        let last = depth + 1 == elements.len();
        for entry in entries {
            let path = join(&path, &entry.name);
            let is_dir = entry.kind == FileType::Directory;
            let hidden = tree
                .ignore
                .is_some_and(|ignore| ignore.is_excluded(&path) && !(is_dir && ignore.may_reinclude_below(&path)));
            if !hidden && (last || is_dir) {
                pending.push((path, depth + 1));
            }
        }
    }
    Ok(roots)
}

/// What of `--parents` is wanted below the pivot.
pub(crate) enum Include {
    Literal(Vec<u8>),
    Pattern { matcher: PatternMatcher, elements: Vec<Vec<u8>> },
}

impl Include {
    fn pattern(rest: &[u8]) -> Result<Include, Error> {
        let text = String::from_utf8_lossy(rest);
        // A `!` is no negation here.
        let text = if text.starts_with('!') { format!("\\{text}") } else { text.into_owned() };
        let elements = names(rest).map(<[u8]>::to_vec).collect();
        Ok(Include::Pattern { matcher: matcher(&[text])?, elements })
    }

    /// Whether something below a directory that does not match can match. May err on the side of yes.
    fn may_match_below(&self, rel: &[u8]) -> bool {
        match self {
            Include::Literal(wanted) => below(wanted, rel).is_some(),
            Include::Pattern { elements, .. } => {
                let mut elements = elements.iter();
                for name in names(rel) {
                    match elements.next() {
                        None => return false,
                        Some(e) if e.windows(2).any(|w| w == b"**") => return true,
                        // Classes and escapes may span more than one element; only plain ones are used to turn back.
                        Some(e) if e.iter().any(|b| matches!(b, b'[' | b']' | b'\\')) => return true,
                        Some(e) if !matches(e, name) => return false,
                        Some(_) => {}
                    }
                }
                elements.next().is_some()
            }
        }
    }
}

pub(crate) struct Filter<'a> {
    pub ignore: Option<&'a PatternMatcher>,
    pub exclude: Option<PatternMatcher>,
    pub include: Option<Include>,
    pub cancelled: Option<&'a AtomicBool>,
}

/// What is known about a directory once its path has been matched.
#[derive(Clone, Default)]
pub(crate) struct FilterState {
    ignore: Option<PatternState>,
    exclude: Option<PatternState>,
    include: Option<PatternState>,
    /// Matched by `--parents`, and so is everything below (X3.48).
    included: bool,
}

pub(crate) enum Verdict {
    Skip,
    Keep(FilterState),
    /// A directory that counts only if something below it does.
    Lazy(FilterState),
}

impl Filter<'_> {
    pub fn is_empty(&self) -> bool {
        self.ignore.is_none() && self.exclude.is_none() && self.include.is_none()
    }

    /// The state of a source root with a canonical path; the root itself always counts (X3.44).
    pub fn root_state(&self, path: &[u8]) -> FilterState {
        let ignore = self.ignore.map(|ignore| {
            let mut state = ignore.root_state();
            let mut at = Vec::with_capacity(path.len());
            for name in names(path) {
                push(&mut at, name);
                state = ignore.step(&state, &at).1;
            }
            state
        });
        let include = match &self.include {
            Some(Include::Pattern { matcher, .. }) => Some(matcher.root_state()),
            _ => None,
        };
        FilterState {
            ignore,
            exclude: self.exclude.as_ref().map(PatternMatcher::root_state),
            include,
            included: self.include.is_none(),
        }
    }

    /// About an entry of a directory in `state`: `path` is from the top of the tree, `rel` from the source root.
    pub fn decide(&self, state: &FilterState, path: &[u8], rel: &[u8], is_dir: bool) -> Verdict {
        let mut next = FilterState { included: state.included, ..FilterState::default() };
        let mut lazy = false;
        let excluders = [
            (self.ignore, &state.ignore, &mut next.ignore, path),
            (self.exclude.as_ref(), &state.exclude, &mut next.exclude, rel),
        ];
        for (matcher, state, next, path) in excluders {
            let (Some(matcher), Some(state)) = (matcher, state) else { continue };
            let (excluded, below) = matcher.step(state, path);
            if excluded && !(is_dir && matcher.may_reinclude_below(path)) {
                return Verdict::Skip;
            }
            lazy |= excluded;
            *next = Some(below);
        }
        if !state.included
            && let Some(include) = &self.include
        {
            next.included = match include {
                Include::Literal(wanted) => below(rel, wanted).is_some(),
                Include::Pattern { matcher, .. } => {
                    let (matched, below) = match &state.include {
                        Some(state) => matcher.step(state, rel),
                        None => (matcher.is_excluded(rel), matcher.root_state()),
                    };
                    next.include = Some(below);
                    matched
                }
            };
            if !next.included {
                if !is_dir || !include.may_match_below(rel) {
                    return Verdict::Skip;
                }
                lazy = true;
            }
        }
        if lazy { Verdict::Lazy(next) } else { Verdict::Keep(next) }
    }
}

impl SourceRoot {
    /// Opens a directory root for reading.
    pub fn open_dir(&self) -> Result<OwnedFd, Error> {
        resolve::open_dir(&self.node, b".", &self.path)
    }

    /// The directory and the name in it of a root that is no directory.
    pub fn place(&self) -> Result<(rustix::fd::BorrowedFd<'_>, &[u8]), Error> {
        match &self.parent {
            Some(parent) => Ok((parent.as_fd(), parent_and_name(&self.path).1)),
            None => Err(Error::Changed { path: shown(&self.path) }),
        }
    }
}

/// A pattern that is malformed matches nothing (D18.15).
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    parser::glob::match_path(pattern, name).unwrap_or(false)
}
