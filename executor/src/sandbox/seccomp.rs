//! Docker's default seccomp profile (X1.70 to X1.81), as a program for the kernel.
//!
//! The program checks the architecture, and for each that it knows four calls whose arguments or answers matter; then it finds the number in a
//! balanced tree over ranges of allowed numbers. The tree matters: the kernel runs the program once for every number when it is installed, and a
//! chain of comparisons costs half a millisecond for each step of a build.

use super::Privileges;
use super::capabilities::Capabilities;
use super::child::last_errno;
use super::syscalls::native;
use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, sock_filter};
use std::collections::BTreeSet;

/// AUDIT_ARCH_X86_64, _I386 and _AARCH64 of `linux/audit.h`.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE_I386: u32 = 0x4000_0003;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Numbers of the x32 ABI, which has no table of its own here.
const X32: u32 = 0x4000_0000;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENT: u32 = 16;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const NOT_IMPLEMENTED: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
/// "Done", without having done anything.
const PRETEND: u32 = libc::SECCOMP_RET_ERRNO;

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const NEW_NAMESPACES: u32 = 0x7e02_0000;
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x20000, 0x20008, 0xffff_ffff];
const AF_ALG: u32 = 38;
const AF_VSOCK: u32 = 40;

/// Calls that change an owner or a user.
const OWNERSHIP: [i64; 9] = [
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setgroups,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
];
#[cfg(target_arch = "x86_64")]
const OWNERSHIP_HERE: [i64; 2] = [libc::SYS_chown, libc::SYS_lchown];
#[cfg(target_arch = "aarch64")]
const OWNERSHIP_HERE: [i64; 0] = [];

/// Installs the profile for this thread and all that it becomes.
pub(super) fn install(privileges: Privileges, capabilities: Capabilities) -> rustix::io::Result<()> {
    let mut program = program(privileges == Privileges::SingleId, capabilities);
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which is alive and as long as `len` says.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter) };
    match result {
        0 => Ok(()),
        // A kernel without seccomp runs without a filter (X1.70).
        _ if last_errno() == rustix::io::Errno::NOSYS => Ok(()),
        _ => Err(last_errno()),
    }
}

/// The calls of one architecture.
struct Abi {
    clone: u32,
    clone3: u32,
    socket: u32,
    personality: u32,
    ownership: Vec<u32>,
    allowed: BTreeSet<u32>,
}

impl Abi {
    fn native(capabilities: Capabilities) -> Abi {
        let numbers = |list: &[i64]| list.iter().filter_map(|number| u32::try_from(*number).ok()).collect::<Vec<_>>();
        let mut allowed = BTreeSet::new();
        for list in [native::ALLOWED, native::ALLOWED_HERE, native::ALLOWED_NEW] {
            allowed.extend(numbers(list));
        }
        for (_, list) in native::GATED.iter().filter(|(name, _)| capabilities.contains_named(name)) {
            allowed.extend(numbers(list));
        }
        Abi {
            clone: libc::SYS_clone as u32,
            clone3: libc::SYS_clone3 as u32,
            socket: libc::SYS_socket as u32,
            personality: libc::SYS_personality as u32,
            ownership: numbers(&[&OWNERSHIP[..], &OWNERSHIP_HERE[..]].concat()),
            allowed,
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn i386(capabilities: Capabilities) -> Abi {
        use super::syscalls::i386;
        let mut allowed: BTreeSet<u32> = i386::ALLOWED.iter().flat_map(|(start, end)| *start..=*end).collect();
        for (_, list) in i386::GATED.iter().filter(|(name, _)| capabilities.contains_named(name)) {
            allowed.extend(*list);
        }
        Abi {
            clone: i386::CLONE,
            clone3: i386::CLONE3,
            socket: i386::SOCKET,
            personality: i386::PERSONALITY,
            ownership: i386::OWNERSHIP.to_vec(),
            allowed,
        }
    }

    /// Decides about the number that is loaded; ends in returns.
    fn program(&self, single_id: bool, capabilities: Capabilities) -> Vec<sock_filter> {
        let mut program = Vec::new();
        let mut allowed = self.allowed.clone();
        if capabilities.contains_named("SYS_ADMIN") {
            allowed.extend([self.clone, self.clone3]);
        } else {
            // ENOSYS has the C library fall back to clone (X1.77).
            program.extend([equals(self.clone3, 1), ret(NOT_IMPLEMENTED)]);
            special(&mut program, self.clone, vec![and(NEW_NAMESPACES), jump(BPF_JEQ, 0, 0, 1), ret(ALLOW), ret(DENY)]);
        }
        special(
            &mut program,
            self.socket,
            vec![jump(BPF_JEQ, AF_ALG, 1, 0), jump(BPF_JEQ, AF_VSOCK, 0, 1), ret(DENY), ret(ALLOW)],
        );
        let mut personality: Vec<sock_filter> = Vec::new();
        for (index, persona) in PERSONALITIES.iter().enumerate() {
            personality.push(jump(BPF_JEQ, *persona, (PERSONALITIES.len() - index) as u8, 0));
        }
        personality.extend([ret(DENY), ret(ALLOW)]);
        special(&mut program, self.personality, personality);
        if single_id {
            // In a namespace with a single id every change of owner or user would fail, and with it package managers that make them for no
            // effect: there is only one id to change to.
            for number in &self.ownership {
                program.extend([equals(*number, 1), ret(PRETEND)]);
            }
        }
        program.extend(tree(&ranges(&allowed)));
        program
    }
}

fn program(single_id: bool, capabilities: Capabilities) -> Vec<sock_filter> {
    let mut program = vec![load(OFFSET_ARCHITECTURE)];
    #[cfg(target_arch = "x86_64")]
    {
        // A program of 32 bits must not get around the profile (R1.8.10).
        let i386 = Abi::i386(capabilities).program(single_id, capabilities);
        program.extend([jump(BPF_JEQ, ARCHITECTURE_I386, 1, 0), skip(i386.len() as u32 + 1), load(OFFSET_NUMBER)]);
        program.extend(i386);
    }
    program.extend([jump(BPF_JEQ, ARCHITECTURE, 1, 0), ret(DENY), load(OFFSET_NUMBER)]);
    program.extend([jump(BPF_JGE, X32, 0, 1), ret(DENY)]);
    program.extend(Abi::native(capabilities).program(single_id, capabilities));
    program
}

/// Checks the first argument of one call; the block must end in returns.
fn special(program: &mut Vec<sock_filter>, number: u32, block: Vec<sock_filter>) {
    program.push(equals(number, block.len() as u8 + 1));
    program.push(load(OFFSET_ARGUMENT));
    program.extend(block);
}

/// Numbers as ranges, ends inclusive.
fn ranges(numbers: &BTreeSet<u32>) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, end)) if *end + 1 == *number => *end = *number,
            _ => ranges.push((*number, *number)),
        }
    }
    ranges
}

fn tree(ranges: &[(u32, u32)]) -> Vec<sock_filter> {
    match ranges {
        [] => vec![ret(DENY)],
        [(start, end)] => {
            vec![jump(BPF_JGE, *start, 0, 2), jump(BPF_JGE, end + 1, 1, 0), ret(ALLOW), ret(DENY)]
        }
        ranges => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let (left, right_tree) = (tree(left), tree(right));
            let mut tree = match u8::try_from(left.len()) {
                Ok(length) => vec![jump(BPF_JGE, right[0].0, length, 0)],
                // Conditional jumps reach 255 instructions; beyond that an unconditional one carries on.
                Err(_) => vec![jump(BPF_JGE, right[0].0, 0, 1), skip(left.len() as u32)],
            };
            tree.extend(left);
            tree.extend(right_tree);
            tree
        }
    }
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0)
}

fn and(mask: u32) -> sock_filter {
    instruction(BPF_ALU | BPF_AND | BPF_K, mask, 0, 0)
}

fn ret(action: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, action, 0, 0)
}

fn jump(condition: u32, value: u32, if_true: u8, if_false: u8) -> sock_filter {
    instruction(BPF_JMP | condition | BPF_K, value, if_true, if_false)
}

fn skip(instructions: u32) -> sock_filter {
    instruction(BPF_JMP, instructions, 0, 0)
}

/// Skips `otherwise` instructions unless the number is this one.
fn equals(number: u32, otherwise: u8) -> sock_filter {
    jump(BPF_JEQ, number, 0, otherwise)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn decide(program: &[sock_filter], architecture: u32, number: u32, argument: u32) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let skip = |condition: bool| usize::from(if condition { jt } else { jf });
            match u32::from(code) {
                c if c == BPF_LD | BPF_W | BPF_ABS => {
                    accumulator = match k {
                        OFFSET_NUMBER => number,
                        OFFSET_ARCHITECTURE => architecture,
                        _ => argument,
                    }
                }
                c if c == BPF_ALU | BPF_AND | BPF_K => accumulator &= k,
                c if c == BPF_RET | BPF_K => return k,
                c if c == BPF_JMP | BPF_JEQ | BPF_K => at += skip(accumulator == k),
                c if c == BPF_JMP | BPF_JGE | BPF_K => at += skip(accumulator >= k),
                c if c == BPF_JMP => at += k as usize,
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    fn default_program() -> Vec<sock_filter> {
        program(false, Capabilities::default())
    }

    #[test]
    fn the_tree_allows_exactly_the_list() {
        let program = default_program();
        let special = [libc::SYS_clone, libc::SYS_clone3, libc::SYS_socket, libc::SYS_personality];
        let listed = Abi::native(Capabilities::default()).allowed;
        for number in (0..600_u32).filter(|number| !special.contains(&i64::from(*number))) {
            let expected = if listed.contains(&number) { ALLOW } else { DENY };
            assert_eq!(decide(&program, ARCHITECTURE, number, 0), expected, "{number}");
        }
        assert!(program.len() < 1000, "{}", program.len());
    }

    #[test]
    fn arguments_count_where_they_matter() {
        let program = default_program();
        let decide = |number: i64, argument| decide(&program, ARCHITECTURE, number as u32, argument);
        assert_eq!(decide(libc::SYS_clone3, 0), NOT_IMPLEMENTED, "X1.77");
        assert_eq!(decide(libc::SYS_clone, 0x11), ALLOW);
        assert_eq!(decide(libc::SYS_clone, 0x1000_0000), DENY);
        assert_eq!(decide(libc::SYS_socket, 2), ALLOW);
        assert_eq!(decide(libc::SYS_socket, AF_ALG), DENY, "X1.75");
        assert_eq!(decide(libc::SYS_socket, AF_VSOCK), DENY);
        assert_eq!(decide(libc::SYS_personality, 0x20008), ALLOW);
        assert_eq!(decide(libc::SYS_personality, 0x40000), DENY, "X1.76");
        for forbidden in [libc::SYS_mount, libc::SYS_unshare, libc::SYS_setns, libc::SYS_bpf, libc::SYS_keyctl] {
            assert_eq!(decide(forbidden, 0), DENY, "X1.78, X1.81");
        }
        assert_eq!(decide(libc::SYS_chroot, 0), ALLOW);
    }

    #[test]
    fn capabilities_bring_their_calls() {
        let one = |name| Capabilities::named(name).unwrap();
        let decide =
            |capabilities, number: i64| decide(&program(false, capabilities), ARCHITECTURE, number as u32, 0x1000_0000);
        for call in [libc::SYS_mount, libc::SYS_unshare, libc::SYS_clone, libc::SYS_clone3] {
            assert_eq!(decide(one("SYS_ADMIN"), call), ALLOW, "R1.8.9");
        }
        assert_eq!(decide(one("SYS_TIME"), libc::SYS_settimeofday), ALLOW);
        assert_eq!(decide(one("SYS_TIME"), libc::SYS_mount), DENY);
        assert_eq!(decide(Capabilities::NONE, libc::SYS_chroot), DENY);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_program_of_32_bits_has_the_same_profile() {
        let program = default_program();
        let decide = |number, argument| decide(&program, ARCHITECTURE_I386, number, argument);
        // read, execve, clock_gettime64, and mount, setns, unshare, keyctl, ptrace with its own number.
        for allowed in [3, 11, 403, 26] {
            assert_eq!(decide(allowed, 0), ALLOW, "{allowed}");
        }
        for denied in [21, 346, 310, 288, 169] {
            assert_eq!(decide(denied, 0), DENY, "{denied}");
        }
        assert_eq!(decide(435, 0), NOT_IMPLEMENTED);
        assert_eq!((decide(120, 0x11), decide(120, 0x1000_0000)), (ALLOW, DENY));
        assert_eq!((decide(359, 2), decide(359, AF_ALG)), (ALLOW, DENY));
    }

    #[test]
    fn other_architectures_are_refused() {
        let program = default_program();
        assert_eq!(decide(&program, 0x4000_0028, libc::SYS_read as u32, 0), DENY);
        assert_eq!(decide(&program, ARCHITECTURE, X32 | libc::SYS_read as u32, 0), DENY);
    }

    #[test]
    fn a_single_id_pretends_to_change_owners() {
        let program = program(true, Capabilities::default());
        assert_eq!(decide(&program, ARCHITECTURE, libc::SYS_fchownat as u32, 0), PRETEND);
        assert_eq!(decide(&program, ARCHITECTURE, libc::SYS_read as u32, 0), ALLOW);
    }
}
