//! Processors, as ELF headers, OCI platforms and qemu call them.

/// How many bytes of a program say which processor it is for.
pub const HEADER: usize = 20;

/// A processor.
#[derive(Debug, PartialEq, Eq)]
pub struct Architecture {
    /// In OCI platforms.
    pub name: &'static str,
    /// `e_machine`.
    machine: u16,
    is_64_bit: bool,
    is_little_endian: bool,
    /// qemu's program for it is `qemu-` and this, built statically often with `-static`.
    pub qemu: &'static str,
}

const fn architecture(
    name: &'static str,
    machine: u16,
    bits: u8,
    is_little_endian: bool,
    qemu: &'static str,
) -> Architecture {
    Architecture { name, machine, is_64_bit: bits == 64, is_little_endian, qemu }
}

/// Machine numbers are those of the ELF specifications (`EM_*` in Linux's `include/uapi/linux/elf-em.h`), qemu's names those of its targets.
const ALL: [Architecture; 11] = [
    architecture("amd64", 62, 64, true, "x86_64"),
    architecture("386", 3, 32, true, "i386"),
    architecture("arm64", 183, 64, true, "aarch64"),
    architecture("arm", 40, 32, true, "arm"),
    architecture("riscv64", 243, 64, true, "riscv64"),
    architecture("s390x", 22, 64, false, "s390x"),
    architecture("ppc64le", 21, 64, true, "ppc64le"),
    architecture("ppc64", 21, 64, false, "ppc64"),
    architecture("loong64", 258, 64, true, "loongarch64"),
    architecture("mips64le", 8, 64, true, "mips64el"),
    architecture("mips64", 8, 64, false, "mips64"),
];

impl Architecture {
    pub fn all() -> impl Iterator<Item = &'static Architecture> {
        ALL.iter()
    }

    /// By the name in OCI platforms.
    pub fn named(name: &str) -> Option<&'static Architecture> {
        ALL.iter().find(|known| known.name == name)
    }

    /// That of a program, by its first bytes.
    pub fn of_program(header: &[u8]) -> Option<&'static Architecture> {
        let (mask, header) = (ALL.iter().map(Architecture::mask), header.get(..HEADER)?);
        let masked = |mask: [u8; HEADER]| std::array::from_fn::<u8, HEADER, _>(|index| header[index] & mask[index]);
        ALL.iter().zip(mask).find(|(known, mask)| masked(*mask) == known.magic()).map(|(known, _)| known)
    }

    /// What the headers of its programs have in common, where [`mask`](Architecture::mask) has ones: ELF's identification up to the version, the type
    /// "executable" and the machine (System V ABI, chapter 4).
    pub fn magic(&self) -> [u8; HEADER] {
        let half = |value: u16| if self.is_little_endian { value.to_le_bytes() } else { value.to_be_bytes() };
        let mut magic = [0; HEADER];
        magic[..4].copy_from_slice(b"\x7fELF");
        magic[4] = if self.is_64_bit { 2 } else { 1 };
        magic[5] = if self.is_little_endian { 1 } else { 2 };
        magic[6] = 1;
        magic[16..18].copy_from_slice(&half(2));
        magic[18..20].copy_from_slice(&half(self.machine));
        magic
    }

    /// The operating system's ABI and its version (bytes 7 to 15) do not matter, and type 3, which position-independent programs have, is as good as 2.
    pub fn mask(&self) -> [u8; HEADER] {
        let mut mask = [0xff; HEADER];
        mask[7..16].fill(0);
        mask[if self.is_little_endian { 16 } else { 17 }] = 0xfe;
        mask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_known_by_their_headers() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let host = oci::Platform::host();
        assert_eq!(Architecture::of_program(&own).unwrap().name, host.architecture);
        for known in Architecture::all() {
            let mut program = known.magic();
            assert_eq!(Architecture::of_program(&program), Some(known));
            // Position-independent, with an ABI of Linux's own.
            program[if known.is_little_endian { 16 } else { 17 }] = 3;
            program[7] = 3;
            assert_eq!(Architecture::of_program(&program), Some(known));
            assert_eq!(Architecture::named(known.name), Some(known));
            // An object file.
            program[if known.is_little_endian { 16 } else { 17 }] = 1;
            assert_eq!(Architecture::of_program(&program), None);
        }
        assert_eq!(Architecture::of_program(b"#!/bin/sh\necho this is a script"), None);
        assert_eq!(Architecture::of_program(b"\x7fELF"), None);
    }
}
