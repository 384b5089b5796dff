use crate::error::{CliError, Result};
use cache::{ContainerDirectory, Store};
use clap::Args;
use executor::container::Container;
use executor::container::log::LogReader;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;

#[derive(Args)]
pub struct LogsArgs {
    /// Go on until the container ends
    #[arg(short, long)]
    pub follow: bool,

    /// Begin before the last lines: a number, or all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", allow_hyphen_values = true)]
    pub tail: String,

    /// Show when each line was written
    #[arg(short, long)]
    pub timestamps: bool,

    /// Name or id of a container
    pub container: String,
}

pub fn run(args: &LogsArgs, store: &Store) -> Result<ExitCode> {
    let tail = match args.tail.as_str() {
        // As docker has it: what is no number of lines is all.
        "all" => None,
        text if text.starts_with('-') => None,
        text => Some(
            text.parse().map_err(|_| CliError::Usage(format!("invalid --tail {text:?}: expected a number or all")))?,
        ),
    };
    let container = Container::find(store, &args.container)?;
    let path = container.directory.log();
    if !path.exists() {
        if container.record.remove {
            let name = container.called();
            return Err(CliError::Failed(format!(
                "the container {name} has no log: it runs in the foreground with --rm"
            )));
        }
        return Ok(ExitCode::SUCCESS);
    }
    match copy(args, tail, &container) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn copy(args: &LogsArgs, tail: Option<usize>, container: &Container) -> io::Result<()> {
    let watch = if args.follow { Some(watch(&container.directory)?) } else { None };
    let mut log = LogReader::open(&container.directory.log(), tail, args.timestamps)?;
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    loop {
        // In this order: what was written before the end is there after it.
        let is_last = watch.is_none() || !container.directory.is_running();
        log.copy(&mut stdout, &mut stderr)?;
        match &watch {
            Some(watch) if !is_last => wait(watch)?,
            _ => return Ok(()),
        }
    }
}

/// Sees the log grow, and the lock being closed by the last who holds it.
fn watch(directory: &ContainerDirectory) -> io::Result<File> {
    let watch = inotify::init(CreateFlags::CLOEXEC)?;
    let events = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::MOVE_SELF;
    inotify::add_watch(&watch, directory.path(), events)?;
    Ok(watch.into())
}

/// Not for ever: the kernel tells of a closed lock a moment before it is free.
fn wait(mut watch: &File) -> io::Result<()> {
    const A_WHILE: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
    match poll(&mut [PollFd::new(watch, PollFlags::IN)], Some(&A_WHILE)) {
        Ok(0) | Err(Errno::INTR) => Ok(()),
        Ok(_) => watch.read(&mut [0; 4096]).map(|_| ()),
        Err(errno) => Err(errno.into()),
    }
}
