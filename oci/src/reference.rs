//! Image references.

/// A normalised image name (spec R5.12).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<crate::Digest>,
}
