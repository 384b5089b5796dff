//! The documents that the editor has open, as it sees them.

use super::position::{Encoding, Lines};
use lsp_types::{
    DidChangeTextDocumentParams, DidOpenTextDocumentParams, Position, Range, TextDocumentContentChangeEvent, Uri,
};
use parser::Span;
use std::collections::HashMap;
use std::path::PathBuf;

pub struct Document {
    pub uri: Uri,
    pub version: i32,
    pub text: String,
    lines: Lines,
    encoding: Encoding,
}

impl Document {
    pub fn offset(&self, position: Position) -> usize {
        self.lines.offset(&self.text, position, self.encoding)
    }

    pub fn range(&self, span: Span) -> Range {
        self.lines.range(&self.text, span, self.encoding)
    }

    /// The file, if it is one.
    pub fn path(&self) -> Option<PathBuf> {
        path(self.uri.as_str())
    }

    fn apply(&mut self, change: TextDocumentContentChangeEvent) {
        match change.range {
            Some(range) => {
                let (start, end) = (self.offset(range.start), self.offset(range.end));
                self.text.replace_range(start..end.max(start), &change.text);
            }
            None => self.text = change.text,
        }
        self.lines = Lines::new(&self.text);
    }
}

pub struct Documents {
    encoding: Encoding,
    open: HashMap<String, Document>,
}

impl Documents {
    pub fn new(encoding: Encoding) -> Documents {
        Documents { encoding, open: HashMap::new() }
    }

    pub fn get(&self, uri: &Uri) -> Option<&Document> {
        self.named(uri.as_str())
    }

    pub fn named(&self, uri: &str) -> Option<&Document> {
        self.open.get(uri)
    }

    pub fn open(&mut self, params: DidOpenTextDocumentParams) -> Uri {
        let item = params.text_document;
        let lines = Lines::new(&item.text);
        let document =
            Document { uri: item.uri.clone(), version: item.version, text: item.text, lines, encoding: self.encoding };
        self.open.insert(item.uri.as_str().to_owned(), document);
        item.uri
    }

    /// Gives the document that changed, if it is open.
    pub fn change(&mut self, params: DidChangeTextDocumentParams) -> Option<Uri> {
        let document = self.open.get_mut(params.text_document.uri.as_str())?;
        document.version = params.text_document.version;
        params.content_changes.into_iter().for_each(|change| document.apply(change));
        Some(document.uri.clone())
    }

    pub fn close(&mut self, uri: &Uri) {
        self.open.remove(uri.as_str());
    }
}

/// The path of a `file:` URI of this machine.
fn path(uri: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let encoded = uri.strip_prefix("file://")?;
    let encoded = encoded.strip_prefix("localhost").unwrap_or(encoded);
    let encoded = encoded.split(['?', '#']).next().filter(|path| path.starts_with('/'))?;
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let decoded = after.get(..2).filter(|_| byte == b'%');
        match decoded.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    Some(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn uris_become_paths() {
        assert_eq!(path("file:///a%20b/%C3%BC%"), Some("/a b/ü%".into()));
        assert_eq!(path("file://localhost/a"), Some("/a".into()));
        for uri in ["untitled:1", "file://host/a", "https://x/y"] {
            assert_eq!(path(uri), None, "{uri}");
        }
    }
}
