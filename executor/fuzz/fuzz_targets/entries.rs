//! Archives of all kinds of entries, whose names and links get in each other's way, are unpacked within their root.

#![no_main]

mod place;

use libfuzzer_sys::fuzz_target;
use place::Place;

// A line is an entry: its type, its name, and after a tab its link or data, or the number of a device, `1:3`. `@` is the directory that
// the root lies in.
fuzz_target!(|input: &[u8]| {
    let place = Place::new();
    let outer = place.path("");
    let mut archive = Vec::new();
    for line in input.split(|b| *b == b'\n').take(64) {
        let Some((kind, rest)) = line.split_first() else { continue };
        let mut parts = rest.splitn(2, |b| *b == b'\t').map(|part| {
            let outer = outer.as_os_str().as_encoded_bytes();
            part.split(|b| *b == b'@').collect::<Vec<_>>().join(outer)
        });
        let mut part = || parts.next().unwrap_or_default();
        add(&mut archive, *kind, &part(), &part());
    }
    place.unpack(&archive);
});

fn add(archive: &mut Vec<u8>, kind: u8, name: &[u8], content: &[u8]) {
    let is_link = matches!(kind, b'1' | b'2');
    for (kind, text, room) in [(b'L', name, 100), (b'K', content, if is_link { 100 } else { usize::MAX })] {
        if text.len() > room {
            block(archive, kind, b"long", b"", text);
        }
    }
    match kind {
        b'1' | b'2' => block(archive, kind, name, content, b""),
        b'3' | b'4' => {
            let mut numbers = content.split(|b| *b == b':');
            let at = archive.len();
            block(archive, kind, name, b"", b"");
            for field in [329, 337] {
                let number = numbers.next().unwrap_or_default();
                let number = &number[..number.len().min(8)];
                archive[at + field..][..number.len()].copy_from_slice(number);
            }
            seal(&mut archive[at..]);
        }
        _ => block(archive, kind, name, b"", content),
    }
}

fn block(archive: &mut Vec<u8>, kind: u8, name: &[u8], link: &[u8], data: &[u8]) {
    let at = archive.len();
    archive.resize(at + 512, 0);
    let header = &mut archive[at..];
    let cut = |text: &[u8]| text.len().min(100);
    header[..cut(name)].copy_from_slice(&name[..cut(name)]);
    header[100..107].copy_from_slice(b"0000755");
    header[124..135].copy_from_slice(format!("{:011o}", data.len()).as_bytes());
    header[156] = kind;
    header[157..157 + cut(link)].copy_from_slice(&link[..cut(link)]);
    header[257..265].copy_from_slice(b"ustar  \0");
    seal(header);
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header[..512].iter().map(|b| u32::from(*b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
