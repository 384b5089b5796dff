//! `SOURCE_DATE_EPOCH` (D13.15): seconds since 1970, or the name of a source whose time is meant: `context`, a named context, or a stage that is
//! nothing but one ADD of a URL or a repository.

use super::environment::Environment;
use super::{ImageResolver, LowerOptions, Lowering, NamedContext, Purpose, Result, expand, problem};
use crate::op::Source;
use parser::ErrorRule;
use parser::ast::{Dockerfile, InstructionKind, Stage, Transfer, TransferSource};
use parser::git::GitReference;
use parser::source::SourceKind;
use parser::span::Span;

const NAME: &str = "SOURCE_DATE_EPOCH";

/// The options with the time of the source that is named. `None` if none is named, or if that is wrong, which is told later.
pub(super) async fn resolved<R: ImageResolver>(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    resolver: &R,
) -> Result<Option<LowerOptions>> {
    let lowering = Lowering::new(dockerfile, options)?;
    let text = lowering.epoch_text();
    if text.is_empty() || text.parse::<i64>().is_ok() {
        return Ok(None);
    }
    let (source, span) = match lowering.epoch_source(text, dockerfile)? {
        Named::Nothing => return Ok(None),
        Named::Undated => (None, Span::default()),
        Named::Source(source, span) => (Some(source), span),
    };
    let time = match source {
        Some(source) if options.purpose == Purpose::Build => resolver.source_time(&source).await.map_err(|error| {
            problem(ErrorRule::InvalidEpoch, format!("failed to resolve SOURCE_DATE_EPOCH={text}: {error}"), span)
        })?,
        _ => None,
    };
    let mut options = options.clone();
    // Empty is as good as unset, and stands before the default of an ARG.
    options.build_args.insert(NAME.to_owned(), time.map(|seconds| seconds.to_string()).unwrap_or_default());
    Ok(Some(options))
}

/// What a word other than a number means.
enum Named {
    Nothing,
    /// It has no time of its own: a directory, an image.
    Undated,
    /// And the instruction that says so.
    Source(Source, Span),
}

impl Lowering<'_> {
    /// The build arg, else the global ARG.
    fn epoch_text(&self) -> &str {
        let given = self.options.build_args.get(NAME).map(String::as_str);
        given.or_else(|| self.globals.environment.get(NAME)).unwrap_or_default()
    }

    pub(super) fn epoch(&self) -> Result<Option<i64>> {
        match self.epoch_text() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                problem(ErrorRule::InvalidEpoch, format!("invalid SOURCE_DATE_EPOCH: {text}"), Span::default())
            }),
        }
    }

    fn epoch_source(&self, text: &str, dockerfile: &Dockerfile) -> Result<Named> {
        if text == "context" {
            let source = self.options.main_source.clone();
            return Ok(source.map_or(Named::Undated, |source| Named::Source(source, Span::default())));
        }
        if let Some((_, context)) = self.options.contexts.find(text, &self.platform) {
            return Ok(match context {
                NamedContext::Git(git) => Named::Source(self.held_git(git, git.keep_git_dir), Span::default()),
                NamedContext::Url(url) => Named::Source(self.held_http(url, "context", None), Span::default()),
                _ => Named::Undated,
            });
        }
        let has_name =
            |stage: &&Stage| stage.from.name.as_ref().is_some_and(|name| name.value.eq_ignore_ascii_case(text));
        match dockerfile.stages.iter().find(has_name) {
            Some(stage) => Ok(Named::Source(self.stage_source(stage)?, stage.from.span)),
            None => Ok(Named::Nothing),
        }
    }

    /// The source of a stage that has only that one.
    fn stage_source(&self, stage: &Stage) -> Result<Source> {
        let wrong = |what: &str| {
            let message = format!("SOURCE_DATE_EPOCH stage {what}");
            problem(ErrorRule::InvalidEpoch, message, stage.from.span)
        };
        let mut environment = self.globals.environment.clone();
        environment.set(NAME, "");
        if expand(&self.expander, &stage.from.image, &environment)?.text != "scratch" {
            return Err(wrong("must use FROM scratch"));
        }
        let mut source = None;
        for instruction in &stage.instructions {
            match &instruction.kind {
                InstructionKind::Arg(declarations) => {
                    for declaration in declarations {
                        let name = &declaration.name.value;
                        let value = match (self.options.build_args.get(name), &declaration.default) {
                            (Some(given), _) => given.clone(),
                            (None, Some(default)) => expand(&self.expander, default, &environment)?.text,
                            (None, None) => continue,
                        };
                        environment.set(name, &value);
                    }
                }
                InstructionKind::Add(add) if source.is_none() => source = self.added(add, &environment)?,
                InstructionKind::Add(_) => return Err(wrong("must contain exactly one remote ADD")),
                other => {
                    let what =
                        format!("does not meet source-only requirements: unsupported {} instruction", other.name());
                    return Err(wrong(&what));
                }
            }
            if source.is_none() && matches!(instruction.kind, InstructionKind::Add(_)) {
                return Err(wrong("source must be a single HTTP(S) or Git ADD"));
            }
        }
        source.ok_or_else(|| wrong("must contain exactly one remote ADD"))
    }

    /// The one URL or repository that an ADD takes.
    fn added(&self, add: &Transfer, environment: &Environment) -> Result<Option<Source>> {
        let [TransferSource::Path(word)] = add.sources.as_slice() else { return Ok(None) };
        let text = expand(&self.expander, word, environment)?.text;
        let checksum = add.checksum.as_ref().map(|word| expand(&self.expander, word, environment)).transpose()?;
        let checksum = checksum.map(|expansion| expansion.text).filter(|checksum| !checksum.is_empty());
        Ok(match SourceKind::of(&text) {
            SourceKind::Http => Some(self.held_http(&text, &parser::source::url_file_name(&text), checksum)),
            SourceKind::Git => {
                let mut git = GitReference::parse(&text)
                    .map_err(|error| problem(ErrorRule::InvalidSource, error.to_string(), word.span))?;
                git.checksum = checksum.or(git.checksum);
                Some(self.held_git(&git, add.keep_git_dir.or(git.keep_git_dir)))
            }
            SourceKind::Local => None,
        })
    }
}
