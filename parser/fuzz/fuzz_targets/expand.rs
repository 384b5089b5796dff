//! Any word expands or fails, whatever the variables hold, and what comes out is bounded.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parser::Expander;
use parser::expand::MAX_LENGTH;
use std::collections::BTreeMap;

// The first line is the value of `v`, the second that of `w`, the rest the word.
fuzz_target!(|input: &str| {
    let mut parts = input.splitn(3, '\n');
    let mut part = || parts.next().unwrap_or_default();
    let scope = BTreeMap::from([("v".to_owned(), part().to_owned()), ("w".to_owned(), part().to_owned())]);
    let word = part();
    for escape in ['\\', '`'] {
        let expander = Expander::new(escape);
        for expansion in [expander.word(word, &scope), expander.heredoc(word, &scope)].into_iter().flatten() {
            assert!(expansion.text.len() <= word.len() + MAX_LENGTH);
        }
        let _ = expander.words(word, &scope);
        expander.display(word, &scope);
    }
});
