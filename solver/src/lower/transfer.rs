//! COPY and ADD: one file step with an action for each source (X3.1).

use super::run::{clean_absolute, input};
use super::stage::{Place, StageState};
use super::stages::Origin;
use super::{Environment, Lowering, Result, expansion_problem, history, lint, problem};
use crate::graph::VertexId;
use crate::op::{self, Chmod, File, FileAction, Mkfile, Op, Selection};
use parser::ErrorRule;
use parser::ast::{Transfer, TransferSource, Word};
use parser::git::GitReference;
use parser::heredoc::Heredoc;
use parser::source::SourceKind;
use parser::span::Span;

/// The parts of a COPY or ADD that hold for all its sources.
struct Target {
    destination: String,
    chown: Option<String>,
    chmod: Option<Chmod>,
}

impl Lowering<'_> {
    pub(super) fn transfer(
        &mut self,
        keyword: &str,
        transfer: &Transfer,
        state: &mut StageState,
        place: &Place,
    ) -> Result<()> {
        let destination = self.expand(&transfer.destination, state, place)?;
        let chown = self.flag(&transfer.chown, state, place)?;
        let chmod_text = self.flag(&transfer.chmod, state, place)?;
        let checksum = self.flag(&transfer.checksum, state, place)?;
        if let (true, Some(word)) = (transfer.sources.len() > 1, &transfer.checksum) {
            let message = "checksum can't be specified for multiple sources";
            return Err(problem(ErrorRule::InvalidSource, message, word.span));
        }
        let chmod = match (&chmod_text, &transfer.chmod) {
            (Some(text), Some(word)) => {
                Some(chmod(text).map_err(|error| problem(ErrorRule::InvalidFlagValue, error, word.span))?)
            }
            _ => None,
        };
        let target = Target {
            destination: parser::path::destination(&state.config.config.working_dir, &destination),
            chown: chown.clone(),
            chmod,
        };
        // With --chmod the norm makes a normal copy of a --link (X3.59).
        let link = transfer.link && target.chmod.is_none();
        let (origin, keep_owner) = self.transfer_origin(transfer, place)?;
        let base = if link { self.scratch() } else { state.files };
        let mut inputs = vec![base];
        let mut actions = Vec::new();
        let mut history_sources = Vec::new();
        // Files come before here-documents, whatever their order on the line (D5.20).
        for source in &transfer.sources {
            let TransferSource::Path(word) = source else { continue };
            let path = self.expand(word, state, place)?;
            if let Some((files, selection)) = self.remote(keyword, &path, transfer, checksum.as_deref(), word.span)? {
                let unpack = transfer.unpack == Some(true) && selection.path != "/";
                let selection = Selection { exclude: excluded(transfer), ..selection };
                let from = input(&mut inputs, files);
                actions.push(target.copy(from, selection, unpack, true));
                history_sources.push(parser::source::redacted(&path));
                continue;
            }
            if let Some(ignore) = self.options.ignore.as_ref().filter(|_| transfer.from.is_none()) {
                self.report(place, lint::copy_ignored_file::check(ignore, keyword, &path, place.span, word.span));
            }
            let from = input(&mut inputs, origin);
            let unpack = keyword == "ADD" && transfer.unpack != Some(false);
            let selection = selection(transfer, &path);
            actions.push(target.copy(from, selection, unpack, keep_owner));
            history_sources.push(path);
        }
        for source in &transfer.sources {
            let TransferSource::Heredoc(heredoc) = source else { continue };
            let document = self.inline_document(heredoc, state, place)?;
            let from = input(&mut inputs, document);
            let whole = Selection::tree(&clean_absolute(&heredoc.name));
            let selection = Selection { exclude: excluded(transfer), ..whole };
            actions.push(target.copy(from, selection, false, false));
            history_sources.push(format!("<<{}", heredoc.name));
        }
        let file = self.graph.add(Op::File(File { actions }), &inputs, place.name.clone(), Some(place.span));
        state.files = match link {
            true => self.graph.add(Op::Merge, &[state.files, file], format!("LINK {}", place.name), Some(place.span)),
            false => file,
        };
        let mut created_by = keyword.to_owned();
        if transfer.parents {
            created_by.push_str(" --parents");
        }
        for (flag, value) in [("chown", &chown), ("chmod", &chmod_text)] {
            if let Some(value) = value {
                created_by.push_str(&format!(" --{flag}={value}"));
            }
        }
        for text in history_sources.iter().chain([&destination]) {
            created_by.push(' ');
            created_by.push_str(text);
        }
        created_by.push_str(" # buildkit");
        state.config.history.push(history::entry(created_by, false));
        Ok(())
    }

    fn flag(&mut self, word: &Option<Word>, state: &StageState, place: &Place) -> Result<Option<String>> {
        let value = word.as_ref().map(|word| self.expand(word, state, place)).transpose()?;
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// Where the sources lie, and whether they keep their owners (D18.8, D18.27).
    fn transfer_origin(&mut self, transfer: &Transfer, place: &Place) -> Result<(VertexId, bool)> {
        let Some(from) = transfer.from.as_ref().filter(|from| !from.value.is_empty()) else {
            return Ok(self.main_context());
        };
        match self.expander.word(&from.value, &Environment::default()) {
            Ok(expansion) if expansion.text == from.value => {}
            _ => {
                let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG \
                               from global scope as a workaround";
                return Err(problem(ErrorRule::InvalidExpansion, message, from.span));
            }
        }
        let platform = &place.stage().platform;
        let files = match place.stages.origin(&from.value, true, platform, from.span)? {
            Origin::Stage(index) if index >= place.index => {
                let current = place.stages.display_name(place.index);
                let message = format!(
                    "cannot copy from stage {:?}, it needs to be defined before current stage {current:?}",
                    from.value
                );
                return Err(problem(ErrorRule::StageDefinedLater, message, from.span));
            }
            Origin::Stage(index) => self.stage_files(place, index, from.span)?,
            Origin::Scratch => self.scratch(),
            Origin::Image(image) => self.origin_image(&image, from.span, place)?,
            Origin::Context(context) => return self.context_files(&context, from.span),
        };
        Ok((files, true))
    }

    /// The files of a source that is a URL or a repository, and what is taken of them; `None` for a path (D18.6, D18.7, D18.40 to D18.44).
    fn remote(
        &mut self,
        keyword: &str,
        source: &str,
        transfer: &Transfer,
        checksum: Option<&str>,
        span: Span,
    ) -> Result<Option<(VertexId, Selection)>> {
        let invalid = |message: String| problem(ErrorRule::InvalidSource, message, span);
        let kind = SourceKind::of(source);
        if let (Some(refusal), "COPY") = (kind.refused_by_copy(), keyword) {
            return Err(invalid(format!("{refusal}: ADD takes those")));
        }
        match kind {
            SourceKind::Git => {
                let mut git = GitReference::parse(source).map_err(|error| invalid(error.to_string()))?;
                let keep_git_dir = match (transfer.keep_git_dir, git.keep_git_dir) {
                    (Some(flag), Some(query)) if flag != query => {
                        return Err(invalid("inconsistent keep-git-dir configuration".into()));
                    }
                    (flag, query) => query.or(flag),
                };
                match (checksum, &git.checksum) {
                    (Some(flag), Some(query)) if flag != query => {
                        return Err(invalid(format!("checksum mismatch {flag:?} != {query:?}")));
                    }
                    (Some(flag), None) => git.checksum = Some(flag.to_owned()),
                    _ => {}
                }
                if let Some(checksum) =
                    git.checksum.as_deref().filter(|text| !text.bytes().all(|b| b.is_ascii_hexdigit()))
                {
                    let message = format!("invalid checksum {checksum} for Git URL, expected hex commit hash");
                    return Err(invalid(message));
                }
                Ok(Some((self.git_source(&git, keep_git_dir, span), Selection::tree("/"))))
            }
            SourceKind::Http => {
                let checksum = checksum.map(|text| match text.parse::<oci::Digest>() {
                    Ok(digest) => Ok(digest.to_string()),
                    Err(error) => {
                        let span = transfer.checksum.as_ref().map_or(span, |word| word.span);
                        let message = format!("invalid checksum {text:?}: {error}; expected sha256:<64 hex digits>");
                        Err(problem(ErrorRule::InvalidFlagValue, message, span))
                    }
                });
                let name = parser::source::url_file_name(source);
                let vertex = self.http_source(source, &name, checksum.transpose()?, span);
                Ok(Some((vertex, Selection::tree(&format!("/{name}")))))
            }
            SourceKind::Local => match &transfer.checksum {
                Some(word) if checksum.is_some() => {
                    let message = "checksum requires HTTP(S) or Git sources";
                    Err(problem(ErrorRule::InvalidSource, message, word.span))
                }
                _ => Ok(None),
            },
        }
    }

    /// D5.17 to D5.19.
    fn inline_document(&mut self, heredoc: &Heredoc, state: &StageState, place: &Place) -> Result<VertexId> {
        let content = heredoc.content();
        let data = match heredoc.expand {
            true => {
                let expansion = self
                    .expander
                    .heredoc(&content, &state.environment)
                    .map_err(|error| expansion_problem(&error, heredoc.span))?;
                let body = Word::new(content, heredoc.span);
                self.report_unset(&expansion, &body, state, place);
                expansion.text
            }
            false => content,
        };
        let mkfile = Mkfile { path: clean_absolute(&heredoc.name), data, mode: 0o644 };
        let scratch = self.scratch();
        let op = Op::File(File { actions: vec![FileAction::Mkfile(mkfile)] });
        Ok(self.graph.add(op, &[scratch], "[internal] preparing inline document", Some(heredoc.span)))
    }
}

impl Target {
    fn copy(&self, from: op::Input, selection: Selection, unpack: bool, keep_owner: bool) -> FileAction {
        FileAction::Copy(op::Copy {
            from,
            selection,
            destination: self.destination.clone(),
            chown: self.chown.clone(),
            chmod: self.chmod.clone(),
            unpack,
            keep_owner,
        })
    }
}

/// X3.7 to X3.9, X3.46.
fn selection(transfer: &Transfer, path: &str) -> Selection {
    let (pivot, path) = match transfer.parents {
        // A leading `./` is no pivot (D18.34).
        true => match path.strip_prefix("./").unwrap_or(path).split_once("/./") {
            Some((pivot, rest)) => (Some(clean_absolute(pivot)), format!("{pivot}/{rest}")),
            None => (Some("/".to_owned()), path.to_owned()),
        },
        false => (None, path.to_owned()),
    };
    let path = clean_absolute(&path);
    let exclude = excluded(transfer);
    Selection { wildcard: parser::glob::has_wildcard(&path), path, exclude, parents: pivot }
}

/// `--exclude` holds for every source, also for those that are not here.
fn excluded(transfer: &Transfer) -> Vec<String> {
    transfer.exclude.iter().map(|word| word.value.clone()).collect()
}

fn chmod(text: &str) -> std::result::Result<Chmod, String> {
    match parser::chmod::parse(text) {
        Ok(parser::chmod::Chmod::Octal(mode)) => Ok(Chmod::Octal(mode)),
        Ok(parser::chmod::Chmod::Symbolic(spec)) => Ok(Chmod::Symbolic(spec)),
        Err(error) => Err(error.to_string()),
    }
}
