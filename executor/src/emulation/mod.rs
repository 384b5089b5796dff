//! Steps for other processors than this machine's (R9.10 to R9.14).
//!
//! The kernel starts a program of another processor with an emulator that is registered with [`binfmt_misc`](binfmt), and so does it in a
//! sandbox if the registration has the flag F. Without root the program has a user namespace of its own, and so handlers of its own: there,
//! emulators that are installed are registered when the first step needs one and the machine has none. What is registered on the machine is never
//! changed.
//!
//! What is said here of a platform is advice for when a step could not be started: an image may be for another platform than it is taken for, and a
//! registration need not be visible, so a step is tried in any case. Only a processor that is too old for a variant is certain.

mod architecture;
mod binfmt;
mod variant;

pub use architecture::{Architecture, HEADER};

use crate::sandbox::{Exit, StartError};
use binfmt::{Handler, Private};
use oci::Platform;
use std::sync::{Mutex, PoisonError};

/// Why programs of a platform do not run here, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrunnable {
    #[error("no support for running processes with {platform} platform, supported: {supported}")]
    Variant { platform: String, supported: String },
    #[error("it is for {0}, and rbuild runs programs of Linux only")]
    System(String),
    #[error("it is for {platform}, and there is no emulator of this processor for {host}")]
    Unknown { platform: String, host: String },
    #[error("it is for {platform}, and this machine ({host}) has no emulator for that: {advice}")]
    NoEmulator { platform: String, host: String, advice: String },
    #[error(
        "it is for {platform}, and this machine ({host}) has an emulator for that whose registration lacks the flag F, \
         so that it would have to be inside the image: {advice}"
    )]
    WithoutF { platform: String, host: String, advice: String },
}

/// Emulators for this program's steps.
pub struct Emulation {
    /// The program has entered a user namespace that is its own.
    owns_namespace: bool,
    private: Mutex<Option<Private>>,
}

impl Emulation {
    pub(crate) fn new(owns_namespace: bool) -> Self {
        Emulation { owns_namespace, private: Mutex::default() }
    }

    /// Sees to it that programs of `platform` can run, as far as that can be done.
    pub fn provide(&self, platform: &Platform) -> Result<(), Unrunnable> {
        let host = Platform::host();
        if platform.os != host.os {
            return Err(Unrunnable::System(platform.to_string()));
        }
        if platform.architecture == host.architecture {
            return variant::check(platform);
        }
        if is_native(&platform.architecture, &host) {
            return Ok(());
        }
        let Some(architecture) = Architecture::named(&platform.architecture) else {
            return Err(Unrunnable::Unknown { platform: platform.to_string(), host: host.to_string() });
        };
        let mut private = self.private.lock().unwrap_or_else(PoisonError::into_inner);
        let registered = match private.as_ref() {
            Some(private) if private.has(architecture) => return Ok(()),
            // It hides the machine's.
            Some(_) => Handler::Unknown,
            None => binfmt::registered(architecture),
        };
        if registered == Handler::Usable {
            return Ok(());
        }
        let path: Vec<_> = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
        let emulator = binfmt::emulator(architecture, &path);
        let advice = match (emulator, self.owns_namespace && private.is_none()) {
            (Some(_), true) => {
                // All at once: what is registered hides all that the machine has.
                let others = Architecture::all().filter(|other| !is_native(other.name, &host));
                let emulators = others.filter_map(|other| Some((other, binfmt::emulator(other, &path)?)));
                match Private::register(&emulators.collect::<Vec<_>>()) {
                    Ok(registered) if registered.has(architecture) => {
                        *private = Some(registered);
                        return Ok(());
                    }
                    Ok(_) => register_advice(architecture),
                    Err(error) => format!(
                        "the kernel does not let rbuild register one for itself ({error}; Linux can since 6.7), so {}",
                        register_advice(architecture)
                    ),
                }
            }
            (Some(emulator), false) => {
                let emulator = emulator.display();
                format!(
                    "{emulator} is installed and not registered with the kernel: run `systemctl restart systemd-binfmt` as root"
                )
            }
            (None, true) => format!(
                "install qemu-{}-static, for which `apt-get install qemu-user-static` is enough on Debian and Ubuntu",
                architecture.qemu
            ),
            (None, false) => register_advice(architecture),
        };
        let (platform, host) = (platform.to_string(), host.to_string());
        Err(match registered {
            Handler::WithoutF => Unrunnable::WithoutF { platform, host, advice },
            _ => Unrunnable::NoEmulator { platform, host, advice },
        })
    }
}

/// What the processor runs by itself.
fn is_native(architecture: &str, host: &Platform) -> bool {
    architecture == host.architecture
        || matches!((host.architecture.as_str(), architecture), ("amd64", "386") | ("arm64", "arm"))
}

fn register_advice(architecture: &Architecture) -> String {
    format!(
        "install and register one, with `apt-get install qemu-user-static` on Debian and Ubuntu, or with `docker run \
         --privileged --rm tonistiigi/binfmt --install {}`",
        architecture.name
    )
}

/// Why a command did not start, if it is because of its platform. `unrunnable` is what is known of `platform`, for which it was meant.
pub fn why_not_started(exit: &Exit, platform: &Platform, unrunnable: Option<&Unrunnable>) -> Option<String> {
    let program = match (exit.start_error?, unrunnable) {
        (StartError::WrongFormat(program), _) => program,
        // The emulator is not in the image.
        (StartError::NotFound, Some(Unrunnable::WithoutF { .. })) => None,
        _ => return None,
    };
    Some(match (program, unrunnable) {
        (Some(program), _) if program.name != platform.architecture => {
            let name = program.name;
            format!(
                "it is for linux/{name} and not for {platform}: use --platform=linux/{name}, or an image for {platform}"
            )
        }
        (_, Some(unrunnable)) => unrunnable.to_string(),
        (Some(program), None) => {
            format!("it is for linux/{}, which this machine ({}) does not run", program.name, Platform::host())
        }
        (None, None) => "it is neither a program for Linux nor a script that begins with `#!`".into(),
    })
}
