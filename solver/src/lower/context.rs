//! Named contexts, `--build-context NAME=…`: what stands in for a stage, a base or the source of a COPY of that name (D19.7 to D19.11).

use super::stages::{Image, Origin};
use super::{Lowering, ResolvedImage, Result, problem};
use crate::graph::VertexId;
use crate::lock::Lockable;
use crate::op::{self, File, FileAction, Op, Selection, Source};
use oci::{Platform, Reference};
use parser::ErrorRule;
use parser::git::GitReference;
use parser::span::Span;
use std::collections::BTreeMap;

/// What a named context is.
#[derive(Clone, Debug)]
pub enum NamedContext {
    /// A directory of the client, which the worker knows by the context's name.
    Local,
    /// An image of a registry or of the store.
    Image(Reference),
    /// An image that is in the store already, under no name of its own.
    Stored(Reference, Box<ResolvedImage>),
    /// No files.
    Scratch,
    /// A stage of the Dockerfile itself.
    Stage(String),
    Git(GitReference),
    /// A file system with one file, `context`.
    Url(String),
}

/// By name, normalised: as [`NamedContexts::key`] has it.
#[derive(Clone, Debug, Default)]
pub struct NamedContexts(BTreeMap<String, NamedContext>);

impl NamedContexts {
    /// A later context of the same name takes the place of the earlier one.
    pub fn insert(&mut self, name: &str, context: NamedContext) {
        let (name, platform) = name.split_once("::").map_or((name, None), |(name, platform)| (name, Some(platform)));
        let key = match platform {
            Some(platform) => format!("{}::{platform}", Self::key(name)),
            None => Self::key(name),
        };
        self.0.insert(key, context);
    }

    /// Images as their users write them, without `:latest`: `alpine` is also `docker.io/library/alpine:latest` (D19.9).
    fn key(name: &str) -> String {
        match name.parse::<Reference>() {
            Ok(reference) => reference.familiar().trim_end_matches(":latest").to_owned(),
            Err(_) => name.to_lowercase(),
        }
    }

    /// The context that stands in for `name`, with the name by which the worker knows it.
    pub(super) fn find(&self, name: &str, platform: &Platform) -> Option<(&str, &NamedContext)> {
        if self.0.is_empty() || matches!(name, "scratch" | "context") {
            return None;
        }
        let key = Self::key(name);
        let found = self.0.get_key_value(&format!("{key}::{platform}")).or_else(|| self.0.get_key_value(&key));
        found.map(|(name, context)| (name.as_str(), context))
    }

    /// Names as the worker knows them, of contexts that are directories of the client.
    pub fn name_of(name: &str) -> String {
        let mut one = NamedContexts::default();
        one.insert(name, NamedContext::Local);
        one.0.into_keys().next().unwrap_or_default()
    }

    /// The image that a context has brought under this reference.
    pub(super) fn stored(&self, reference: &Reference) -> Option<&ResolvedImage> {
        self.0.values().find_map(|context| match context {
            NamedContext::Stored(stored, image) if stored == reference => Some(image.as_ref()),
            _ => None,
        })
    }
}

/// A context that is no image and no stage.
#[derive(Clone, Debug)]
pub enum ContextFiles {
    /// The name by which the worker knows it.
    Local(String),
    Git(GitReference),
    Url(String),
}

impl NamedContext {
    /// What a name that this context stands in for means. `stage` finds a stage by name.
    pub(super) fn origin(
        &self,
        name: &str,
        platform: &Platform,
        (span, focus): (Span, Span),
        stage: impl FnOnce(&str) -> Option<usize>,
    ) -> Result<Origin> {
        let image =
            |reference: &Reference| Image { reference: reference.clone(), platform: platform.clone(), span, focus };
        Ok(match self {
            NamedContext::Local => Origin::Context(ContextFiles::Local(name.to_owned())),
            NamedContext::Image(reference) | NamedContext::Stored(reference, _) => {
                Origin::Image(Box::new(image(reference)))
            }
            NamedContext::Scratch => Origin::Scratch,
            NamedContext::Git(git) => Origin::Context(ContextFiles::Git(git.clone())),
            NamedContext::Url(url) => Origin::Context(ContextFiles::Url(url.clone())),
            NamedContext::Stage(wanted) => match stage(wanted) {
                Some(index) => Origin::Stage(index),
                None => {
                    let message = format!("named context {name:?} is target:{wanted}, and there is no such stage here");
                    return Err(problem(ErrorRule::UnknownStage, message, span).with_focus(focus).into());
                }
            },
        })
    }
}

impl Lowering<'_> {
    /// The build context, and whether its files have owners of their own: those of a directory do not (D18.27).
    pub(super) fn main_context(&mut self) -> (VertexId, bool) {
        let source = Source::Local { name: "context".into() };
        let vertex = self.graph.add(Op::Source(source), &[], "[internal] load build context", None);
        (vertex, self.options.context_has_owners)
    }

    /// The files of a context, and whether they have owners of their own.
    pub(super) fn context_files(&mut self, context: &ContextFiles, span: Span) -> Result<(VertexId, bool)> {
        Ok(match context {
            ContextFiles::Local(name) => {
                let source = Source::Local { name: name.clone() };
                (self.graph.add(Op::Source(source), &[], format!("[context {name}] load from client"), None), false)
            }
            ContextFiles::Git(git) => (self.git_source(git, git.keep_git_dir, span), true),
            ContextFiles::Url(url) => (self.http_source(url, "context", None, span), true),
        })
    }

    /// A context as the file system that a stage starts with.
    pub(super) fn context_base(&mut self, context: &ContextFiles, span: Span) -> Result<VertexId> {
        let (files, has_owners) = self.context_files(context, span)?;
        if has_owners {
            return Ok(files);
        }
        let copy = op::Copy {
            from: 1,
            selection: Selection::tree("/"),
            destination: "/".into(),
            chown: None,
            chmod: None,
            unpack: false,
            keep_owner: false,
        };
        let scratch = self.scratch();
        let op = Op::File(File { actions: vec![FileAction::Copy(copy)] });
        Ok(self.graph.add(op, &[scratch, files], "[context] copy into the base", Some(span)))
    }

    pub(super) fn http_source(&mut self, url: &str, filename: &str, checksum: Option<String>, span: Span) -> VertexId {
        let name = parser::source::redacted(url);
        self.note(Lockable::url(url, checksum.as_deref()));
        let source = self.held_http(url, filename, checksum);
        self.graph.add(Op::Source(source), &[], name, Some(span))
    }

    pub(super) fn git_source(&mut self, git: &GitReference, keep_git_dir: Option<bool>, span: Span) -> VertexId {
        let mut name = parser::source::redacted(&git.remote);
        if !git.reference.is_empty() {
            name = format!("{name}#{}", git.reference);
        }
        self.note(Lockable::repository(&git_op(git, keep_git_dir)));
        let source = self.held_git(git, keep_git_dir);
        self.graph.add(Op::Source(source), &[], name, Some(span))
    }

    /// With the checksum that the lock holds the URL to, if it has none.
    pub(super) fn held_http(&self, url: &str, filename: &str, checksum: Option<String>) -> Source {
        let held = || self.options.lock.as_ref()?.held_url(url);
        Source::Http { url: url.to_owned(), filename: filename.to_owned(), checksum: checksum.or_else(held) }
    }

    /// At the commit that the lock holds the reference to.
    pub(super) fn held_git(&self, git: &GitReference, keep_git_dir: Option<bool>) -> Source {
        let mut op = git_op(git, keep_git_dir);
        if let Some(commit) = self.options.lock.as_ref().and_then(|lock| lock.held_repository(&op)) {
            op.reference = commit;
        }
        Source::Git(op)
    }
}

/// A git reference as an op.
pub fn git_op(git: &GitReference, keep_git_dir: Option<bool>) -> op::Git {
    op::Git {
        remote: git.remote.clone(),
        reference: git.reference.clone(),
        subdir: git.subdir.clone(),
        checksum: git.checksum.clone(),
        keep_git_dir: keep_git_dir.unwrap_or(false),
        submodules: git.submodules.unwrap_or(true),
        commit_time: git.commit_time,
        fetch_by_commit: git.fetch_by_commit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D19.9.
    #[test]
    fn names() {
        let mut contexts = NamedContexts::default();
        for name in ["alpine", "Stage", "r.example/tool:v1", "base::linux/arm64", "scratch", "context"] {
            contexts.insert(name, NamedContext::Local);
        }
        let platform: Platform = "linux/amd64".parse().unwrap();
        let found = |name: &str| contexts.find(name, &platform).map(|(name, _)| name.to_owned());
        for (name, expected) in [
            ("alpine", Some("alpine")),
            ("docker.io/library/alpine:latest", Some("alpine")),
            ("alpine:3.20", None),
            ("stage", Some("stage")),
            ("r.example/tool:v1", Some("r.example/tool:v1")),
            ("r.example/tool", None),
            // Of another platform.
            ("base", None),
            // Never replaced.
            ("scratch", None),
            ("context", None),
        ] {
            assert_eq!(found(name).as_deref(), expected, "{name}");
        }
        let arm = "linux/arm64".parse().unwrap();
        assert_eq!(contexts.find("base", &arm).map(|(name, _)| name), Some("base::linux/arm64"));
        assert_eq!(NamedContexts::name_of("docker.io/library/alpine:latest"), "alpine");
    }
}
