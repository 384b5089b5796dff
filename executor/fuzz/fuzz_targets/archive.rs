//! Any bytes are an archive or are none. Reading takes little memory, whatever sizes they claim, and unpacking stays in its root.

#![no_main]

mod place;

use libfuzzer_sys::fuzz_target;
use place::Place;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// More than one entry's extension headers take when they are parsed, and than bzip2's decoder.
const MAX_MEMORY: usize = 64 << 20;
/// Bytes that are read of what a bomb decompresses to.
const MAX_READ: u64 = 8 << 20;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fuzz_target!(|data: &[u8]| {
    let mut data = data.to_vec();
    seal(&mut data);
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    let _ = executor::fileop::read_archive(data.as_slice(), MAX_READ);
    let taken = PEAK.load(Relaxed) - before;
    assert!(taken < MAX_MEMORY, "{taken} bytes of memory");
    Place::new().unpack(&data);
});

/// Makes the checksums of headers right: no fuzzer guesses them.
fn seal(data: &mut [u8]) {
    for block in data.chunks_exact_mut(512).filter(|block| block[257..].starts_with(b"ustar")) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
}
