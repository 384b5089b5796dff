use crate::app::App;
use crate::definition;
use crate::error::{CliError, Result};
use clap::Args;
use executor::emulation::why_not_started;
use executor::mount;
use executor::network::DefaultNetwork;
use executor::sandbox::{
    Container, ContainerMount, Dns, Limits, MountSource, Network, PortMapping, Process, Security, StartError, Stdio,
};
use executor::source::image::Images;
use executor::users;
use rustix::fs::FileType;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use solver::event::EventSink;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};

#[derive(Args)]
pub struct RunArgs {
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,

    /// Give the program a terminal
    #[arg(short, long)]
    pub tty: bool,

    /// Set a variable; without a value it is taken from the environment
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    /// User, or user:group, to run as
    #[arg(short, long)]
    pub user: Option<String>,

    /// Directory to run in
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,

    /// Show a file or directory of the host inside
    #[arg(short, long = "volume", value_name = "SRC:DST[:ro]")]
    pub volumes: Vec<String>,

    /// The program to run instead of the image's
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,

    /// The platform of the image to run
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", env = "DOCKER_DEFAULT_PLATFORM")]
    pub platform: Option<String>,

    /// Remove the container afterwards (always the case: none is kept)
    #[arg(long)]
    pub rm: bool,

    /// default, pasta (one of its own that reaches out through pasta), host or none. The default is pasta with -p and for users other than
    /// root, and else the host's
    #[arg(long, default_value = "default", value_name = "MODE")]
    pub network: String,

    /// Lead a port of the host into the container's own network
    #[arg(short, long = "publish", value_name = "[IP:]HOSTPORT:PORT[/tcp|udp]")]
    pub ports: Vec<String>,

    /// Name or id of an image; it is fetched if the store does not have it
    pub image: String,

    /// What to run in it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Exit codes as Docker's (R10.4).
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

pub fn run(args: RunArgs, app: &App) -> Result<ExitCode> {
    if args.tty && !isatty(std::io::stdin()) {
        return Err(CliError::Usage("the input device is not a TTY: leave -t out".into()));
    }
    let images = app.images(false)?;
    let runtime = app.runtime()?;
    let code = runtime.block_on(run_in(&args, app, &images));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    app.store.empty_trash();
    Ok(ExitCode::from(code?))
}

async fn run_in(args: &RunArgs, app: &App, images: &Images) -> Result<u8> {
    let platform = definition::platforms(args.platform.as_slice())?.into_iter().next();
    let (reference, resolved) = app.resolve(images, &args.image, platform.as_ref()).await?;
    let platform = resolved.config.platform();
    let unrunnable = app.launcher.emulation().provide(&platform).err();
    let stack = images.stack(&reference.to_string(), &resolved.manifest)?;
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    images.unpack(&app.snapshots, &stack, "", &EventSink::new(sender)).await?;
    receiver.close();
    // What the program writes goes with it.
    let draft = app.snapshots.draft(&stack)?;
    let config = &resolved.config.config;
    let entrypoint = match &args.entrypoint {
        Some(program) if program.is_empty() => Vec::new(),
        Some(program) => vec![program.clone()],
        None => config.entrypoint.clone().unwrap_or_default(),
    };
    let command = match (args.command.is_empty(), &args.entrypoint) {
        (false, _) => args.command.clone(),
        (true, None) => config.cmd.clone().unwrap_or_default(),
        (true, Some(_)) => Vec::new(),
    };
    let program: Vec<String> = entrypoint.into_iter().chain(command).collect();
    if program.is_empty() {
        return Err(CliError::Usage(format!("the image {} has no command: give one", args.image)));
    }
    let user = args.user.as_deref().unwrap_or(&config.user);
    let identity = users::process_identity(draft.root.as_fd(), user)?;
    let mut env: Vec<String> = config.env.clone();
    for text in &args.env {
        let entry = match text.split_once('=') {
            Some(_) => Some(text.clone()),
            None => std::env::var(text).ok().map(|value| format!("{text}={value}")),
        };
        let name = text.split('=').next().unwrap_or_default();
        env.retain(|known| known.split('=').next() != Some(name));
        env.extend(entry);
    }
    let has = |env: &[String], name: &str| env.iter().any(|entry| entry.split('=').next() == Some(name));
    if !has(&env, "HOME") {
        env.push(format!("HOME={}", identity.home));
    }
    if args.tty && !has(&env, "TERM") {
        env.push(format!("TERM={}", std::env::var("TERM").unwrap_or_else(|_| "xterm".into())));
    }
    let cwd = args.workdir.clone().unwrap_or_else(|| config.working_dir.clone());
    let container = Container {
        secret_env: None,
        root: rustix::io::fcntl_dupfd_cloexec(&draft.root, 0)?,
        args: program,
        env,
        cwd: if cwd.starts_with('/') { cwd } else { format!("/{cwd}") },
        user: identity,
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        network: network(args, app).await?,
        security: Security::default(),
        limits: Limits::default(),
        readonly_root: false,
        mounts: args.volumes.iter().map(|volume| bind(volume)).collect::<Result<_>>()?,
        extra_hosts: Vec::new(),
        dns: Dns::default(),
        root_point: app.store.empty_directory(),
        scratch_point: app.store.root().join("trash"),
    };
    let stdio = match (args.tty, args.interactive) {
        (true, _) => {
            let (rows, columns) = tcgetwinsize(std::io::stdin()).map_or((0, 0), |size| (size.ws_row, size.ws_col));
            Stdio::Terminal { rows, columns }
        }
        (false, true) => Stdio::Inherit { stdin: true },
        (false, false) => Stdio::Inherit { stdin: false },
    };
    // Before the program starts: until then, a signal would end rbuild alone.
    let signals = Signals::listen()?;
    let mut process = app.launcher.launch(container, stdio)?;
    let terminal = if args.tty { Some(Terminal::connect(process.terminal().await?)?) } else { None };
    let exit = wait(&mut process, terminal.as_ref(), signals).await?;
    drop(terminal);
    if let Some(reason) = why_not_started(&exit, &platform, unrunnable.as_ref()) {
        eprintln!("error: {}: exec format error: {reason}", args.image);
    }
    Ok(match exit.start_error {
        Some(StartError::NotFound) => NOT_FOUND,
        Some(StartError::NotExecutable | StartError::WrongFormat(_)) => NOT_EXECUTABLE,
        None => u8::try_from(exit.code).unwrap_or(255),
    })
}

/// `--network` and `-p`.
async fn network(args: &RunArgs, app: &App) -> Result<Network> {
    let ports: Vec<PortMapping> =
        args.ports.iter().map(|text| text.parse().map_err(CliError::Usage)).collect::<Result<_>>()?;
    let must_be_isolated = match args.network.as_str() {
        "default" | "" => !ports.is_empty(),
        "pasta" => true,
        mode @ ("host" | "none") if !ports.is_empty() => {
            return Err(CliError::Usage(format!(
                "-p needs a network of the container's own: it cannot go with --network={mode}"
            )));
        }
        "host" => return Ok(Network::Host),
        "none" => return Ok(Network::None),
        other => {
            let modes = "expected default, pasta, host or none";
            return Err(CliError::Usage(format!("invalid network mode {other:?}: {modes}")));
        }
    };
    if !must_be_isolated && app.default_network() == DefaultNetwork::Host {
        return Ok(Network::Host);
    }
    match app.launcher.isolated_network(&ports, &app.store.root().join("trash")).await {
        Ok(namespace) => Ok(Network::Joined(Arc::new(namespace))),
        Err(error) if must_be_isolated => {
            Err(CliError::Failed(format!("cannot give the container a network of its own: {error}")))
        }
        Err(error) => {
            eprintln!("note: the container has the host's network, as there is no isolated one: {error}");
            Ok(Network::Host)
        }
    }
}

/// `SRC:DST[:ro|rw]`.
fn bind(volume: &str) -> Result<ContainerMount> {
    let invalid = || CliError::Usage(format!("invalid volume {volume:?}: expected SRC:DST[:ro]"));
    let parts: Vec<&str> = volume.split(':').collect();
    let (source, target, readonly) = match parts.as_slice() {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        _ => return Err(invalid()),
    };
    if !target.starts_with('/') || *target == "/" || source.is_empty() {
        return Err(invalid());
    }
    let path = Path::new(source)
        .canonicalize()
        .map_err(|error| CliError::Usage(format!("cannot use the volume {source:?}: {error}")))?;
    let root = mount::open_directory(Path::new("/"))?;
    let mount = mount::bind(root.as_fd(), &path.to_string_lossy())?;
    let is_directory = FileType::from_raw_mode(rustix::fs::fstat(&mount)?.st_mode) == FileType::Directory;
    Ok(ContainerMount { target: (*target).to_owned(), readonly, source: MountSource::Detached { mount, is_directory } })
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    resize: Signal,
}

impl Signals {
    fn listen() -> Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            resize: signal(SignalKind::window_change())?,
        })
    }
}

/// Waits for the end, passing signals on. The second one of a kind that the program does not heed ends it.
async fn wait(
    process: &mut Process,
    terminal: Option<&Terminal>,
    mut signals: Signals,
) -> Result<executor::sandbox::Exit> {
    let mut asked = false;
    loop {
        let number = tokio::select! {
            exit = process.wait() => return Ok(exit?),
            _ = signals.interrupt.recv() => 2,
            _ = signals.terminate.recv() => 15,
            _ = signals.resize.recv() => {
                if let Some(terminal) = terminal {
                    terminal.resize();
                }
                continue;
            }
        };
        process.signal(if std::mem::replace(&mut asked, true) { 9 } else { number })?;
    }
}

/// The user's terminal, raw while the program has one of its own.
struct Terminal {
    master: OwnedFd,
    before: Termios,
}

impl Terminal {
    fn connect(master: OwnedFd) -> Result<Terminal> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        raw.make_raw();
        let terminal = Terminal { master, before };
        // It may have changed since the start.
        terminal.resize();
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        let (input, output) = (terminal.master.try_clone()?, terminal.master.try_clone()?);
        // They end with the program: reading fails when it closes its terminal, and the process exits.
        std::thread::spawn(move || std::io::copy(&mut std::io::stdin(), &mut std::fs::File::from(input)));
        std::thread::spawn(move || {
            let mut output = std::fs::File::from(output);
            let mut buffer = [0; 8192];
            use std::io::{Read, Write};
            while let Ok(length) = output.read(&mut buffer)
                && length > 0
            {
                let mut stdout = std::io::stdout().lock();
                if stdout.write_all(&buffer[..length]).and_then(|()| stdout.flush()).is_err() {
                    break;
                }
            }
        });
        Ok(terminal)
    }

    fn resize(&self) {
        if let Ok(size) = tcgetwinsize(std::io::stdin()) {
            let _ = tcsetwinsize(&self.master, size);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // What the program wrote last should be shown before the terminal is given back.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}
