//! The flags of `rbuild run`.

use crate::limits::LimitArgs;
use clap::Args;

/// What `run` and `exec` say of a process.
#[derive(Args)]
pub struct ProcessArgs {
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,

    /// Give the program a terminal
    #[arg(short, long)]
    pub tty: bool,

    /// Set a variable; without a value it is taken from the environment
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    /// User, or user:group, to run as, in place of the usual one
    #[arg(short, long)]
    pub user: Option<String>,

    /// Directory to run in, in place of the usual one
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
}

#[derive(Args)]
pub struct RunArgs {
    /// Name the container
    #[arg(long)]
    pub name: Option<String>,

    /// Run in the background, and print the container's id
    #[arg(short, long)]
    pub detach: bool,

    /// Remove the container when it has ended; it is kept otherwise, until `rbuild rm`
    #[arg(long)]
    pub rm: bool,

    #[command(flatten)]
    pub process: ProcessArgs,

    /// Set the variables of a file, one a line
    #[arg(long = "env-file", value_name = "FILE")]
    pub env_files: Vec<String>,

    /// Host name inside
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,

    /// Describe the container
    #[arg(short, long = "label", value_name = "NAME[=VALUE]")]
    pub labels: Vec<String>,

    /// Show a file or directory of the host inside
    #[arg(short, long = "volume", value_name = "SRC:DST[:ro]")]
    pub volumes: Vec<String>,

    /// Mount a file system in memory, such as /run or /run:size=64m
    #[arg(long, value_name = "DIR[:size=BYTES]")]
    pub tmpfs: Vec<String>,

    /// Let nothing be written but to volumes and file systems in memory
    #[arg(long)]
    pub read_only: bool,

    /// The program to run instead of the image's
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,

    /// The platform of the image to run
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", env = "DOCKER_DEFAULT_PLATFORM")]
    pub platform: Option<String>,

    /// Give a capability that containers do not have, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,

    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,

    /// default, pasta (one of its own that reaches out through pasta), host or none. The default is pasta with -p and for users other than
    /// root, and else the host's
    #[arg(long, default_value = "default", value_name = "MODE")]
    pub network: String,

    /// Lead a port of the host into the container's own network
    #[arg(short, long = "publish", value_name = "[IP:]HOSTPORT:PORT[/tcp|udp]")]
    pub ports: Vec<String>,

    #[command(flatten)]
    pub limits: LimitArgs,

    /// Name or id of an image, which is fetched if the store does not have it, and what to run in it: all that follows the image is the program's
    // One argument: flags end where it begins, also where the program's own look like them.
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "COMMAND"], num_args = 1..)]
    words: Vec<String>,
}

impl RunArgs {
    pub fn image(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    pub fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}
