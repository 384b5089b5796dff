//! Formatting keeps the meaning and is done at once, and what is printed parses to the tree that was printed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parser::{Dockerfile, format, parse, print};

fuzz_target!(|source: &str| {
    let Ok(tree) = parse(source) else { return };
    // With debug assertions, as here, a formatter that is wrong fails instead of giving the source back.
    let formatted = format(source).expect("it parses");
    assert_eq!(format(&formatted).as_ref(), Ok(&formatted));
    if !has_quotes_and_markers(&tree) {
        let printed = print(&tree);
        let again = parse(&printed).unwrap_or_else(|errors| panic!("{errors:?}\n{printed:?}"));
        assert!(again.means_the_same_as(&tree), "{printed:?}");
    }
});

/// Quotes beside markers may change which here-documents the line has, which a tree cannot say.
fn has_quotes_and_markers(tree: &Dockerfile) -> bool {
    let mut instructions = tree.stages.iter().flat_map(|stage| &stage.instructions);
    instructions.any(|line| line.text.contains("<<") && line.text.contains(['\'', '"', '\\', '`']))
}
