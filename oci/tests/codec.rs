//! Compression: other programs read what we write, we read what they write, and bytes do not depend on threads.

use oci::codec::{Compression, Encoder, HashingReader, HashingWriter, ReadAhead, decoder};
use oci::{Digest, MediaType};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// Text that compresses to about a third.
fn input(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut out = Vec::with_capacity(len);
    while out.len() < len {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        out.extend_from_slice(format!("line {} of {}\n", state >> 8, out.len() / 4096).as_bytes());
    }
    out.truncate(len);
    out
}

fn encode(compression: Compression, input: &[u8], chunk: usize) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new(), compression);
    for part in input.chunks(chunk) {
        encoder.write_all(part).unwrap();
    }
    encoder.finish().unwrap()
}

fn decode(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Vec::new();
    decoder(bytes)?.read_to_end(&mut out)?;
    Ok(out)
}

fn pipe(program: &str, argument: &str, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program).arg(argument).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{program} {argument}");
    output.stdout
}

const ALL: [Compression; 3] = [Compression::None, Compression::GZIP, Compression::ZSTD];

#[test]
fn what_was_encoded_is_decoded() {
    for compression in ALL {
        for len in [0, 1, 3, 1000, 1 << 20, (1 << 20) + 1, 5_000_000] {
            let input = input(len);
            let encoded = encode(compression, &input, 100_000);
            assert!(decode(&encoded).unwrap() == input, "{compression:?}, {len} bytes");
        }
    }
}

#[test]
fn bytes_do_not_depend_on_threads_or_writes() {
    let input = input(5_500_000);
    for compression in ALL {
        let run = |threads, chunk| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| encode(compression, &input, chunk))
        };
        let one = run(1, 512);
        assert!(run(3, 4_000_000) == one && encode(compression, &input, 77_777) == one, "{compression:?}");
    }
}

/// All threads of a pool encode, so that none is free to compress for them.
#[test]
fn encoding_on_every_thread_of_a_pool_ends() {
    use rayon::prelude::*;
    let input = input(6_000_000);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let all: Vec<Vec<u8>> =
        pool.install(|| (0..4).into_par_iter().map(|_| encode(Compression::GZIP, &input, 1 << 16)).collect());
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn gzip_and_zstd_programs_agree() {
    let input = input(3_300_000);
    let gz = encode(Compression::GZIP, &input, 1 << 16);
    assert_eq!(gz[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, gz[8], gz[9]], "no name, no time (R4.4.3)");
    pipe("gzip", "-t", &gz);
    assert!(pipe("gzip", "-dc", &gz) == input);
    assert!(pipe("zstd", "-dc", &encode(Compression::ZSTD, &input, 1 << 16)) == input);
    assert!(pipe("zstd", "-dc", &encode(Compression::ZSTD, b"small", 1)) == b"small");
    assert!(decode(&pipe("gzip", "-c", &input)).unwrap() == input);
    assert!(decode(&pipe("zstd", "-c", &input)).unwrap() == input);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &pipe("zstd", "-c", b"x")].concat();
    assert_eq!(decode(&skippable).unwrap(), b"x");
}

/// X4.43
#[test]
fn truncated_data_is_an_error() {
    let input = input(2_500_000);
    for compression in [Compression::GZIP, Compression::ZSTD] {
        let encoded = encode(compression, &input, 1 << 16);
        for cut in [3, 20, encoded.len() / 2, encoded.len() - 1] {
            assert!(cut < 4 || decode(&encoded[..cut]).is_err(), "{compression:?} cut at {cut}");
        }
        let mut flipped = encoded.clone();
        flipped[encoded.len() / 2] ^= 1;
        assert!(decode(&flipped).is_err(), "{compression:?} with a flipped bit");
    }
}

#[test]
fn reading_ahead_gives_the_same_bytes_and_errors() {
    let input = input(5_000_000);
    let encoded = encode(Compression::GZIP, &input, 1 << 16);
    let torn = encoded[..encoded.len() / 2].to_vec();
    let mut out = Vec::new();
    ReadAhead::new(std::io::Cursor::new(input.clone())).read_to_end(&mut out).unwrap();
    assert!(out == input);
    let decoder = decoder(std::io::Cursor::new(torn)).unwrap();
    assert!(ReadAhead::new(decoder).read_to_end(&mut Vec::new()).is_err());
}

#[test]
fn digests_are_computed_on_the_way() {
    let mut writer = HashingWriter::new(Vec::new());
    writer.write_all(b"ab").unwrap();
    writer.write_all(b"c").unwrap();
    assert_eq!(writer.finish(), (b"abc".to_vec(), Digest::of(b"abc"), 3));
    let mut reader = HashingReader::new(&b"abc"[..]);
    std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    let (_, digest, len) = reader.finish();
    assert_eq!((digest, len), (Digest::of(b"abc"), 3));
}

/// R4.5
#[test]
fn media_types() {
    assert_eq!(Compression::GZIP.media_type(false), MediaType::ImageLayerGzip);
    assert_eq!(Compression::None.media_type(false), MediaType::ImageLayer);
    assert_eq!(Compression::ZSTD.media_type(false), MediaType::ImageLayerZstd);
    let docker = Compression::GZIP.media_type(true);
    assert_eq!(docker.to_string(), "application/vnd.docker.image.rootfs.diff.tar.gzip");
}
