//! System calls that a step may not make, by all the numbers that they have.

use super::{attempts, build};
use crate::harness::{Harness, is_root};

/// `clone3` answers as a kernel that does not know it, so that libraries fall back.
fn expected(name: &str) -> &'static str {
    if name == "clone3" { "ENOSYS" } else { "EPERM" }
}

#[test]
fn calls_beyond_the_profile_are_refused() {
    let harness = Harness::new();
    let text = "FROM hostile\nRUN attack calls\nUSER 33\nRUN attack calls\n";
    let confined = attempts(&build(&harness, text, &[]).ok());
    assert_eq!(confined.len(), 42, "{confined:?}");
    for (name, result) in &confined {
        assert_eq!(result, expected(name), "{name}");
    }
    // The control: that the attempts are good ones.
    let text = "FROM hostile\nRUN --security=insecure attack calls\n";
    let insecure = attempts(&build(&harness, text, &["--allow", "security.insecure"]).ok());
    for name in ["clone", "clone3", "unshare", "mount", "open_tree", "fsopen", "keyctl", "sethostname", "personality"] {
        assert_eq!(insecure[name], "DONE", "{name}");
    }
    if is_root() {
        assert_eq!(insecure["fanotify_init"], "DONE");
    }
    assert_ne!(insecure["delete_module"], "DONE");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_numbers_of_32_bit_programs_are_no_way_around() {
    let harness = Harness::new();
    let confined = attempts(&build(&harness, "FROM hostile\nRUN attack foreign-calls\n", &[]).ok());
    assert_eq!(confined.len(), 18, "{confined:?}");
    for (name, result) in &confined {
        // A kernel may have been built without the table.
        let is_call = name == "i386 getpid" && result == "DONE";
        assert!(is_call || result == "EPERM" || confined["i386 getpid"] == "ENOSYS", "{name}: {result}");
    }
    let text = "FROM hostile\nRUN --security=insecure attack foreign-calls\n";
    let insecure = attempts(&build(&harness, text, &["--allow", "security.insecure"]).ok());
    if insecure["i386 getpid"] == "DONE" {
        assert_eq!((&*insecure["i386 fsopen"], &*insecure["i386 mount"]), ("DONE", "DONE"));
    }
}

/// R1.7.2: neither set-id programs nor files with capabilities give more than the default set.
#[test]
fn programs_with_rights_give_no_more_than_the_default_ones() {
    let harness = Harness::new();
    let text = "FROM hostile\nRUN cp /bin/attack /bin/inheriting; cp /bin/attack /bin/setuid; chmod 4755 /bin/setuid; attack inheritable\n\
                USER 33\nRUN setuid capabilities; inheriting capabilities\n";
    let context = super::context(&harness, "attack", text);
    let mut command = match is_root() {
        // Capabilities that rbuild itself inherited must not be passed on.
        true => {
            let mut command = std::process::Command::new("setpriv");
            command
                .args(["--inh-caps=+sys_admin", "--"])
                .arg(crate::harness::binary())
                .env("RBUILD_ROOT", harness.path("store"));
            command.args(["build", "--progress=plain"]);
            command
        }
        false => harness.command(&["build", "--progress=plain"]),
    };
    let outcome = crate::harness::Outcome::of(command.arg(context).output().unwrap()).ok();
    let sets: Vec<_> = super::printed(&outcome).into_iter().filter(|line| line.starts_with("Cap")).collect();
    assert_eq!(sets.len(), 10, "{sets:?}");
    // The set-id program did get them.
    assert!(sets[2].ends_with("a80425fb"), "{sets:?}");
    for line in sets {
        let (set, value) = line.split_once(":\t").unwrap();
        let value = u64::from_str_radix(value, 16).unwrap();
        let most = if matches!(set, "CapInh" | "CapAmb") { 0 } else { 0xa804_25fb };
        assert_eq!(value & !most, 0, "{line}");
    }
}
