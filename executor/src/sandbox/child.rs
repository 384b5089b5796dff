//! Process 1 of a sandbox, from its birth to exec.

use super::bench::Bench;
use super::cgroup::Group;
use super::protocol::{Reply, Request, RequestNetwork, Security, from_memory, send_reply};
use super::{Privileges, Rlimit, RlimitName, no_core_files, rootfs, seccomp, working_directory};
use rustix::io::Errno;
use rustix::process::{Gid, Signal, Uid, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, CapabilitySets, LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use std::convert::Infallible;
use std::ffi::CString;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// A step of the preparation that failed.
pub(super) struct Failure {
    pub step: String,
    pub reason: String,
}

pub(super) type Result<T> = std::result::Result<T, Failure>;

pub(super) fn failed(step: impl Into<String>) -> impl FnOnce(Errno) -> Failure {
    let step = step.into();
    move |errno| Failure { step, reason: std::io::Error::from(errno).to_string() }
}

/// The first part of the preparation, which takes no request: joins the control group, and leaves the host's files.
pub(super) fn bench(privileges: Privileges, is_insecure: bool, group: Option<&Group>) -> Result<Bench> {
    die_with_parent()?;
    if let Some(group) = group {
        group.join()?;
    }
    // Entered after joining, so that the group looks like the root from inside.
    // SAFETY: the process has one thread, and no descriptor table is taken apart.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWCGROUP) }
        .map_err(failed("entering a cgroup namespace"))?;
    Bench::new(privileges, is_insecure, group)
}

/// Does not return: the command takes over, or the process ends after saying why it did not. The descriptors are the request's, as they came.
pub(super) fn run(descriptors: Vec<OwnedFd>, bench: Result<Bench>, privileges: Privileges) -> ! {
    let mut descriptors = descriptors.into_iter();
    if let (Some(memory), Some(channel)) = (descriptors.next(), descriptors.next()) {
        let request = from_memory(&memory)
            .map_err(|error| Failure { step: "reading the request".into(), reason: error.to_string() });
        drop(memory);
        let done = request.and_then(|request| prepare_and_exec(&request, &bench?, descriptors, &channel, privileges));
        let Err(Failure { step, reason }) = done;
        send_reply(channel.as_fd(), &Reply::Failed { step, reason }, &[]);
    }
    std::process::exit(255)
}

fn prepare_and_exec(
    request: &Request,
    bench: &Bench,
    mut descriptors: impl Iterator<Item = OwnedFd>,
    channel: &OwnedFd,
    privileges: Privileges,
) -> Result<Infallible> {
    start_session()?;
    // The last one says that the command has taken over, or never will: exec and exit close it.
    let (Some(root), Some(stdin), Some(stdout), Some(stderr), Some(_until_exec)) =
        (descriptors.next(), descriptors.next(), descriptors.next(), descriptors.next(), descriptors.next())
    else {
        return Err(Failure { step: "reading the request".into(), reason: "descriptors are missing".into() });
    };
    rustix::system::sethostname(request.hostname.as_bytes()).map_err(failed("setting the host name"))?;
    match request.network {
        RequestNetwork::Host => {}
        RequestNetwork::None => {
            // SAFETY: the process has one thread, and no descriptor table is taken apart.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
                .map_err(failed("making a network of its own"))?;
            loopback_up()?;
        }
        RequestNetwork::Joined => join_network(descriptors.next())?,
    }
    // A core file would be part of the step's layer, or lie with the host's crash handler.
    if request.has_secrets() {
        no_core_files().map_err(failed("forbidding core files"))?;
    }
    let stubs = rootfs::build(request, &root, bench, &mut descriptors, privileges)?;
    let secrets = secret_env(request, descriptors.next())?;
    send_reply(channel.as_fd(), &Reply::Stubs(stubs), &[]);
    if bench.shares_proc {
        send_reply(channel.as_fd(), &Reply::SharesProc, &[]);
    }
    let terminal = request.terminal.map(|(rows, columns)| open_terminal(rows, columns, channel)).transpose()?;
    rustix::process::umask(rustix::fs::Mode::WGRP | rustix::fs::Mode::WOTH);
    working_directory::make(&request.cwd, &request.user)?;
    working_directory::enter(&request.cwd)?;
    if request.readonly_root {
        rootfs::make_readonly()?;
    }
    set_up_streams(terminal.as_ref(), [&stdin, &stdout, &stderr])?;
    take_over(request, &secrets, channel, privileges)
}

/// The standard streams: the sandbox's terminal, where it has one.
pub(super) fn set_up_streams(terminal: Option<&OwnedFd>, streams: [&OwnedFd; 3]) -> Result<()> {
    let [input, output, errors] = terminal.map_or(streams, |terminal| [terminal; 3]);
    rustix::stdio::dup2_stdin(input).map_err(failed("setting up standard input"))?;
    rustix::stdio::dup2_stdout(output).map_err(failed("setting up standard output"))?;
    rustix::stdio::dup2_stderr(errors).map_err(failed("setting up standard error"))
}

/// Gives up what the command may not have, and becomes it.
pub(super) fn take_over(
    request: &Request,
    secrets: &[CString],
    channel: &OwnedFd,
    privileges: Privileges,
) -> Result<Infallible> {
    set_limits(request)?;
    become_user(request, privileges)?;
    // The change of user has taken it back.
    die_with_parent()?;
    reset_signals();
    exec(request, secrets, channel)
}

/// The zygote is the guarantee; this covers its own sudden end.
pub(super) fn die_with_parent() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(failed("tying the process to its parent"))
}

/// Away from the terminal that rbuild was started at, which would be the sandbox's `/dev/tty`, and from rbuild's process group, to which `kill 0`
/// sends its signal beyond all namespaces.
pub(super) fn start_session() -> Result<()> {
    rustix::process::setsid().map(drop).map_err(failed("starting a session"))
}

fn join_network(namespace: Option<OwnedFd>) -> Result<()> {
    let step = "joining the network";
    let Some(namespace) = namespace else {
        return Err(Failure { step: step.into(), reason: "its descriptor is missing".into() });
    };
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).map_err(failed(step))
}

pub(super) fn loopback_up() -> Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
        .map_err(failed("opening a socket"))?;
    // SAFETY: an all-zero ifreq is valid, its name is ended by a zero byte, and the kernel reads no more than the structure.
    let result = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    };
    match result {
        -1 => Err(failed("bringing lo up")(last_errno())),
        _ => Ok(()),
    }
}

/// Opens a terminal in the sandbox's own devpts, sends its master home and makes the slave the controlling terminal.
pub(super) fn open_terminal(rows: u16, columns: u16, channel: &OwnedFd) -> Result<OwnedFd> {
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    let master =
        rustix::fs::open("/dev/ptmx", flags, rustix::fs::Mode::empty()).map_err(failed("opening a terminal"))?;
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).map_err(failed("setting the terminal's size"))?;
    unlockpt(&master).map_err(failed("unlocking the terminal"))?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .map_err(failed("opening the terminal"))?;
    rustix::process::ioctl_tiocsctty(&slave).map_err(failed("taking the terminal"))?;
    send_reply(channel.as_fd(), &Reply::Terminal, &[master.as_fd()]);
    Ok(slave)
}

/// Drops what Docker's default drops, in the order in which each step is still allowed.
fn become_user(request: &Request, privileges: Privileges) -> Result<()> {
    let user = &request.user;
    if privileges == Privileges::SingleId && (user.uid != 0 || user.gid != 0) {
        return Err(Failure {
            step: format!("becoming user {}:{}", user.uid, user.gid),
            reason:
                "this user namespace maps a single id: give the user ranges in /etc/subuid and /etc/subgid and install \
                     newuidmap (Debian: uidmap)"
                    .into(),
        });
    }
    let capabilities = match request.security {
        Security::Confined(capabilities) => {
            drop_from_bounding_set(capabilities.set())?;
            Some(capabilities)
        }
        Security::Insecure => None,
    };
    if privileges != Privileges::SingleId {
        let mut groups: Vec<u32> = vec![user.gid];
        groups.extend(user.groups.iter().filter(|group| **group != user.gid));
        let groups: Vec<Gid> = groups.into_iter().map(Gid::from_raw).collect();
        rustix::thread::set_thread_groups(&groups).map_err(failed("setting the groups"))?;
    }
    // Without no_new_privs the filter needs CAP_SYS_ADMIN, which the next steps drop (X1.6).
    if let Some(capabilities) = capabilities {
        seccomp::install(privileges, capabilities).map_err(failed("installing the seccomp profile"))?;
    } else {
        // So that the change of user takes none away.
        rustix::thread::set_keep_capabilities(true).map_err(failed("keeping the capabilities"))?;
    }
    if capabilities.is_some() {
        forget_inheritable_capabilities()?;
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let outside = || {
        failed(format!("becoming user {}:{} (are the ids mapped in /etc/subuid and /etc/subgid?)", user.uid, user.gid))
    };
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(outside())?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(outside())?;
    match capabilities {
        Some(capabilities) if user.uid == 0 => {
            let set = capabilities.set();
            let sets = CapabilitySets { effective: set, permitted: set, inheritable: CapabilitySet::empty() };
            rustix::thread::set_capabilities(None, sets).map_err(failed("setting the capabilities"))
        }
        // Another user has none, until it runs a set-id program: then those of the bounding set.
        Some(_) => Ok(()),
        None => keep_all_capabilities(),
    }
}

/// Those that rbuild was started with: a file may turn them into permitted ones, whatever the bounding set says (CVE-2022-24769).
fn forget_inheritable_capabilities() -> Result<()> {
    let step = || failed("setting the capabilities");
    let sets = rustix::thread::capabilities(None).map_err(step())?;
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..sets })
        .map_err(step())
}

fn drop_from_bounding_set(kept: CapabilitySet) -> Result<()> {
    for number in 0..=63 {
        let Some(capability) = CapabilitySet::from_bits(1 << number) else { continue };
        if !kept.contains(capability) {
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                // Beyond the kernel's last capability.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(failed("dropping capabilities")(errno)),
            }
        }
    }
    Ok(())
}

/// All that the process is permitted, in all five sets, so that programs of any user have them (R1.10.3).
fn keep_all_capabilities() -> Result<()> {
    let step = || failed("setting the capabilities");
    let permitted = rustix::thread::capabilities(None).map_err(step())?.permitted;
    let sets = CapabilitySets { effective: permitted, permitted, inheritable: permitted };
    rustix::thread::set_capabilities(None, sets).map_err(step())?;
    for number in 0..=63 {
        if let Some(capability) = CapabilitySet::from_bits(1 << number).filter(|one| permitted.contains(*one)) {
            rustix::thread::configure_capability_in_ambient_set(capability, true).map_err(step())?;
        }
    }
    Ok(())
}

/// R1.7.4. Before the change of user: raising a hard limit takes a capability.
fn set_limits(request: &Request) -> Result<()> {
    // That of core files is set already for a step with secrets, and is not the user's to raise.
    let is_set = |limit: &&Rlimit| limit.resource == RlimitName::Core && request.has_secrets();
    for limit in request.limits.rlimits.iter().filter(|limit| !is_set(limit)) {
        let value = rustix::process::Rlimit { current: limit.soft, maximum: limit.hard };
        rustix::process::setrlimit(limit.resource.resource(), value).map_err(failed(format!(
            "setting the limit {:?} to {}",
            limit.resource,
            shown(limit.hard)
        )))?;
    }
    Ok(())
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

fn reset_signals() {
    // The kernel's struct sigaction: handler, flags, restorer and mask. All zero is the default action.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // By the kernel's own call, since libc hides the two that it uses itself, which may have been inherited as ignored.
        // SAFETY: the structure is at least as long as the kernel's, and no old one is asked for; numbers that cannot be set are refused.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, std::ptr::null_mut::<u64>(), 8_usize)
        };
    }
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
}

/// The variables that hold secrets.
fn secret_env(request: &Request, memory: Option<OwnedFd>) -> Result<Vec<CString>> {
    let Some(memory) = memory.filter(|_| request.secret_env) else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    let mut file = std::fs::File::from(memory);
    file.rewind()
        .and_then(|()| file.read_to_end(&mut bytes))
        .map_err(|error| Failure { step: "reading secrets".into(), reason: error.to_string() })?;
    Ok(bytes
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|entry| CString::from_vec_with_nul(entry.into()).ok())
        .collect())
}

/// X1.2.
fn exec(request: &Request, secrets: &[CString], channel: &OwnedFd) -> Result<Infallible> {
    let Some(name) = request.args.first().filter(|name| !name.is_empty()) else {
        return Err(Failure { step: "starting the command".into(), reason: "there is no command to run".into() });
    };
    let c_string = |text: &String| {
        CString::new(text.as_bytes()).map_err(|_| Failure {
            step: "starting the command".into(),
            reason: "an argument or variable holds a zero byte".into(),
        })
    };
    let args: Vec<CString> = request.args.iter().map(c_string).collect::<Result<_>>()?;
    let mut env: Vec<CString> = request.env.iter().map(c_string).collect::<Result<_>>()?;
    env.extend_from_slice(secrets);
    let mut denied: Option<(CString, Errno)> = None;
    for candidate in candidates(name, &env) {
        let Ok(path) = CString::new(candidate) else { continue };
        let errno = exec_one(&path, &args, &env);
        match errno {
            Errno::NOENT | Errno::NOTDIR => {}
            errno => {
                denied.get_or_insert((path, errno));
            }
        }
    }
    let (reply, reason) = match denied {
        Some((path, Errno::NOEXEC)) => (Reply::WrongFormat(header(&path)), "exec format error".to_owned()),
        Some((_, errno)) => (Reply::NotExecutable, std::io::Error::from(errno).to_string()),
        None if name.contains('/') => (Reply::NotFound, format!("stat {name}: no such file or directory")),
        None => (Reply::NotFound, "executable file not found in $PATH".to_owned()),
    };
    let mut stderr = std::io::stderr();
    let _ = writeln!(stderr, "exec: {name:?}: {reason}");
    send_reply(channel.as_fd(), &reply, &[]);
    std::process::exit(if matches!(reply, Reply::NotFound) { 127 } else { 126 })
}

/// The first bytes of a program, or of the one that a script asks for.
fn header(program: &CString) -> Vec<u8> {
    let read = |path: &std::path::Path| {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map(|file| file.take(256));
        let _ = file.and_then(|mut file| file.read_to_end(&mut bytes));
        bytes
    };
    let path = |bytes: &[u8]| std::path::PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    let mut bytes = read(&path(program.as_bytes()));
    let interpreter = bytes.strip_prefix(b"#!").and_then(|line| line.split(|byte| *byte == b'\n').next());
    if let Some(line) = interpreter {
        let word = line.trim_ascii().split(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
        bytes = read(&path(word));
    }
    bytes.truncate(crate::emulation::HEADER);
    bytes
}

fn candidates(name: &str, env: &[CString]) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let path = env.iter().rev().find_map(|entry| entry.to_str().ok()?.strip_prefix("PATH=")).unwrap_or_default();
    path.split(':').map(|directory| format!("{}/{name}", if directory.is_empty() { "." } else { directory })).collect()
}

fn exec_one(path: &CString, args: &[CString], env: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        pointers
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: marks descriptors to be closed by exec; nothing in this process uses them afterwards but the reply channel.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    // SAFETY: both lists end with a null pointer and outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    last_errno()
}

pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
