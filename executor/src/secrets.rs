//! Secrets of a build (R2.18 to R2.22): where each comes from, and its value when a step asks for it.
//!
//! A value is read when it is needed and at each need, as BuildKit does; a command is run and a pipe is read once. It is wiped from memory
//! with its last holder, has no `Debug` that shows it, and travels to a step in memory files, so that no message between processes holds it.

use rustix::fs::MemfdFlags;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use zeroize::Zeroizing;

/// In bytes (X2.42).
pub const MAX_SIZE: u64 = 500 * 1024;

/// The value of a secret: any bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Arc<Zeroizing<Vec<u8>>>);

impl SecretValue {
    pub fn new(bytes: Vec<u8>) -> Self {
        SecretValue(Arc::new(Zeroizing::new(bytes)))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// For a header or a variable of a program: text without the blanks around it, which files have and headers must not.
    pub fn header_text(&self, id: &str) -> Result<Zeroizing<String>, SecretError> {
        let text = std::str::from_utf8(&self.0).ok().map(str::trim);
        let text = text.filter(|text| !text.chars().any(char::is_control));
        Ok(Zeroizing::new(text.ok_or_else(|| SecretError::NoHeader { id: id.to_owned() })?.to_owned()))
    }

    /// A file in memory that holds the value, to be handed to a process.
    pub(crate) fn to_memory(&self) -> io::Result<OwnedFd> {
        let mut file = File::from(rustix::fs::memfd_create("secret", MemfdFlags::CLOEXEC)?);
        file.write_all(&self.0)?;
        Ok(file.into())
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    File(PathBuf),
    /// A variable of rbuild's own environment; empty where it is not set, as in BuildKit.
    Variable(OsString),
    /// What a shell command prints.
    Command(String),
}

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// With BuildKit's text (X2.41).
    #[error("secret {id}: not found")]
    NotFound { id: String },
    #[error("cannot read secret {id}: {}: {source}", path.display())]
    Read { id: String, path: PathBuf, source: io::Error },
    #[error("secret {id} too big. max size 500KiB")]
    TooBig { id: String },
    #[error("cannot run the command of secret {id}: {source}")]
    Run { id: String, source: io::Error },
    #[error("the command of secret {id} failed with {status}{said}")]
    Command { id: String, status: std::process::ExitStatus, said: String },
    #[error("secret {id} holds a zero byte, which no environment variable can: mount it as a file")]
    ZeroByte { id: String },
    #[error("secret {id} cannot be sent to a server: it holds control characters, or is no text")]
    NoHeader { id: String },
    #[error("cannot hand over secret {id}: {source}")]
    HandOver { id: String, source: io::Error },
}

struct Entry {
    source: SecretSource,
    /// What can be had only once.
    kept: Mutex<Option<SecretValue>>,
}

impl Entry {
    /// Others that want it wait: a command may ask its user something.
    fn once(&self, read: impl FnOnce() -> Result<SecretValue, SecretError>) -> Result<SecretValue, SecretError> {
        let mut kept = self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*kept {
            Some(value) => Ok(value.clone()),
            None => Ok(kept.insert(read()?).clone()),
        }
    }
}

/// The secrets that a build was given, by id. Cheap to clone.
#[derive(Clone, Default)]
pub struct Secrets(Arc<BTreeMap<String, Entry>>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl FromIterator<(String, SecretSource)> for Secrets {
    /// Of several with one id the last counts.
    fn from_iter<I: IntoIterator<Item = (String, SecretSource)>>(secrets: I) -> Self {
        let entry = |(id, source)| (id, Entry { source, kept: Mutex::default() });
        Secrets(Arc::new(secrets.into_iter().map(entry).collect()))
    }
}

impl Secrets {
    /// The value of `id`, or `None` if the build was given no such secret. Blocks.
    pub fn get(&self, id: &str) -> Result<Option<SecretValue>, SecretError> {
        let Some(entry) = self.0.get(id) else { return Ok(None) };
        let value = match &entry.source {
            SecretSource::Variable(name) => {
                SecretValue::new(std::env::var_os(name).map(OsString::into_vec).unwrap_or_default())
            }
            SecretSource::File(path) => {
                let failed = |source| SecretError::Read { id: id.to_owned(), path: path.clone(), source };
                let read = || File::open(path).and_then(limited).map(SecretValue::new).map_err(failed);
                match path.metadata() {
                    // A pipe, such as the shell's `<(…)`.
                    Ok(found) if !found.is_file() => entry.once(read)?,
                    _ => read()?,
                }
            }
            SecretSource::Command(command) => entry.once(|| printed(id, command))?,
        };
        match value.bytes().len() as u64 {
            0..=MAX_SIZE => Ok(Some(value)),
            _ => Err(SecretError::TooBig { id: id.to_owned() }),
        }
    }

    /// The same, for a step that does not go without.
    pub fn required(&self, id: &str) -> Result<SecretValue, SecretError> {
        self.get(id)?.ok_or_else(|| SecretError::NotFound { id: id.to_owned() })
    }
}

/// All of `input`, or so much of it that it is clear that it is too much. Room is taken once, so that no copies stay behind.
fn limited(input: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(MAX_SIZE as usize + 2);
    input.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A line's end is not part of a value of one line, as in `$(…)`; longer texts, such as keys, stay as they are.
fn printed(id: &str, command: &str) -> Result<SecretValue, SecretError> {
    let run = |source| SecretError::Run { id: id.to_owned(), source };
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    crate::sandbox::end_with_this_thread(&mut shell);
    let mut child = shell.spawn().map_err(run)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let complaints = std::thread::spawn(move || {
        let mut text = Vec::new();
        // All of it, so that the command never waits; what is said goes into an error of a few lines.
        let _ = stderr.map(|mut stderr| stderr.read_to_end(&mut text));
        text
    });
    let read = stdout.map(limited).transpose();
    if read.as_ref().is_ok_and(|bytes| bytes.as_ref().is_some_and(|bytes| bytes.len() as u64 > MAX_SIZE)) {
        let _ = child.kill();
        let _ = child.wait();
        return Err(SecretError::TooBig { id: id.to_owned() });
    }
    let status = child.wait().map_err(run)?;
    let mut bytes = Zeroizing::new(read.map_err(run)?.unwrap_or_default());
    if !status.success() {
        let said = complaints.join().unwrap_or_default();
        return Err(SecretError::Command { id: id.to_owned(), status, said: last_line(&said) });
    }
    if bytes.iter().filter(|byte| **byte == b'\n').count() == 1 && bytes.last() == Some(&b'\n') {
        bytes.pop();
        bytes.pop_if(|byte| *byte == b'\r');
    }
    Ok(SecretValue(Arc::new(bytes)))
}

/// `: ` and what a program said last, in one line without control characters; nothing if it said nothing.
fn last_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
    let line: String = line.chars().filter(|c| !c.is_control()).take(400).collect();
    if line.is_empty() { line } else { format!(": {line}") }
}

/// `NAME=value`, each ended by a zero byte, in a file in memory.
pub(crate) fn environment(variables: &[(String, String, SecretValue)]) -> Result<OwnedFd, SecretError> {
    let failed = |id: &str| {
        let id = id.to_owned();
        move |source| SecretError::HandOver { id, source }
    };
    let first = variables.first().map_or("", |(_, id, _)| id);
    let memory =
        rustix::fs::memfd_create("secrets", MemfdFlags::CLOEXEC).map_err(|errno| failed(first)(errno.into()))?;
    let mut file = File::from(memory);
    for (name, id, value) in variables {
        if value.bytes().contains(&0) {
            return Err(SecretError::ZeroByte { id: id.clone() });
        }
        for part in [name.as_bytes(), b"=", value.bytes(), b"\0"] {
            file.write_all(part).map_err(failed(id))?;
        }
    }
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(source: SecretSource) -> Secrets {
        [("id".to_owned(), source)].into_iter().collect()
    }

    #[test]
    fn values_come_from_their_sources() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("f");
        let secrets = of(SecretSource::File(path.clone()));
        assert!(
            secrets.get("id").unwrap_err().to_string().contains(path.to_str().unwrap()),
            "the missing file is named"
        );
        std::fs::write(&path, b"\0\xff\n").unwrap();
        assert_eq!(secrets.get("id").unwrap().unwrap().bytes(), b"\0\xff\n");
        assert_eq!(secrets.get("other").unwrap(), None);
        assert_eq!(secrets.required("other").unwrap_err().to_string(), "secret other: not found", "X2.41");
        assert_eq!(of(SecretSource::Variable("NOT SET".into())).required("id").unwrap().bytes(), b"");
        std::fs::write(&path, vec![b'x'; 512_000]).unwrap();
        assert_eq!(secrets.get("id").unwrap().unwrap().bytes().len(), 512_000, "X2.42");
        std::fs::write(&path, vec![b'x'; 512_001]).unwrap();
        assert_eq!(secrets.get("id").unwrap_err().to_string(), "secret id too big. max size 500KiB", "X2.42");
    }

    #[test]
    fn commands_run_once() {
        let tmp = tempfile::tempdir().unwrap();
        let log = tmp.path().join("log");
        let secrets = of(SecretSource::Command(format!("echo x >> {}; echo token", log.display())));
        assert_eq!(secrets.get("id").unwrap().unwrap().bytes(), b"token");
        assert_eq!(secrets.get("id").unwrap().unwrap().bytes(), b"token");
        assert_eq!(std::fs::read_to_string(log).unwrap(), "x\n");
        let printed = |command: &str| of(SecretSource::Command(command.into())).required("id");
        assert_eq!(printed(r"printf 'a\nb\n'").unwrap().bytes(), b"a\nb\n", "keys keep their last line's end");
        assert_eq!(printed(r"printf '\377\000'").unwrap().bytes(), b"\xff\0");
        let error = printed("echo value; echo why >&2; exit 3").unwrap_err().to_string();
        assert_eq!(error, "the command of secret id failed with exit status: 3: why");
        assert!(matches!(printed("yes"), Err(SecretError::TooBig { .. })));
    }

    #[test]
    fn values_do_not_show() {
        let value = SecretValue::new(b"hunter2".to_vec());
        assert_eq!(format!("{value:?}"), "****");
        assert_eq!(format!("{:?}", of(SecretSource::Command("echo hunter2".into()))), "{\"id\"}");
        assert_eq!(*SecretValue::new(b" t\n".to_vec()).header_text("i").unwrap(), "t");
        assert!(SecretValue::new(b"a\nb".to_vec()).header_text("i").is_err());
    }
}
