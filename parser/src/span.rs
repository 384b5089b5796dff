//! Places in a Dockerfile: byte ranges, and the lines that they lie on.

use std::ops::Deref;

/// A half-open range of byte offsets in the source text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Self {
        Span { start, end: end.max(start) }
    }

    /// The smallest span that holds both.
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spanned<T> {
    pub value: T,
    pub span: Span,
}

impl<T> Spanned<T> {
    pub fn new(value: T, span: Span) -> Self {
        Spanned { value, span }
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Finds line numbers by offset, after one pass over the source.
#[derive(Clone, Debug)]
pub struct LineIndex {
    /// Where each line starts; the first entry is 0.
    starts: Vec<usize>,
}

impl LineIndex {
    pub fn new(source: &str) -> Self {
        let after_newlines = source.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        LineIndex { starts: std::iter::once(0).chain(after_newlines).collect() }
    }

    /// The 1-based line that holds the offset; offsets past the end are on the last line.
    pub fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// The 1-based column of an offset in `source`, in characters.
    pub fn column(&self, source: &str, offset: usize) -> usize {
        let start = self.starts[self.line(offset) - 1];
        source.get(start..offset).map_or(1, |before| before.chars().count() + 1)
    }

    /// The first and the last line that the span touches, 1-based. A newline that ends a span belongs to the line it ends.
    pub fn lines(&self, span: Span) -> (usize, usize) {
        let first = self.line(span.start);
        (first, self.line(span.end.saturating_sub(1)).max(first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_become_lines() {
        let index = LineIndex::new("ab\nc\n\nd");
        let lines: Vec<usize> = (0..8).map(|offset| index.line(offset)).collect();
        assert_eq!(lines, [1, 1, 1, 2, 2, 3, 4, 4]);
        assert_eq!(index.lines(Span::new(0, 3)), (1, 1));
        assert_eq!(index.lines(Span::new(1, 7)), (1, 4));
        assert_eq!(index.lines(Span::new(7, 7)), (4, 4));
    }
}
