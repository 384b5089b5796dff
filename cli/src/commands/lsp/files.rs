//! The files beside a document: what its build context holds, and what that leaves out.

use super::document::Document;
use parser::IgnoreFile;
use std::path::{Component, Path};

/// More than anyone would scroll through.
const MAX_ENTRIES: usize = 500;

/// Names in a directory of the context, and whether they are directories. Nothing outside of the context is looked at.
pub fn list(document: &Document, directory: &str) -> Vec<(String, bool)> {
    let entries = || {
        let path = document.path()?;
        let root = path.parent()?.canonicalize().ok()?;
        let relative = Path::new(directory.trim_start_matches('/'));
        if relative.components().any(|part| matches!(part, Component::ParentDir)) {
            return None;
        }
        let directory = root.join(relative).canonicalize().ok().filter(|directory| directory.starts_with(&root))?;
        std::fs::read_dir(directory).ok()
    };
    let entry = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        Some((name, entry.path().is_dir()))
    };
    let mut names: Vec<_> = entries().into_iter().flatten().flatten().filter_map(entry).take(MAX_ENTRIES).collect();
    names.sort();
    names
}

/// `DOCKERFILE.dockerignore`, else `.dockerignore` (D20.1). One that cannot be read or parsed is another tool's matter.
pub fn ignore(document: &Document) -> Option<IgnoreFile> {
    let path = document.path()?;
    let mut beside = path.file_name()?.to_owned();
    beside.push(".dockerignore");
    let candidates = [path.with_file_name(beside), path.with_file_name(".dockerignore")];
    let text = candidates.into_iter().find_map(|file| std::fs::read_to_string(file).ok())?;
    IgnoreFile::parse(&text).ok()
}
