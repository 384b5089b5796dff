//! Answers to requests. The parser knows them; here they are put into the protocol's terms.

use super::document::{Document, Documents};
use super::{files, findings};
use lsp_types::{
    CodeAction, CodeActionKind, CodeActionOrCommand, CodeActionParams, CompletionItem, CompletionItemKind,
    CompletionParams, CompletionTextEdit, DocumentFormattingParams, DocumentSymbol, DocumentSymbolParams,
    Documentation, GotoDefinitionParams, Hover, HoverContents, HoverParams, Location, MarkupContent, MarkupKind,
    SymbolKind, TextDocumentPositionParams, TextEdit, WorkspaceEdit,
};
use parser::Span;
use parser::editor::{self, CompletionKind, Symbol};
use std::collections::HashMap;

fn at<'a>(documents: &'a Documents, place: &TextDocumentPositionParams) -> Option<(&'a Document, usize)> {
    let document = documents.get(&place.text_document.uri)?;
    Some((document, document.offset(place.position)))
}

fn markdown(value: String) -> MarkupContent {
    MarkupContent { kind: MarkupKind::Markdown, value }
}

pub fn hover(documents: &Documents, params: &HoverParams) -> Option<Hover> {
    let (document, offset) = at(documents, &params.text_document_position_params)?;
    let hover = editor::hover(&document.text, offset)?;
    Some(Hover { contents: HoverContents::Markup(markdown(hover.text)), range: Some(document.range(hover.span)) })
}

pub fn completion(documents: &Documents, params: &CompletionParams) -> Vec<CompletionItem> {
    let Some((document, offset)) = at(documents, &params.text_document_position) else { return Vec::new() };
    let items = editor::complete(&document.text, offset, &|directory| files::list(document, directory));
    let item = |item: editor::Completion| CompletionItem {
        kind: Some(match item.kind {
            CompletionKind::Keyword => CompletionItemKind::KEYWORD,
            CompletionKind::Flag => CompletionItemKind::PROPERTY,
            CompletionKind::Value => CompletionItemKind::VALUE,
            CompletionKind::Stage => CompletionItemKind::MODULE,
            CompletionKind::Variable => CompletionItemKind::VARIABLE,
            CompletionKind::File => CompletionItemKind::FILE,
            CompletionKind::Directory => CompletionItemKind::FOLDER,
            CompletionKind::Rule => CompletionItemKind::ENUM_MEMBER,
        }),
        documentation: (!item.documentation.is_empty())
            .then(|| Documentation::MarkupContent(markdown(item.documentation))),
        text_edit: Some(CompletionTextEdit::Edit(TextEdit::new(document.range(item.span), item.text.clone()))),
        label: item.text,
        ..CompletionItem::default()
    };
    items.into_iter().map(item).collect()
}

pub fn definition(documents: &Documents, params: &GotoDefinitionParams) -> Option<Location> {
    let (document, offset) = at(documents, &params.text_document_position_params)?;
    let span = editor::define(&document.text, offset)?;
    Some(Location::new(document.uri.clone(), document.range(span)))
}

pub fn symbols(documents: &Documents, params: &DocumentSymbolParams) -> Option<Vec<DocumentSymbol>> {
    let document = documents.get(&params.text_document.uri)?;
    Some(editor::symbols(&document.text).into_iter().map(|item| symbol(document, item, SymbolKind::MODULE)).collect())
}

fn symbol(document: &Document, item: Symbol, kind: SymbolKind) -> DocumentSymbol {
    let children = item.children.into_iter().map(|child| symbol(document, child, SymbolKind::FUNCTION)).collect();
    #[allow(deprecated)] // The type demands the field; `tags` has replaced it.
    DocumentSymbol {
        name: item.name,
        detail: Some(item.detail),
        kind,
        tags: None,
        deprecated: None,
        range: document.range(item.span),
        selection_range: document.range(item.name_span),
        children: Some(children),
    }
}

/// One edit from the first line that changes to the last. A file with errors is left alone: they are shown already.
pub fn formatting(documents: &Documents, params: &DocumentFormattingParams) -> Option<Vec<TextEdit>> {
    let document = documents.get(&params.text_document.uri)?;
    let formatted = parser::format(&document.text).ok()?;
    let (old, new) = (document.text.as_str(), formatted.as_str());
    if old == new {
        return Some(Vec::new());
    }
    let start: usize = lines(old).zip(lines(new)).take_while(|(old, new)| old == new).map(|(line, _)| line.len()).sum();
    let (old, new) = (&old[start..], &new[start..]);
    let same_end = lines(old).rev().zip(lines(new).rev()).take_while(|(old, new)| old == new);
    let end: usize = same_end.map(|(line, _)| line.len()).sum();
    let span = Span::new(start, start + old.len() - end);
    Some(vec![TextEdit::new(document.range(span), new[..new.len() - end].to_owned())])
}

fn lines(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    text.split_inclusive('\n')
}

/// Mends what has a suggestion.
pub fn code_actions(documents: &Documents, params: &CodeActionParams) -> Option<Vec<CodeActionOrCommand>> {
    let document = documents.get(&params.text_document.uri)?;
    let (start, end) = (document.offset(params.range.start), document.offset(params.range.end));
    let report = findings::report(document);
    let findings = report.errors.iter().chain(&report.warnings);
    let touched = findings.filter(|finding| finding.focus.start <= end && start <= finding.focus.end);
    let action = |finding: &parser::Diagnostic| {
        let written = document.text.get(finding.focus.start..finding.focus.end)?;
        let text = replacement(written, finding.suggestion.as_deref()?)?;
        let edit = TextEdit::new(document.range(finding.focus), text.clone());
        Some(CodeActionOrCommand::CodeAction(CodeAction {
            title: format!("Change to `{text}`"),
            kind: Some(CodeActionKind::QUICKFIX),
            diagnostics: Some(vec![findings::diagnostic(document, finding)]),
            // The map's type is the protocol's.
            #[allow(clippy::mutable_key_type)]
            edit: Some(WorkspaceEdit::new(HashMap::from([(document.uri.clone(), vec![edit])]))),
            is_preferred: Some(true),
            ..CodeAction::default()
        }))
    };
    Some(touched.filter_map(action).collect())
}

/// What to write instead: the suggestion in the dress of what was written. None where that is more than the word that is meant.
fn replacement(written: &str, suggestion: &str) -> Option<String> {
    let name = suggestion.trim_start_matches('$');
    let is_word = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || "$=,:/".contains(c));
    if let Some(flag) = written.strip_prefix("--") {
        return is_word(flag).then(|| format!("--{name}"));
    }
    if let Some(variable) = written.strip_prefix("${") {
        return variable.strip_suffix('}').filter(|variable| is_word(variable)).map(|_| format!("${{{name}}}"));
    }
    if let Some(variable) = written.strip_prefix('$') {
        return is_word(variable).then(|| format!("${name}"));
    }
    is_word(written).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::replacement;

    #[test]
    fn suggestions_are_dressed_like_what_they_replace() {
        let replaced = |written, suggestion| replacement(written, suggestion);
        assert_eq!(replaced("COPPY", "COPY").as_deref(), Some("COPY"));
        assert_eq!(replaced("--mont", "mount").as_deref(), Some("--mount"));
        assert_eq!(replaced("$NAMES", "$NAME").as_deref(), Some("$NAME"));
        assert_eq!(replaced("${NAMES}", "$NAME").as_deref(), Some("${NAME}"));
        for written in ["${NAMES", "a:$TAGG", "--mont=x", "", "a b"] {
            assert_eq!(replaced(written, "x"), None, "{written}");
        }
    }
}
