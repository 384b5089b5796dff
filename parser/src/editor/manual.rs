//! The short manual: what instructions, flags and mount options do.

/// An instruction, a flag or an option.
pub struct Entry {
    pub name: &'static str,
    /// How it is written.
    pub form: &'static str,
    pub text: &'static str,
}

const fn entry(name: &'static str, form: &'static str, text: &'static str) -> Entry {
    Entry { name, form, text }
}

pub const INSTRUCTIONS: [Entry; 18] = [
    entry(
        "ADD",
        "ADD [FLAGS] SOURCE... DESTINATION",
        "Copies files as COPY does; also unpacks local archives, fetches URLs and clones git repositories.",
    ),
    entry(
        "ARG",
        "ARG NAME[=DEFAULT]...",
        "Declares a build argument. It is a variable of the build from here to the end of the stage, and never of the image. Before the first FROM, it is for FROM lines only.",
    ),
    entry(
        "CMD",
        "CMD [\"PROGRAM\", \"ARGUMENT\"...] or CMD COMMAND",
        "The default command of the image, or default arguments of its ENTRYPOINT. Only the last one of a stage counts.",
    ),
    entry(
        "COPY",
        "COPY [FLAGS] SOURCE... DESTINATION",
        "Copies files from the context, a stage or an image. A destination that ends in `/` is a directory.",
    ),
    entry(
        "ENTRYPOINT",
        "ENTRYPOINT [\"PROGRAM\", \"ARGUMENT\"...] or ENTRYPOINT COMMAND",
        "The program that the image always starts; CMD and the arguments of the run command are added to it.",
    ),
    entry("ENV", "ENV NAME=VALUE...", "Sets variables for the following instructions and for the image's processes."),
    entry("EXPOSE", "EXPOSE PORT[/PROTOCOL]...", "Says which ports the image's program listens on."),
    entry(
        "FROM",
        "FROM [--platform=PLATFORM] IMAGE [AS NAME]",
        "Begins a stage on an image, on an earlier stage, or on `scratch`, which is empty.",
    ),
    entry(
        "HEALTHCHECK",
        "HEALTHCHECK [FLAGS] CMD COMMAND or HEALTHCHECK NONE",
        "How to find out whether a container still works; NONE takes the base's check away.",
    ),
    entry("LABEL", "LABEL NAME=VALUE...", "Adds labels to the image."),
    entry(
        "MAINTAINER",
        "MAINTAINER NAME",
        "The image's author. Deprecated: use `LABEL org.opencontainers.image.authors=...`.",
    ),
    entry("ONBUILD", "ONBUILD INSTRUCTION", "An instruction that runs first in stages that are based on this image."),
    entry(
        "RUN",
        "RUN [FLAGS] COMMAND or RUN [FLAGS] [\"PROGRAM\", \"ARGUMENT\"...]",
        "Runs a command; what it changes is a layer of the image. `<<EOF` begins a script of several lines.",
    ),
    entry(
        "SHELL",
        "SHELL [\"PROGRAM\", \"ARGUMENT\"...]",
        "The shell that runs commands that are not JSON arrays; at first `[\"/bin/sh\", \"-c\"]`.",
    ),
    entry("STOPSIGNAL", "STOPSIGNAL SIGNAL", "The signal that ends the image's program: a name or a number."),
    entry(
        "USER",
        "USER USER[:GROUP]",
        "The user of the following RUN instructions and of the image's program. COPY and ADD do not follow it.",
    ),
    entry("VOLUME", "VOLUME PATH...", "Directories whose content a container keeps outside of the image."),
    entry(
        "WORKDIR",
        "WORKDIR PATH",
        "The directory of the following instructions and of the image's program; it is made if it is missing.",
    ),
];

pub fn instruction(name: &str) -> Option<&'static Entry> {
    INSTRUCTIONS.iter().find(|entry| entry.name == name)
}

const FROM: [Entry; 1] = [entry(
    "platform",
    "--platform=OS/ARCH[/VARIANT]",
    "The platform of the image, such as `linux/arm64` or `$BUILDPLATFORM`; by default the target's.",
)];
const RUN: [Entry; 4] = [
    entry(
        "mount",
        "--mount=type=TYPE,OPTION...",
        "Something that is there while the command runs, and not in the layer: `bind`, `cache`, `tmpfs`, `secret` or `ssh`.",
    ),
    entry("network", "--network=default|none|host", "The network of the command."),
    entry(
        "security",
        "--security=sandbox|insecure",
        "`insecure` gives the command full privileges, where the build allows it.",
    ),
    entry("device", "--device=NAME[,required]", "A CDI device for the command."),
];
const CHOWN: Entry = entry(
    "chown",
    "--chown=USER[:GROUP]",
    "The owner of what is copied, by names of the image or by numbers; by default 0:0.",
);
const CHMOD: Entry =
    entry("chmod", "--chmod=MODE", "The mode of what is copied: octal, or symbolic as in `u=rwX,go=rX`.");
const LINK: Entry = entry(
    "link",
    "--link",
    "Copies into a layer of its own that does not depend on what is below, so that it stays cached when that changes.",
);
const EXCLUDE: Entry =
    entry("exclude", "--exclude=PATTERN", "Leaves out what the pattern matches. May be given several times.");
const COPY: [Entry; 6] = [
    entry(
        "from",
        "--from=STAGE|IMAGE",
        "Copies from a stage, by name or number, or from an image, instead of the context.",
    ),
    CHOWN,
    CHMOD,
    LINK,
    entry("parents", "--parents", "Keeps the directories of the sources; `/./` says from where on."),
    EXCLUDE,
];
const ADD: [Entry; 7] = [
    CHOWN,
    CHMOD,
    LINK,
    entry("keep-git-dir", "--keep-git-dir[=true|false]", "Keeps the `.git` directory of a git source."),
    entry("checksum", "--checksum=DIGEST", "What a URL's content or a git commit must be."),
    entry(
        "unpack",
        "--unpack[=true|false]",
        "Whether archives are unpacked: by default local ones are, downloaded ones are not.",
    ),
    EXCLUDE,
];
const HEALTHCHECK: [Entry; 5] = [
    entry("interval", "--interval=DURATION", "Between two checks; 30s by default."),
    entry("timeout", "--timeout=DURATION", "After which a check has failed; 30s by default."),
    entry("start-period", "--start-period=DURATION", "In which failures do not count; 0s by default."),
    entry("start-interval", "--start-interval=DURATION", "Between two checks in the start period; 5s by default."),
    entry("retries", "--retries=NUMBER", "How many checks in a row must fail; 3 by default."),
];

/// The flags of an instruction.
pub fn flags(instruction: &str) -> &'static [Entry] {
    match instruction {
        "FROM" => &FROM,
        "RUN" => &RUN,
        "COPY" => &COPY,
        "ADD" => &ADD,
        "HEALTHCHECK" => &HEALTHCHECK,
        _ => &[],
    }
}

/// The words that a flag's value can be.
pub fn flag_values(flag: &str) -> &'static [&'static str] {
    match flag {
        "network" => &["default", "none", "host"],
        "security" => &["sandbox", "insecure"],
        _ => &[],
    }
}

pub const MOUNT_TYPES: [Entry; 5] = [
    entry(
        "bind",
        "type=bind",
        "Files of the context, a stage or an image; read-only unless `rw` is given, and then changes are dropped.",
    ),
    entry("cache", "type=cache", "A directory that outlives the build, for package managers and compilers."),
    entry(
        "secret",
        "type=secret",
        "A secret of the build, as a file or a variable. It is in no layer and in no cache.",
    ),
    entry("ssh", "type=ssh", "The socket of an SSH agent."),
    entry("tmpfs", "type=tmpfs", "An empty directory in memory."),
];

pub const MOUNT_OPTIONS: [Entry; 14] = [
    entry("type", "type=bind|cache|secret|ssh|tmpfs", "What is mounted; `bind` by default."),
    entry("target", "target=PATH", "Where it is mounted; also `dst` and `destination`. Relative to WORKDIR."),
    entry("source", "source=PATH", "What of `from` is mounted; also `src`. For a secret its id."),
    entry(
        "from",
        "from=STAGE|IMAGE",
        "The stage, context or image that is mounted; by default the context. No variables.",
    ),
    entry("id", "id=NAME", "The name of a secret, an agent or a cache; a cache's is its target by default."),
    entry(
        "sharing",
        "sharing=shared|private|locked",
        "Whether steps use a cache at the same time, get one each, or wait for each other.",
    ),
    entry("required", "required", "Without the secret or the agent the step fails."),
    entry("env", "env=NAME", "The variable that holds the secret."),
    entry("mode", "mode=OCTAL", "The mode of a secret, a socket or a new cache."),
    entry("uid", "uid=NUMBER", "The owner of a secret, a socket or a new cache."),
    entry("gid", "gid=NUMBER", "The group of a secret, a socket or a new cache."),
    entry("size", "size=BYTES", "The most that a tmpfs holds, such as `64m`. Stands behind `type`."),
    entry("ro", "ro", "Read-only; also `readonly`."),
    entry("rw", "rw", "Writable; also `readwrite`."),
];

pub const SHARING: [&str; 3] = ["shared", "private", "locked"];

pub const DIRECTIVES: [Entry; 3] = [
    entry(
        "check",
        "# check=skip=RULE,...;experimental=RULE,...;error=true",
        "Which build checks count, and whether they fail the build.",
    ),
    entry("escape", "# escape=`", "The character that escapes and continues lines: `\\` or a backtick."),
    entry("syntax", "# syntax=IMAGE", "The frontend that BuildKit would use."),
];

/// What the values of platform ARGs are.
pub fn platform_arg(name: &str) -> Option<&'static str> {
    Some(match name {
        "BUILDPLATFORM" => "The platform that the build runs on, such as `linux/amd64`.",
        "BUILDOS" | "BUILDOSVERSION" | "BUILDARCH" | "BUILDVARIANT" => "A part of BUILDPLATFORM.",
        "TARGETPLATFORM" => "The platform that is built for, such as `linux/arm64`.",
        "TARGETOS" | "TARGETOSVERSION" | "TARGETARCH" | "TARGETVARIANT" => "A part of TARGETPLATFORM.",
        "TARGETSTAGE" => "The name of the stage that is built.",
        _ => return None,
    })
}
