//! Build checks that need values, the context or base images (D21); one file a rule. Those of the text alone are the parser's.
//!
//! They look at the stages that are dispatched, while they are (D21.7).

pub mod copy_ignored_file;
pub mod expose;
pub mod from_platform;
pub mod invalid_base_image_platform;
pub mod invalid_default_arg_in_from;
pub mod json_args_recommended;
pub mod legacy_key_value_format;
pub mod multiple_instructions;
pub mod secrets_used;
pub mod undefined_arg_in_from;
pub mod undefined_var;
pub mod workdir_relative_path;

use super::{LowerOptions, Result, problem};
use parser::ErrorRule;
use parser::ast::{Dockerfile, Word};
use parser::diagnostic::Diagnostic;
use parser::lint::{CheckOptions, Rule};
use parser::span::Span;

/// The findings so far, of those checks that count.
pub struct Lints {
    options: CheckOptions,
    findings: Vec<Diagnostic>,
}

impl Lints {
    /// Takes the options from the build arg, else from the directive (D21.3), and the findings of the parser.
    pub fn new(dockerfile: &Dockerfile, options: &LowerOptions) -> Result<Self> {
        let directive = dockerfile.directives.check.as_ref();
        let given = options.build_args.get("BUILDKIT_DOCKERFILE_CHECK");
        let text = given.or(directive.map(|word| &word.value)).map_or("", String::as_str);
        let options = CheckOptions::parse(text).map_err(|error| {
            let span = directive.filter(|_| given.is_none()).map_or(Span::default(), |word| word.span);
            problem(ErrorRule::InvalidCheckOptions, format!("failed to parse check options: {error}"), span)
        })?;
        let mut lints = Lints { options, findings: Vec::new() };
        for finding in &dockerfile.warnings {
            lints.report(dockerfile.comments_at(finding.span.start), finding.clone());
        }
        Ok(lints)
    }

    /// Notes a finding about an instruction, unless the options or the instruction's comments skip the rule (D21.4, D21.5).
    pub fn report(&mut self, comments: &[String], finding: Diagnostic) {
        let rule = finding.rule;
        let is_experimental = Rule::find(rule).is_some_and(|rule| rule.is_experimental);
        if self.options.for_instruction(comments).reports(rule, is_experimental) {
            self.findings.push(finding);
        }
    }

    /// `error=true` (D21.2).
    pub fn are_errors(&self) -> bool {
        self.options.error
    }

    /// All findings, in file order.
    pub fn into_findings(mut self) -> Vec<Diagnostic> {
        self.findings.sort_by_key(|finding| finding.span.start);
        self.findings
    }
}

/// Where the variable is used in a word, as far as that can be told: the word may be written with continuations or quotes.
fn variable_span(word: &Word, name: &str) -> Span {
    if word.span.end - word.span.start != word.value.len() {
        return word.span;
    }
    let found = word.value.match_indices('$').find_map(|(at, _)| {
        let rest = &word.value[at + 1..];
        let (braces, rest) = match rest.strip_prefix('{') {
            Some(rest) => (1, rest),
            None => (0, rest),
        };
        let after = rest.strip_prefix(name)?;
        let ends = !after.starts_with(|c: char| c == '_' || c.is_alphanumeric());
        let closing = usize::from(braces == 1 && after.starts_with('}'));
        let start = word.span.start + at;
        ends.then(|| Span::new(start, start + 1 + braces + name.len() + closing))
    });
    found.unwrap_or(word.span)
}
