//! Operations: what a vertex does, isomorphic to BuildKit's LLB (`moby/buildkit: solver/pb/ops.proto`). An op holds all that
//! decides its result and nothing else: no build ids, no host paths, no clock. Its inputs are listed beside it, in the graph.

use oci::Platform;
use serde::{Deserialize, Serialize};

/// Index into the inputs of the vertex that holds the op.
pub type Input = usize;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    Source(Source),
    Exec(Exec),
    File(File),
    /// The layers of all inputs, stacked in order (`COPY --link` over a base).
    Merge,
}

impl Op {
    /// Whether there is a result to keep. Sources and merges cost nothing, or have their own ways of keeping.
    pub fn has_result(&self) -> bool {
        matches!(self, Op::Exec(_) | Op::File(_))
    }
}

/// Where files come from. No inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Source {
    /// An image's layers, by the digest of its manifest.
    Image {
        reference: String,
        manifest: oci::Digest,
        platform: Platform,
    },
    /// What the client brings: `context`, or a named context. A directory's content counts by what each consumer selects.
    Local {
        name: String,
    },
    /// What a URL gives, as the file `filename` of an empty file system (D18.44).
    Http {
        url: String,
        filename: String,
        checksum: Option<String>,
    },
    Git(Git),
    /// No files at all.
    Scratch,
}

/// A checkout of a git repository, or of a directory of it (D18.42).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Git {
    pub remote: String,
    /// A branch, a tag, a full ref or a commit; empty for the default branch.
    pub reference: String,
    pub subdir: String,
    /// The commit that `reference` must stand for, or the beginning of its hash.
    pub checksum: Option<String>,
    pub keep_git_dir: bool,
    pub submodules: bool,
    /// Files get the commit's time.
    pub commit_time: bool,
    pub fetch_by_commit: bool,
}

/// Runs a process in the file system of input 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exec {
    pub args: Vec<String>,
    /// `NAME=value`, in order, without HOME and proxies, which are the executor's.
    pub env: Vec<String>,
    pub cwd: String,
    /// As in `USER`; empty means root. Looked up in the root file system when the process starts.
    pub user: String,
    pub hostname: Option<String>,
    pub network: Network,
    pub insecure: bool,
    pub platform: Platform,
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    /// Variables whose values are secrets, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_env: Vec<SecretEnv>,
    /// Names of `--add-host`; their addresses are not part of the result (X1.40).
    pub extra_hosts: Vec<String>,
}

/// A device of the Container Device Interface (`RUN --device`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub name: String,
    /// Without it the process does not run.
    pub required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Network {
    /// What the builder gives: an isolated network or the host's, which is no part of the key (R1.9.1, R1.9.6).
    #[default]
    Default,
    None,
    Host,
}

/// One `RUN --mount`, in order of target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute.
    pub target: String,
    pub readonly: bool,
    pub kind: MountKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MountKind {
    /// A path of an input; writes are dropped after the step.
    Bind { from: Input, source: String },
    /// A directory that outlives the build.
    Cache { id: String, sharing: CacheSharing, from: Option<Input>, source: String, mode: u32, uid: u32, gid: u32 },
    /// `size` in bytes, 0 for the kernel's default.
    Tmpfs { size: u64 },
    /// A secret as a file. Its value is no part of the op, and so of no key (X2.7, X2.9).
    Secret { id: String, required: bool, mode: u32, uid: u32, gid: u32 },
    /// A socket on which an agent answers. `id` is as written, empty for `default`.
    Ssh { id: String, required: bool, mode: u32, uid: u32, gid: u32 },
    /// A file that the builder makes for the step, such as a here-document script at `/dev/pipes/EOF`.
    File { content: String, mode: u32 },
}

/// A variable that holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretEnv {
    pub name: String,
    pub id: String,
    /// One that is not required and not there leaves the variable empty (X1.20).
    pub required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CacheSharing {
    #[default]
    Shared,
    Private,
    Locked,
}

/// File actions, all on the file system of input 0, in order; any error drops the whole step (X3.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct File {
    pub actions: Vec<FileAction>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FileAction {
    Copy(Copy),
    Mkdir(Mkdir),
    Mkfile(Mkfile),
}

/// Copies what `selection` names in input `from` to `destination` (X3.B to X3.E).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copy {
    pub from: Input,
    pub selection: Selection,
    /// Absolute, cleaned; a trailing `/` means a directory (D18.18).
    pub destination: String,
    /// `--chown` as written after expansion, `user[:group]`.
    pub chown: Option<String>,
    pub chmod: Option<Chmod>,
    /// Whether a tar archive that is a source itself is unpacked (ADD).
    pub unpack: bool,
    /// Sources of a build context get 0:0; those of a stage or an image keep their owner (D18.27).
    pub keep_owner: bool,
}

/// Which part of a source tree is meant; the content key of a copy is that of exactly these files.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Selection {
    /// Absolute and cleaned. With `wildcard`, a Go `filepath.Match` pattern.
    pub path: String,
    pub wildcard: bool,
    /// `--exclude` patterns in .dockerignore syntax, relative to each source root.
    pub exclude: Vec<String>,
    /// `--parents`: keep the path below this pivot directory in the destination.
    pub parents: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Chmod {
    /// 0 to 0o7777, for files and directories alike.
    Octal(u32),
    /// `u=rwX,go=rX`, applied to each entry's own mode.
    Symbolic(String),
}

/// Makes a directory and its missing parents, mode 0755 (WORKDIR, X3.61).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mkdir {
    pub path: String,
    /// `USER` at this point; empty means root.
    pub owner: String,
    /// Seconds since 1970, where SOURCE_DATE_EPOCH says so; else now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
}

/// Writes a file (a here-document).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mkfile {
    pub path: String,
    pub data: String,
    pub mode: u32,
}

impl Selection {
    /// A file, or a directory with all below it.
    pub fn tree(path: &str) -> Self {
        Selection { path: path.to_owned(), wildcard: false, exclude: Vec::new(), parents: None }
    }
}
