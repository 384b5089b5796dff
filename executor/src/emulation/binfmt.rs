//! binfmt_misc: what the kernel starts programs of other processors with (Linux's `Documentation/admin-guide/binfmt-misc.rst`).

use super::architecture::Architecture;
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Where the machine's handlers are shown, if they are.
const MOUNT_POINT: &str = "/proc/sys/fs/binfmt_misc";

/// What the machine does with a processor's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// None is shown; there may be one all the same, in a container.
    Unknown,
    /// Its interpreter was opened when it was registered (flag F), so that it works in any root file system.
    Usable,
    /// Its interpreter is looked for in the step's file system.
    WithoutF,
}

/// The machine's handler for a processor.
pub fn registered(architecture: &Architecture) -> Handler {
    let entries = fs::read_dir(MOUNT_POINT).into_iter().flatten().flatten();
    let names = entries.filter(|entry| entry.file_name() != "register" && entry.file_name() != "status");
    let texts = names.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let mut found = Handler::Unknown;
    for text in texts {
        match handler(&text, architecture) {
            Handler::Usable => return Handler::Usable,
            Handler::WithoutF => found = Handler::WithoutF,
            Handler::Unknown => {}
        }
    }
    found
}

/// What one entry, as the kernel shows it, means for a processor.
fn handler(entry: &str, architecture: &Architecture) -> Handler {
    let value = |name: &str| entry.lines().find_map(|line| line.strip_prefix(name));
    let bytes = |name: &str| value(name).and_then(|text| hex::decode(text.trim()).ok());
    let (Some(magic), Some("0")) = (bytes("magic "), value("offset ")) else { return Handler::Unknown };
    let mask = bytes("mask ").unwrap_or_else(|| vec![0xff; magic.len()]);
    // A handler that looks at more than the header is for something else.
    let program = architecture.magic();
    let matches = magic.len() <= program.len()
        && magic.len() > 18
        && magic.iter().zip(&mask).zip(program).all(|((magic, mask), byte)| magic & mask == byte & mask);
    match (matches && entry.starts_with("enabled"), value("flags: ")) {
        (false, _) => Handler::Unknown,
        (true, Some(flags)) if flags.contains('F') => Handler::Usable,
        (true, _) => Handler::WithoutF,
    }
}

/// Handlers of a user namespace that is this program's own. They hide the machine's, and end when this is dropped.
pub struct Private {
    _mount: OwnedFd,
    architectures: Vec<&'static Architecture>,
}

impl Private {
    /// Registers emulators with the kernel, in the user namespace that the program has entered; since Linux 6.7 each can have handlers of its own.
    pub fn register(emulators: &[(&'static Architecture, PathBuf)]) -> io::Result<Private> {
        let context = fsopen("binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(&context)?;
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let mut architectures = Vec::new();
        for (architecture, path) in emulators {
            let Some(path) = path.to_str().filter(|path| !path.contains(':')) else { continue };
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let mut register = File::from(openat(&mount, "register", flags, Mode::empty())?);
            // P: the emulator sees the program's own argv[0]. C, which implies O: set-user-id programs have their rights. F: works in any root.
            let (magic, mask) = (escaped(&architecture.magic()), escaped(&architecture.mask()));
            register.write_all(format!(":{}:M::{magic}:{mask}:{path}:PCF", architecture.qemu).as_bytes())?;
            architectures.push(*architecture);
        }
        Ok(Private { _mount: mount, architectures })
    }

    pub fn has(&self, architecture: &Architecture) -> bool {
        self.architectures.contains(&architecture)
    }
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// qemu's emulator for a processor, in the directories of a PATH. Only one that is linked statically works in any root file system.
pub fn emulator(architecture: &Architecture, path: &[PathBuf]) -> Option<PathBuf> {
    let names = ["-static", ""].map(|suffix| format!("qemu-{}{suffix}", architecture.qemu));
    let names = names.into_iter().chain([format!("buildkit-qemu-{}", architecture.qemu)]);
    let mut candidates = names.flat_map(|name| path.iter().map(move |directory| directory.join(&name)));
    candidates.find(|candidate| candidate.is_absolute() && is_static(candidate).unwrap_or(false))
}

/// Whether a program of this machine asks for no loader.
fn is_static(program: &Path) -> io::Result<bool> {
    const INTERPRETER: u32 = 3;
    let mut file = File::open(program)?;
    if !file.metadata()?.is_file() {
        return Ok(false);
    }
    let mut header = [0; 64];
    file.read_exact(&mut header)?;
    if &header[..4] != b"\x7fELF" {
        return Ok(false);
    }
    let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (offset, size, count) = match header[4] {
        2 => (u64::from_ne_bytes(header[32..40].try_into().unwrap_or_default()), half(54), half(56)),
        _ => (u64::from(word(28)), half(42), half(44)),
    };
    for index in 0..u64::from(count) {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, offset.saturating_add(index * u64::from(size)))?;
        if u32::from_ne_bytes(kind) == INTERPRETER {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Debian's qemu-user-static registers it.
    const AARCH64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn entries_are_understood() {
        let (arm64, riscv64) = (Architecture::named("arm64").unwrap(), Architecture::named("riscv64").unwrap());
        assert_eq!(handler(AARCH64, arm64), Handler::Usable);
        assert_eq!(handler(AARCH64, riscv64), Handler::Unknown);
        assert_eq!(handler(&AARCH64.replace("POF", "PO"), arm64), Handler::WithoutF);
        assert_eq!(handler(&AARCH64.replace("enabled", "disabled"), arm64), Handler::Unknown);
        let python = "enabled\ninterpreter /usr/bin/python3\nflags: \noffset 0\nmagic a70d0d0a\n";
        assert_eq!(handler(python, arm64), Handler::Unknown);
        assert_eq!(handler("enabled\ninterpreter /x\nflags: F\nextension .exe\n", arm64), Handler::Unknown);
    }

    #[test]
    fn only_static_emulators_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let arm64 = Architecture::named("arm64").unwrap();
        let find = || emulator(arm64, &[PathBuf::from("."), directory.path().to_owned()]);
        assert_eq!(find(), None);
        fs::write(path("qemu-aarch64-static"), "#!/bin/sh\necho a script, which the kernel would not take\n".repeat(3))
            .unwrap();
        fs::copy("/bin/cat", path("qemu-aarch64")).unwrap();
        assert_eq!(find(), None, "/bin/cat has a loader");
        fs::copy("/bin/busybox", path("buildkit-qemu-aarch64")).unwrap();
        assert_eq!(find(), Some(path("buildkit-qemu-aarch64")));
    }
}
