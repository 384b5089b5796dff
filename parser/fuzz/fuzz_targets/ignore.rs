//! Any ignore file parses or fails; a walk and a single question give the same answer, and pruning loses nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parser::IgnoreFile;

// The first line is a path, the rest the file.
fuzz_target!(|input: &str| {
    let (path, text) = input.split_once('\n').unwrap_or((input, ""));
    let Ok(file) = IgnoreFile::parse(text) else { return };
    let matcher = file.matcher();
    let mut state = matcher.root_state();
    let mut prefix = String::new();
    let mut pruned = false;
    for name in path.split('/').filter(|name| !matches!(*name, "" | "." | "..")).take(64) {
        if !prefix.is_empty() {
            prefix.push('/');
        }
        prefix.push_str(name);
        let (excluded, next) = matcher.step(&state, prefix.as_bytes());
        assert_eq!(excluded, matcher.is_excluded(prefix.as_bytes()), "{prefix:?} {:?}", file.patterns());
        assert!(!pruned || excluded, "{prefix:?} is below a directory that may be pruned: {:?}", file.patterns());
        pruned |= excluded && !matcher.may_reinclude_below(prefix.as_bytes());
        state = next;
    }
});
