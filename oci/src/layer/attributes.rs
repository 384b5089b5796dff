//! Extended attributes of entries. Of a layer only `security.capability` is part (X4.18). Others are lost with the machine, but steps of a build
//! see them: access control lists, and what programs keep under `user.`. So they make other content.

use super::{Error, dir};
use std::ffi::CString;
use std::os::fd::BorrowedFd;

#[derive(Default)]
pub struct Attributes {
    /// The raw value of `security.capability`.
    pub capability: Option<Vec<u8>>,
    /// A digest of the path and of the others that steps see, if there are any.
    pub others: Option<[u8; 32]>,
}

const CAPABILITY: &[u8] = b"security.capability";

/// Those of the entry `name` of a directory; `path` is its path in the layer. Most entries have none, which one system call tells.
pub fn read(directory: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<Attributes, Error> {
    let fail = |errno| Error::io("read the xattrs of", path, errno);
    let mut names = dir::xattr_names(directory, name).map_err(fail)?;
    names.retain(|name| name.as_bytes() == CAPABILITY || counts(name));
    names.sort_unstable();
    let mut attributes = Attributes::default();
    let mut others: Option<blake3::Hasher> = None;
    for attribute in names {
        let Some(value) = dir::xattr(directory, name, &attribute).map_err(fail)? else { continue };
        if attribute.as_bytes() == CAPABILITY {
            attributes.capability = Some(value);
            continue;
        }
        let hasher = others.get_or_insert_default();
        for part in [path, attribute.as_bytes(), &value] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
    }
    attributes.others = others.map(|hasher| hasher.finalize().into());
    Ok(attributes)
}

/// What stands for the attributes of an entry that has none, over one that has.
pub fn removed(path: &[u8]) -> [u8; 32] {
    *blake3::hash(path).as_bytes()
}

/// The kernel's labels, and its marks in layers, are not the step's.
fn counts(name: &CString) -> bool {
    let name = name.as_bytes();
    let is_own = name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_");
    is_own && !name.starts_with(b"user.overlay.")
}
