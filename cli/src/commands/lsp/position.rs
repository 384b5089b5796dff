//! Places as the protocol counts them: lines, and characters in units of UTF-8 or UTF-16.

use lsp_types::{InitializeParams, Position, PositionEncodingKind, Range};
use parser::Span;

/// What a character of a position is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Utf8,
    Utf16,
}

impl Encoding {
    /// Bytes, if the client can count them; else what every client can.
    pub fn negotiate(params: &InitializeParams) -> Encoding {
        let general = params.capabilities.general.as_ref();
        let offered = general.and_then(|general| general.position_encodings.as_deref()).unwrap_or_default();
        if offered.contains(&PositionEncodingKind::UTF8) { Encoding::Utf8 } else { Encoding::Utf16 }
    }

    pub fn kind(self) -> PositionEncodingKind {
        match self {
            Encoding::Utf8 => PositionEncodingKind::UTF8,
            Encoding::Utf16 => PositionEncodingKind::UTF16,
        }
    }

    fn length(self, text: &str) -> usize {
        match self {
            Encoding::Utf8 => text.len(),
            Encoding::Utf16 => text.encode_utf16().count(),
        }
    }
}

/// Where the lines of a text begin. A lone carriage return ends a line too.
#[derive(Clone, Debug)]
pub struct Lines(Vec<usize>);

impl Lines {
    pub fn new(text: &str) -> Lines {
        let bytes = text.as_bytes();
        let ends = (0..bytes.len())
            .filter(|&at| bytes[at] == b'\n' || (bytes[at] == b'\r' && bytes.get(at + 1) != Some(&b'\n')));
        Lines(std::iter::once(0).chain(ends.map(|at| at + 1)).collect())
    }

    fn line<'t>(&self, text: &'t str, line: usize) -> &'t str {
        let end = self.0.get(line + 1).copied().unwrap_or(text.len());
        text[self.0[line]..end].trim_end_matches(['\r', '\n'])
    }

    /// The offset of a position. Beyond the end of a line or of the text it is that end.
    pub fn offset(&self, text: &str, position: Position, encoding: Encoding) -> usize {
        let line = position.line as usize;
        let Some(&start) = self.0.get(line) else { return text.len() };
        let mut units = 0;
        for (at, c) in self.line(text, line).char_indices() {
            if units >= position.character as usize {
                return start + at;
            }
            units += encoding.length(c.encode_utf8(&mut [0; 4]));
        }
        start + self.line(text, line).len()
    }

    pub fn position(&self, text: &str, offset: usize, encoding: Encoding) -> Position {
        let offset = offset.min(text.len());
        let line = self.0.partition_point(|start| *start <= offset) - 1;
        let before = text.get(self.0[line]..offset).unwrap_or_default();
        Position::new(line as u32, encoding.length(before) as u32)
    }

    pub fn range(&self, text: &str, span: Span, encoding: Encoding) -> Range {
        Range::new(self.position(text, span.start, encoding), self.position(text, span.end, encoding))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_the_encoding() {
        let text = "aé😀b\r\nc\rd";
        let lines = Lines::new(text);
        for (offset, utf16, utf8) in
            [(0, (0, 0), (0, 0)), (7, (0, 4), (0, 7)), (10, (1, 0), (1, 0)), (12, (2, 0), (2, 0))]
        {
            for (encoding, (line, character)) in [(Encoding::Utf16, utf16), (Encoding::Utf8, utf8)] {
                let position = Position::new(line, character);
                assert_eq!(lines.position(text, offset, encoding), position, "{offset}");
                assert_eq!(lines.offset(text, position, encoding), offset, "{position:?}");
            }
        }
        // Inside of a character, and beyond ends.
        assert_eq!(lines.offset(text, Position::new(0, 3), Encoding::Utf16), 7);
        assert_eq!(lines.offset(text, Position::new(0, 99), Encoding::Utf16), 8);
        assert_eq!(lines.offset(text, Position::new(99, 0), Encoding::Utf16), text.len());
    }
}
