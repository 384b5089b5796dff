//! What a token allows: `repository:NAME:pull,push`, several of them apart by spaces (spec R6.2.3).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Resources and the actions on them, merged and sorted, so that equal wishes are equal cache keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Scope(BTreeMap<String, BTreeSet<String>>);

impl Scope {
    pub(super) fn pull(repository: &str) -> Self {
        Scope::parse(&format!("repository:{repository}:pull"))
    }

    pub(super) fn push(repository: &str) -> Self {
        Scope::parse(&format!("repository:{repository}:pull,push"))
    }

    pub(super) fn parse(text: &str) -> Self {
        let mut scope = Scope::default();
        for word in text.split_ascii_whitespace() {
            // Repository names may hold colons only as a host's port, so that the last one begins the actions.
            if let Some((resource, actions)) = word.rsplit_once(':') {
                let all = scope.0.entry(resource.to_owned()).or_default();
                all.extend(actions.split(',').filter(|action| !action.is_empty()).map(str::to_owned));
            }
        }
        scope
    }

    #[must_use]
    pub(super) fn and(mut self, other: &Scope) -> Self {
        for (resource, actions) in &other.0 {
            self.0.entry(resource.clone()).or_default().extend(actions.iter().cloned());
        }
        self
    }

    pub(super) fn contains(&self, other: &Scope) -> bool {
        other.0.iter().all(|(resource, actions)| self.0.get(resource).is_some_and(|mine| actions.is_subset(mine)))
    }

    /// One text a resource.
    pub(super) fn words(&self) -> Vec<String> {
        let join = |actions: &BTreeSet<String>| actions.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        self.0.iter().map(|(resource, actions)| format!("{resource}:{}", join(actions))).collect()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_and_sorts() {
        let scope =
            Scope::push("z/a").and(&Scope::pull("b")).and(&Scope::parse("repository:b:push,pull  registry:catalog:*"));
        assert_eq!(scope.to_string(), "registry:catalog:* repository:b:pull,push repository:z/a:pull,push");
        assert!(scope.contains(&Scope::pull("b")));
        assert!(!Scope::pull("b").contains(&Scope::push("b")));
        assert_eq!(Scope::parse("nonsense"), Scope::default());
    }
}
