//! What a name stands for, by the list that a remote gives.

use parser::git::is_commit;

pub(super) struct Found {
    pub object: String,
    pub peeled: String,
    pub reference: String,
}

/// The line of `ls-remote` that is meant: a full ref, a branch, or a tag, in that order, as git itself prefers.
pub(super) fn choose(list: &str, wanted: &str) -> Option<Found> {
    let mut lines: Vec<(&str, &str)> = list.lines().filter_map(|line| line.split_once('\t')).collect();
    let mut wanted = wanted.to_owned();
    if wanted == "HEAD" {
        let target = lines.iter().find_map(|(left, name)| left.strip_prefix("ref: ").filter(|_| *name == "HEAD"));
        lines.retain(|(object, _)| is_commit(object));
        let object = lines.iter().find(|(_, name)| *name == "HEAD")?.0.to_owned();
        // A detached HEAD has no branch.
        return Some(Found { object, peeled: String::new(), reference: target.unwrap_or_default().to_owned() });
    }
    lines.retain(|(object, _)| is_commit(object));
    let find = |name: &str| lines.iter().find(|(_, found)| *found == name).map(|(object, _)| (*object).to_owned());
    if let Some(rest) = wanted.strip_prefix("refs/") {
        wanted = rest.to_owned();
    }
    let candidates = [
        format!("refs/{wanted}"),
        format!("refs/heads/{}", wanted.strip_prefix("heads/").unwrap_or(&wanted)),
        format!("refs/tags/{}", wanted.strip_prefix("tags/").unwrap_or(&wanted)),
    ];
    let (reference, object) = candidates.into_iter().find_map(|name| find(&name).map(|object| (name, object)))?;
    let peeled = find(&format!("{reference}^{{}}")).unwrap_or_default();
    Some(Found { object, peeled, reference })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D18.41: what a name means where several things have it.
    #[test]
    fn references() {
        let a = "a".repeat(40);
        let (b, c) = ("b".repeat(40), "c".repeat(40));
        let list = format!(
            "ref: refs/heads/main\tHEAD\n{a}\tHEAD\n{a}\trefs/heads/v1\n{b}\trefs/tags/v1\n{c}\trefs/tags/v1^{{}}\nnonsense\trefs/heads/x\n"
        );
        let chosen = |wanted| choose(&list, wanted).map(|found| (found.object, found.peeled, found.reference));
        assert_eq!(chosen("HEAD"), Some((a.clone(), String::new(), "refs/heads/main".into())));
        assert_eq!(chosen("v1"), Some((a.clone(), String::new(), "refs/heads/v1".into())));
        for tag in ["tags/v1", "refs/tags/v1"] {
            assert_eq!(chosen(tag), Some((b.clone(), c.clone(), "refs/tags/v1".into())), "{tag}");
        }
        assert_eq!(chosen("x"), None);
    }
}
