//! A small diff of words.

use super::WordChange;

/// Larger tables are not made: what differs is then shown as a whole.
const MOST_CELLS: usize = 250_000;
/// Words beside a change that are shown with it.
const AROUND: usize = 2;
const MOST_CHANGES: usize = 8;
const MOST_CHARACTERS: usize = 200;

/// What became of the words of `old` in `new`, with a few words around each change; none for equal texts. Where white space or continuations alone differ,
/// that is one change.
pub fn changes(old: &str, new: &str) -> Vec<WordChange> {
    let mut changes = Vec::new();
    if old != new && words(old) == words(new) {
        changes.push(WordChange { old: shortened(old), new: shortened(new) });
    }
    let (old, new) = (words(old), words(new));
    for (from, to) in hunks(&old, &new) {
        if changes.len() == MOST_CHANGES {
            break;
        }
        let around = |words: &[&str], at: Range| {
            let range = at.0.saturating_sub(AROUND)..(at.1 + AROUND).min(words.len());
            shortened(&words[range].join(" "))
        };
        changes.push(WordChange { old: around(&old, from), new: around(&new, to) });
    }
    changes
}

/// The words of an instruction.
pub fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().filter(|word| !matches!(*word, "\\" | "`")).collect()
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MOST_CHARACTERS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

type Range = (usize, usize);

/// The ranges of words that differ; those that are so near that their surroundings overlap are one.
fn hunks(old: &[&str], new: &[&str]) -> Vec<(Range, Range)> {
    let start = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[start..], &new[start..]);
    let end = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let (old_middle, new_middle) = (&old_rest[..old_rest.len() - end], &new_rest[..new_rest.len() - end]);
    if old_middle.is_empty() && new_middle.is_empty() {
        return Vec::new();
    }
    let mut hunks: Vec<(Range, Range)> = Vec::new();
    let mut at = (0, 0);
    let pairs = common(old_middle, new_middle);
    let ends = [(old_middle.len(), new_middle.len())];
    for (i, j) in pairs.into_iter().chain(ends) {
        if at != (i, j) {
            let hunk = ((start + at.0, start + i), (start + at.1, start + j));
            match hunks.last_mut() {
                Some((from, to)) if hunk.0.0 - from.1 <= 2 * AROUND => (from.1, to.1) = (hunk.0.1, hunk.1.1),
                _ => hunks.push(hunk),
            }
        }
        at = (i + 1, j + 1);
    }
    hunks
}

/// A longest common subsequence, as pairs of positions.
fn common(old: &[&str], new: &[&str]) -> Vec<(usize, usize)> {
    let width = new.len() + 1;
    if old.len().saturating_mul(new.len()) > MOST_CELLS {
        return Vec::new();
    }
    let mut lengths = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            lengths[i * width + j] = match old[i] == new[j] {
                true => lengths[(i + 1) * width + j + 1] + 1,
                false => lengths[(i + 1) * width + j].max(lengths[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            pairs.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if lengths[(i + 1) * width + j] >= lengths[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown() {
        let shown = |old: &str, new: &str| {
            let changes = changes(old, new).into_iter().map(|change| (change.old, change.new));
            changes.collect::<Vec<_>>()
        };
        let pair = |old: &str, new: &str| (old.to_owned(), new.to_owned());
        assert_eq!(shown("RUN make -j2", "RUN make -j4"), [pair("RUN make -j2", "RUN make -j4")]);
        assert_eq!(shown("RUN  a \\\n  b", "RUN a b"), [pair("RUN  a \\\n  b", "RUN a b")]);
        assert_eq!(shown("RUN a", "RUN a"), []);
        assert_eq!(shown("RUN a b c d e f", "RUN a b c X d e f"), [pair("b c d e", "b c X d e")]);
        let far = shown("RUN 1 a b c d e f 2 g", "RUN one a b c d e f two g");
        assert_eq!(far, [pair("RUN 1 a b", "RUN one a b"), pair("e f 2 g", "e f two g")]);
        let near = shown("RUN 1 a b 2 c", "RUN one a b two c");
        assert_eq!(near, [pair("RUN 1 a b 2 c", "RUN one a b two c")]);
        assert_eq!(shown("", "RUN x"), [pair("", "RUN x")]);
    }

    #[test]
    fn long_texts_are_bounded() {
        let text = |word: &str| format!("RUN {}", format!("{word} ").repeat(100_000));
        let changes = changes(&text("a"), &text("b"));
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].new.chars().count(), MOST_CHARACTERS + 1);
    }
}
