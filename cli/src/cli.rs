//! The command line. Doc comments of the arguments are the help texts.

use crate::commands::*;
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// Builds OCI images from Dockerfiles: no daemon, no root.
///
/// Without a command, `rbuild` builds: `rbuild -t user/name .`
#[derive(Parser)]
#[command(name = "rbuild", version, max_term_width = 100)]
pub struct Cli {
    /// Where images and caches are kept
    #[arg(long, global = true, env = "RBUILD_ROOT", value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// Say more about what happens
    #[arg(short = 'D', long, global = true)]
    pub debug: bool,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Build an image from a Dockerfile (the default command)
    Build(Box<build::BuildArgs>),
    /// Build, and open a shell where a step fails: build --debug-on-failure
    Debug(Box<build::BuildArgs>),
    /// Find what is wrong with a Dockerfile, without building it
    ///
    /// The exit code is 1 where a build would fail: with errors, and with warnings if `# check=error=true` or the build
    /// argument BUILDKIT_DOCKERFILE_CHECK makes them errors. Other warnings do not fail the command. `rbuild build --check`
    /// fails with any warning, as docker buildx does.
    Check(check::CheckArgs),
    /// List what a build can be given: arguments, secrets, caches
    Outline(outline::OutlineArgs),
    /// List the stages of a Dockerfile
    Targets(targets::TargetsArgs),
    /// Write down which versions of its base images, URLs and repositories a Dockerfile is built with
    ///
    /// The file is rbuild.lock beside the Dockerfile, or NAME.lock beside one of another name. Builds take what it says, whatever tags and
    /// branches stand for by then. What the Dockerfile names and the file lacks is added, what it does not name any more is removed;
    /// with --target, --build-arg or --build-context nothing is removed.
    Lock(Box<lock::LockArgs>),
    /// Draw the stages and steps of a Dockerfile, with what became of them in the last build
    ///
    /// Nothing is built. As text, for Graphviz (`rbuild graph --format dot | dot -Tpdf`), for Mermaid, which many sites show in Markdown, as SVG, or as JSON.
    Graph(graph::GraphArgs),
    /// Lay out Dockerfiles, without changing what they mean
    Fmt(fmt::FmtArgs),
    /// Serve editors: a language server on standard input and output
    Lsp(lsp::LspArgs),
    /// List the images of the store
    Images(images::ImagesArgs),
    /// Give an image another name
    Tag(tag::TagArgs),
    /// Remove names, and images without any
    Rmi(rmi::RmiArgs),
    /// Show images and containers as JSON
    Inspect(inspect::InspectArgs),
    /// Show how an image came to be
    History(history::HistoryArgs),
    /// Show what the build cache holds
    Du(du::DuArgs),
    /// Remove build cache; images with names stay
    Prune(prune::PruneArgs),
    /// Fetch an image from a registry
    Pull(pull::PullArgs),
    /// Send an image to a registry
    Push(push::PushArgs),
    /// Run a program in an image
    Run(Box<run::RunArgs>),
    /// List containers
    Ps(ps::PsArgs),
    /// Show what a container wrote
    Logs(logs::LogsArgs),
    /// Run a program in a running container
    Exec(exec::ExecArgs),
    /// Stop containers: by the image's signal, and by KILL if that does not help
    Stop(stop::StopArgs),
    /// Send containers a signal
    Kill(kill::KillArgs),
    /// Start containers that have ended once more, in the background
    Start(start::StartArgs),
    /// Wait until containers end, and print their exit codes
    Wait(wait::WaitArgs),
    /// Remove containers
    Rm(rm::RmArgs),
    /// Make an image of what a container changed
    Commit(commit::CommitArgs),
    /// Keep a container running; for rbuild's own use
    #[command(hide = true)]
    Supervise(supervise::SuperviseArgs),
    /// Make an image of a root file system in a tar
    Import(import::ImportArgs),
    /// Read images from an archive
    Load(load::LoadArgs),
    /// Write images to an archive
    Save(save::SaveArgs),
    /// Show the version
    Version(version::VersionArgs),
}

const COMMANDS: [&str; 34] = [
    "lock",
    "debug",
    "graph",
    "fmt",
    "lsp",
    "build",
    "check",
    "outline",
    "targets",
    "images",
    "tag",
    "rmi",
    "inspect",
    "history",
    "du",
    "prune",
    "pull",
    "push",
    "run",
    "ps",
    "logs",
    "exec",
    "stop",
    "kill",
    "start",
    "wait",
    "rm",
    "commit",
    "supervise",
    "import",
    "load",
    "save",
    "version",
    "help",
];
const GLOBAL_WITH_VALUE: [&str; 1] = ["--root"];

/// Puts `build` in front of arguments that do not begin with a command. A directory that is called like a command is `./images`.
pub fn with_default_command(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let args: Vec<OsString> = args.collect();
    let mut at = 1;
    while let Some(arg) = args.get(at).and_then(|arg| arg.to_str()) {
        if arg == "debug" && args.get(at + 1).is_some_and(|next| next == "build") {
            // As docker buildx has it.
            return [&args[..=at], &args[at + 2..]].concat();
        }
        if COMMANDS.contains(&arg) || matches!(arg, "-h" | "--help" | "-V" | "--version") {
            return args;
        }
        if GLOBAL_WITH_VALUE.contains(&arg) {
            at += 2;
        } else if arg.starts_with("--root=") || arg == "--debug" || arg == "-D" {
            at += 1;
        } else {
            break;
        }
    }
    if at >= args.len() {
        // Nothing at all: the help says more than an error would.
        return args.into_iter().chain(["--help".into()]).collect();
    }
    let mut args = args;
    args.insert(at, "build".into());
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn build_is_the_default() {
        let with = |args: &[&str]| {
            let args = with_default_command(args.iter().map(OsString::from));
            args.iter().map(|arg| arg.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(with(&["rbuild", "-t", "a", "."]), "rbuild build -t a .");
        assert_eq!(with(&["rbuild", "--root", "/x", "."]), "rbuild --root /x build .");
        assert_eq!(with(&["rbuild", "images"]), "rbuild images");
        assert_eq!(with(&["rbuild", "./images"]), "rbuild build ./images");
        assert_eq!(with(&["rbuild", "--root=/x", "images"]), "rbuild --root=/x images");
        assert_eq!(with(&["rbuild", "--help"]), "rbuild --help");
        assert_eq!(with(&["rbuild", "debug", "build", "-t", "a", "."]), "rbuild debug -t a .");
        assert_eq!(with(&["rbuild", "debug", "./build"]), "rbuild debug ./build");
    }

    #[test]
    fn flags_stand_before_and_after_the_context() {
        let cli = Cli::try_parse_from(with_default_command(
            ["rbuild", "--tag=a", ".", "--target", "x", "--build-arg", "K=V"].iter().map(OsString::from),
        ))
        .unwrap();
        let Command::Build(build) = cli.command else { panic!("not a build") };
        assert_eq!((build.target().ok().flatten(), build.tags.as_slice()), (Some("x"), &["a".to_owned()][..]));
    }
    #[test]
    fn a_shell_s_stage_is_no_context() {
        let build = |args: &[&str]| {
            let args = with_default_command(["rbuild"].iter().chain(args).map(OsString::from));
            let Command::Build(build) = Cli::try_parse_from(args).map_err(|error| error.to_string())?.command else {
                return Err("not a build".into());
            };
            let text = |error: crate::error::CliError| error.to_string();
            Ok::<_, String>((
                build.context().map_err(text)?.to_str().unwrap().to_owned(),
                build.target().map_err(text)?.map(str::to_owned),
            ))
        };
        let of = |context: &str, stage: Option<&str>| Ok((context.to_owned(), stage.map(str::to_owned)));
        assert_eq!(build(&["--shell", "dev", "."]), of(".", Some("dev")));
        assert_eq!(build(&[".", "--shell=dev"]), of(".", Some("dev")));
        assert_eq!(build(&["--shell", "."]), of(".", None));
        assert_eq!(build(&[".", "--shell"]), of(".", None));
        assert_eq!(build(&["--shell", "--target=dev", "."]), of(".", Some("dev")));
        assert!(build(&["--shell=a", "--target=b", "."]).unwrap_err().contains("different stages"));
        assert!(build(&["--shell"]).unwrap_err().contains("context"));
        assert!(build(&["-t", "x"]).unwrap_err().contains("required"));
        assert!(build(&["--shell=a", "--push", "."]).is_err());
    }
}
