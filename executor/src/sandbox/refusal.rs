//! Why the kernel gives no user namespace, and what to do about it (R1.12.12).

use rustix::io::Errno;
use std::fs;

/// What can be seen of it.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    errno: Errno,
    /// `user.max_user_namespaces`.
    most: Option<u64>,
    /// Debian's `kernel.unprivileged_userns_clone`.
    clone_allowed: Option<u64>,
    /// Ubuntu's `kernel.apparmor_restrict_unprivileged_userns`.
    apparmor_restricts: Option<u64>,
    /// A filter of system calls is in force, as in a container.
    has_filter: bool,
    program: String,
}

impl Refusal {
    pub fn observe(errno: Errno) -> Refusal {
        let setting = |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Refusal {
            errno,
            most: setting("user/max_user_namespaces"),
            clone_allowed: setting("kernel/unprivileged_userns_clone"),
            apparmor_restricts: setting("kernel/apparmor_restrict_unprivileged_userns"),
            has_filter: status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])),
            program: std::env::current_exe().map_or("rbuild".into(), |path| path.display().to_string()),
        }
    }

    /// The commands that change it.
    pub fn advice(&self) -> String {
        let program = &self.program;
        match self.errno {
            Errno::NOSPC if self.most == Some(0) => {
                "they are switched off: `sudo sysctl -w user.max_user_namespaces=15000` switches them on".into()
            }
            Errno::NOSPC | Errno::USERS => format!(
                "there are too many of them, or one in another too often: `sudo sysctl -w user.max_user_namespaces={}` allows more",
                self.most.unwrap_or_default().max(15_000).saturating_mul(2)
            ),
            Errno::NOSYS | Errno::INVAL => "this kernel has none (CONFIG_USER_NS)".into(),
            _ if self.clone_allowed == Some(0) => {
                "only root may make them: `sudo sysctl -w kernel.unprivileged_userns_clone=1` lets everybody".into()
            }
            _ if self.apparmor_restricts.is_some_and(|value| value > 0) => format!(
                "AppArmor lets only programs with a profile use them: `printf 'abi <abi/4.0>,\\nprofile rbuild {program} \
                 flags=(unconfined) {{ userns, }}\\n' | sudo tee /etc/apparmor.d/rbuild && sudo apparmor_parser -r \
                 /etc/apparmor.d/rbuild` gives rbuild one, `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0` lets all"
            ),
            _ if self.has_filter => "the container forbids them: start it with `--security-opt seccomp=unconfined --security-opt \
                 apparmor=unconfined` (Docker, Podman), or with `seccompProfile: {type: Unconfined}` and `appArmorProfile: {type: \
                 Unconfined}` in its securityContext (Kubernetes)"
                .into(),
            _ => "a security module, a chroot or a map that lacks this user's ids may be why".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDINARY: Refusal = Refusal {
        errno: Errno::PERM,
        most: Some(7000),
        clone_allowed: None,
        apparmor_restricts: None,
        has_filter: false,
        program: String::new(),
    };

    #[test]
    fn each_cause_has_its_command() {
        let cases = [
            (
                Refusal { errno: Errno::NOSPC, most: Some(0), ..ORDINARY },
                "`sudo sysctl -w user.max_user_namespaces=15000`",
            ),
            (Refusal { errno: Errno::NOSPC, most: Some(20_000), ..ORDINARY }, "max_user_namespaces=40000`"),
            (Refusal { errno: Errno::INVAL, ..ORDINARY }, "CONFIG_USER_NS"),
            (Refusal { clone_allowed: Some(0), ..ORDINARY }, "kernel.unprivileged_userns_clone=1`"),
            (Refusal { clone_allowed: Some(1), has_filter: true, ..ORDINARY }, "--security-opt seccomp=unconfined"),
            // The namespace is there, but a capability is denied.
            (
                Refusal { errno: Errno::ACCESS, apparmor_restricts: Some(1), ..ORDINARY },
                "apparmor_restrict_unprivileged_userns=0`",
            ),
            (Refusal { apparmor_restricts: Some(0), ..ORDINARY }, "may be why"),
        ];
        for (refusal, command) in cases {
            let advice = refusal.advice();
            assert!(advice.contains(command), "{refusal:?}: {advice}");
        }
    }

    #[test]
    fn the_profile_is_for_the_program_where_it_lies() {
        let refusal = Refusal { apparmor_restricts: Some(1), program: "/opt/rbuild".into(), ..ORDINARY };
        assert!(refusal.advice().contains("profile rbuild /opt/rbuild flags=(unconfined) { userns, }"));
    }
}
