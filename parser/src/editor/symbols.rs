//! The stages of a file and their instructions.

use super::scope;
use crate::line;
use crate::span::Span;

/// A stage, or an instruction of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    pub name: String,
    pub detail: String,
    /// All of it.
    pub span: Span,
    /// What to go to.
    pub name_span: Span,
    pub children: Vec<Symbol>,
}

pub fn symbols(source: &str) -> Vec<Symbol> {
    let reading = line::read(source);
    let mut stages = scope::stages(&reading).into_iter().peekable();
    let mut symbols: Vec<Symbol> = Vec::new();
    let mut position = 0;
    for line in &reading.lines {
        if let Some(stage) = stages.next_if(|stage| std::ptr::eq(stage.line, line)) {
            let (name, name_span) = match stage.name {
                Some((name, span)) => (name.to_owned(), span),
                None => (format!("stage {position}"), line.text_span()),
            };
            let detail = format!("FROM {}", stage.image);
            symbols.push(Symbol { name, detail, span: line.span, name_span, children: Vec::new() });
            position += 1;
            continue;
        }
        let (word, arguments) = line.head();
        let symbol = Symbol {
            name: word.to_uppercase(),
            detail: arguments.chars().take(80).collect(),
            span: line.span,
            name_span: line.text_span(),
            children: Vec::new(),
        };
        match symbols.last_mut().filter(|_| position > 0) {
            Some(stage) => {
                stage.span = stage.span.to(line.span);
                stage.children.push(symbol);
            }
            None => symbols.push(symbol),
        }
    }
    symbols
}
