//! Records of builds in the store.

use crate::error::{Error, Result};
use crate::fileop;
use cache::{BuildEntry, Store};
use solver::record::{BuildRecord, Identity};
use solver::trace::FileChanges;

/// Unpacked.
const MOST_BYTES: usize = 64 << 20;
const LEVEL: i32 = 1;

/// The records of a store.
pub struct Builds<'a>(pub &'a Store);

impl Builds<'_> {
    /// The last builds of the same, the latest first; if there are none, those of the same Dockerfile with another target or for other platforms.
    pub fn entries_of(&self, identity: &Identity) -> Result<Vec<BuildEntry>> {
        let (dockerfile, build) = (identity.of_dockerfile(), identity.of_build());
        let mut entries = self.0.builds()?;
        entries.retain(|entry| entry.dockerfile == dockerfile);
        if entries.iter().any(|entry| entry.build == build) {
            entries.retain(|entry| entry.build == build);
        }
        Ok(entries)
    }

    /// `None` for one that is gone, or that this version cannot read.
    pub fn read(&self, entry: &BuildEntry) -> Result<Option<BuildRecord>> {
        let Some(packed) = self.0.build(entry)? else { return Ok(None) };
        let unpacked = zstd::bulk::decompress(&packed, MOST_BYTES);
        Ok(unpacked.ok().and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// The latest build of all, or of `identity`.
    pub fn last(&self, identity: Option<&Identity>) -> Result<Option<BuildRecord>> {
        let entries = match identity {
            Some(identity) => self.entries_of(identity)?,
            None => self.0.builds()?,
        };
        for entry in &entries {
            if let Some(record) = self.read(entry)? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// What became of files between two contributions of an input to a step's key, in hex; `None` where what they were is not known any more.
    pub fn file_changes(&self, old: &str, new: &str) -> Option<FileChanges> {
        let list = |contribution: &str| {
            let name: [u8; 32] = hex::decode(contribution).ok()?.try_into().ok()?;
            self.0.file_list(&name).ok()?
        };
        fileop::changes(&list(old)?, &list(new)?)
    }

    /// Keeps a record; `fingerprint` is of hexadecimal digits.
    pub fn keep(&self, record: &BuildRecord, fingerprint: &str) -> Result<BuildEntry> {
        let text = serde_json::to_vec(record).map_err(|error| Error::output(error.into()))?;
        let packed = zstd::bulk::compress(&text, LEVEL).map_err(Error::output)?;
        let identity = &record.identity;
        Ok(self.0.put_build(&identity.of_dockerfile(), &identity.of_build(), fingerprint, &packed)?)
    }
}
