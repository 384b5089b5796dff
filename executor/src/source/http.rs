//! Files from URLs: ADD, and contexts (D18.43, D18.44, D18.46).
//!
//! A file becomes a layer of its own with nothing else in it. What is remembered of a URL is the layer and what the server said to
//! tell versions apart, so that an unchanged file is asked about but not sent again; one whose checksum is given is not even asked about.

use super::material::{Material, Materials};
use super::progress::Progress;
use crate::error::{Error, Result, blocking};
use crate::fileop::{self, Context as _};
use crate::secrets::{SecretError, Secrets};
use crate::snapshot::Snapshots;
use crate::value::Stack;
use cache::{Kind, LayerId};
use oci::Digest;
use oci::fetch::{Answer, Downloader, Validators};
use rustix::fs::{Mode, OFlags, Timespec, Timestamps};
use serde::{Deserialize, Serialize};
use solver::event::EventSink;
use std::fs::File;
use std::os::fd::AsFd;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use zeroize::Zeroizing;

const BY_URL: &str = "http";
const BY_DIGEST: &str = "http-digest";

/// Fetches files into a store. Cheap to clone.
#[derive(Clone)]
pub struct Urls {
    snapshots: Snapshots,
    downloader: Downloader,
    secrets: Secrets,
    materials: Materials,
}

/// What a URL gave.
pub struct Fetched {
    /// With the file and nothing else.
    pub stack: Stack,
    pub digest: Digest,
    /// As the server says, in seconds since 1970; of a file that was not asked about, as it once said.
    pub modified: Option<i64>,
}

/// The latest version of a URL that was fetched.
#[derive(Serialize, Deserialize)]
struct Known {
    validators: Validators,
    digest: Digest,
    layer: LayerId,
}

impl Urls {
    pub fn new(snapshots: Snapshots, downloader: Downloader, secrets: Secrets) -> Self {
        Urls { snapshots, downloader, secrets, materials: Materials::default() }
    }

    /// What was fetched so far.
    pub fn materials(&self) -> Vec<Material> {
        self.materials.list()
    }

    /// As [`fetch`](Urls::fetch), for those who want to know which version it is.
    pub async fn fetch_version(
        &self,
        url: &str,
        filename: &str,
        checksum: Option<&str>,
        vertex: &str,
        events: &EventSink,
    ) -> Result<Fetched> {
        let fetched = self.find(url, filename, checksum, vertex, events).await?;
        let (uri, digest) = (parser::source::redacted(url), fetched.digest.hex());
        self.materials.note(Material { uri, algorithm: "sha256", digest });
        Ok(fetched)
    }

    /// When a file is from, in seconds since 1970: as the server says, else the newest that is in it, if it is an archive (D13.15).
    pub async fn time(
        &self,
        url: &str,
        filename: &str,
        checksum: Option<&str>,
        vertex: &str,
        events: &EventSink,
    ) -> Result<Option<i64>> {
        let Fetched { stack, modified, .. } = self.fetch_version(url, filename, checksum, vertex, events).await?;
        if modified.is_some() {
            return Ok(modified);
        }
        let view = self.snapshots.view(&stack.ids())?;
        let file = fileop::open_regular(view.as_fd(), filename)?;
        blocking(move || Ok(fileop::newest(File::from(file)))).await
    }

    /// A file system with the file `filename`, 0600 and root's, and dated as the server says. `checksum` is `sha256:…`.
    pub async fn fetch(
        &self,
        url: &str,
        filename: &str,
        checksum: Option<&str>,
        vertex: &str,
        events: &EventSink,
    ) -> Result<Stack> {
        Ok(self.fetch_version(url, filename, checksum, vertex, events).await?.stack)
    }

    async fn find(
        &self,
        url: &str,
        filename: &str,
        checksum: Option<&str>,
        vertex: &str,
        events: &EventSink,
    ) -> Result<Fetched> {
        let store = self.snapshots.store();
        // Hashed, because a URL may hold a password.
        let key = blake3::hash(format!("{filename}\0{url}").as_bytes());
        let (locking, id) = (store.clone(), *key.as_bytes());
        let _lock = blocking(move || Ok(locking.lock_key(&id)?)).await?;

        let mut known = None;
        if let Some(memo) = store.memo(BY_URL, key.to_hex().as_str())?
            && let Ok(memo) = serde_json::from_slice::<Known>(&memo)
            && let Some(stack) = self.snapshots.stack_of(&memo.layer)?
        {
            known = Some((memo, stack));
        }
        if let Some(checksum) = checksum
            && let Ok(digest) = checksum.parse::<Digest>()
            && let Some(layer) = store.memo(BY_DIGEST, &format!("{checksum} {filename}"))?
            && let Ok(layer) = serde_json::from_slice::<LayerId>(&layer)
            && let Some(stack) = self.snapshots.stack_of(&layer)?
        {
            let known = known.filter(|(known, _)| known.digest == digest);
            return Ok(Fetched { stack, digest, modified: known.and_then(|(known, _)| modified(&known.validators)) });
        }

        let (secrets, from) = (self.secrets.clone(), url.to_owned());
        let authorization = blocking(move || Ok(authorization(&secrets, &from)?)).await?;
        let draft = self.snapshots.plain()?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&draft.root, filename, flags, Mode::from(0o600));
        let file = File::from(file.context("create", filename.as_bytes())?);
        let validators = known.as_ref().map(|(known, _)| &known.validators);
        let mut progress = Progress::new(events, vertex, parser::source::redacted(url));
        let mut report = |current, total: Option<u64>| progress.at(current, total.unwrap_or(0));
        let answer = self
            .downloader
            .get(url, authorization.as_ref().map(|value| value.as_str()), validators, &file, &mut report)
            .await?;
        let (digest, found) = match (answer, known) {
            (Answer::Unchanged, Some((known, stack))) => {
                (known.digest, Ok(Fetched { stack, digest: known.digest, modified: modified(&known.validators) }))
            }
            (Answer::Unchanged, None) => return Err(Error::WrongInput),
            (Answer::New(new), _) => (new.digest, Err(new)),
        };
        if let Some(expected) = checksum
            && digest.to_string() != expected
        {
            let (url, found) = (parser::source::redacted(url), digest.to_string());
            return Err(Error::Checksum { url, found, expected: expected.to_owned() });
        }
        let new = match found {
            Ok(fetched) => return Ok(fetched),
            Err(new) => new,
        };
        progress.done(new.size);
        let modified = modified(&new.validators);
        if let Some(seconds) = modified {
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::futimens(&file, &times).context("set the time of", filename.as_bytes())?;
        }
        drop(file);
        let snapshots = self.snapshots.clone();
        let stack = blocking(move || snapshots.commit(draft, true)).await?;
        if let [layer] = stack.layers() {
            store.describe_layer(&layer.id, Kind::Regular, &format!("fetched from {}", parser::source::redacted(url)));
            let by_digest = serde_json::to_vec(&layer.id).unwrap_or_default();
            store.put_memo(BY_DIGEST, &format!("{digest} {filename}"), &by_digest)?;
            let known = Known { validators: new.validators, digest, layer: layer.id.clone() };
            store.put_memo(BY_URL, key.to_hex().as_str(), &serde_json::to_vec(&known).unwrap_or_default())?;
        }
        Ok(Fetched { stack, digest, modified })
    }
}

fn modified(validators: &Validators) -> Option<i64> {
    validators.last_modified.as_deref().and_then(seconds)
}

/// What a secret of the build, `HTTP_AUTH_TOKEN_host` or `HTTP_AUTH_HEADER_host`, says to the URL's host; the token goes first, as in BuildKit
/// (R3.5.8).
fn authorization(secrets: &Secrets, url: &str) -> std::result::Result<Option<Zeroizing<String>>, SecretError> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    for (prefix, scheme) in [("HTTP_AUTH_TOKEN_", "Bearer "), ("HTTP_AUTH_HEADER_", "")] {
        let id = format!("{prefix}{host}");
        if let Some(secret) = secrets.get(&id)? {
            return Ok(Some(Zeroizing::new(format!("{scheme}{}", *secret.header_text(&id)?))));
        }
    }
    Ok(None)
}

/// Of an HTTP date, since 1970.
fn seconds(date: &str) -> Option<i64> {
    // HTTP's dates are those of mail with another name for the zone.
    let date = date.strip_suffix("GMT").map(|date| format!("{date}+0000"))?;
    OffsetDateTime::parse(&date, &Rfc2822).ok().map(OffsetDateTime::unix_timestamp)
}

#[cfg(test)]
mod tests {
    /// R3.5.8.
    #[test]
    fn secrets_are_for_hosts() {
        let given = |ids: &[&str]| -> crate::secrets::Secrets {
            let source = |id: &str| crate::secrets::SecretSource::Command(format!("echo {id}"));
            ids.iter().map(|id| ((*id).to_owned(), source(id))).collect()
        };
        let header =
            |ids: &[&str], url: &str| super::authorization(&given(ids), url).unwrap().map(|value| value.to_string());
        let (token, whole) = ("HTTP_AUTH_TOKEN_h", "HTTP_AUTH_HEADER_h");
        assert_eq!(header(&[whole], "https://u:p@h:1/x?a@b"), Some(whole.into()));
        assert_eq!(header(&[whole, token], "https://h"), Some(format!("Bearer {token}")));
        assert_eq!(header(&[whole, token], "https://other/h"), None);
        assert_eq!(header(&["HTTP_AUTH_HEADER_::1"], "http://[::1]:8/"), Some("HTTP_AUTH_HEADER_::1".into()));
    }

    #[test]
    fn dates() {
        assert_eq!(super::seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(super::seconds("yesterday"), None);
    }
}
