//! What a build of a target can be given: arguments, secrets, agents and cache mounts.

use crate::lower::{ImageResolver, LowerOptions, Purpose, lower};
use parser::ast::Dockerfile;
use parser::diagnostic::Diagnostic;
use parser::span::Span;
use std::collections::{BTreeMap, BTreeSet};

/// The parameters of a target and the stages that it needs, each list in file order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target stage's name, if it has one.
    pub name: Option<String>,
    pub description: Option<String>,
    pub args: Vec<Arg>,
    pub secrets: Vec<Credential>,
    pub ssh: Vec<Credential>,
    pub caches: Vec<Cache>,
}

/// A build argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg {
    pub name: String,
    pub description: Option<String>,
    /// From the options, else the default, expanded.
    pub value: Option<String>,
    /// The ARG instruction.
    pub span: Span,
}

/// A secret or an ssh agent that a RUN mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    pub id: String,
    pub required: bool,
    /// The RUN instruction.
    pub span: Span,
}

/// A cache that a RUN mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    pub id: String,
    pub span: Span,
}

/// The outline of `options.target`, or why the Dockerfile cannot be built.
pub async fn outline<R: ImageResolver>(
    dockerfile: &Dockerfile,
    options: &LowerOptions,
    resolver: &R,
) -> Result<Outline, Vec<Diagnostic>> {
    let options = LowerOptions { purpose: Purpose::Outline, ..options.clone() };
    lower(dockerfile, &options, resolver).await.plan.map(|plan| plan.outline)
}

/// What one stage takes. It begins with the global ARGs, and with those that its FROM uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parameters {
    /// By name: the last declaration, and which arguments its default uses.
    declared: BTreeMap<String, (Arg, BTreeSet<String>)>,
    used: BTreeSet<String>,
    secrets: BTreeMap<String, Credential>,
    ssh: BTreeMap<String, Credential>,
    caches: BTreeMap<String, Cache>,
}

impl Parameters {
    /// An argument, and those that its default uses.
    pub fn declare(&mut self, arg: Arg, mut uses: BTreeSet<String>) {
        // `ARG V=${V}x` goes on from what an earlier V used.
        if uses.remove(&arg.name)
            && let Some((_, earlier)) = self.declared.get(&arg.name)
        {
            uses.extend(earlier.iter().cloned());
        }
        self.declared.insert(arg.name.clone(), (arg, uses));
    }

    pub fn use_args<'a>(&mut self, names: impl IntoIterator<Item = &'a String>) {
        let mut pending: Vec<_> = names.into_iter().cloned().collect();
        while let Some(name) = pending.pop() {
            if let Some((_, uses)) = self.declared.get(&name)
                && !self.used.contains(&name)
            {
                pending.extend(uses.iter().cloned());
            }
            self.used.insert(name);
        }
    }

    /// Of several mounts of a secret, the first counts.
    pub fn secret(&mut self, secret: Credential) {
        self.secrets.entry(secret.id.clone()).or_insert(secret);
    }

    pub fn ssh(&mut self, agent: Credential) {
        self.ssh.entry(agent.id.clone()).or_insert(agent);
    }

    pub fn cache(&mut self, cache: Cache) {
        self.caches.entry(cache.id.clone()).or_insert(cache);
    }
}

impl Outline {
    /// Puts together what the stages take, the target's first: what it says of a parameter counts before what others say.
    pub(crate) fn of<'a>(stages: impl Iterator<Item = &'a Parameters>) -> Outline {
        let mut all = Parameters::default();
        let mut args = BTreeMap::new();
        for stage in stages {
            for name in &stage.used {
                if let Some((arg, _)) = stage.declared.get(name) {
                    args.entry(name).or_insert_with(|| arg.clone());
                }
            }
            stage.secrets.values().cloned().for_each(|secret| all.secret(secret));
            stage.ssh.values().cloned().for_each(|agent| all.ssh(agent));
            stage.caches.values().cloned().for_each(|cache| all.cache(cache));
        }
        Outline {
            name: None,
            description: None,
            args: in_file_order(args.into_values(), |arg| arg.span),
            secrets: in_file_order(all.secrets.into_values(), |secret| secret.span),
            ssh: in_file_order(all.ssh.into_values(), |agent| agent.span),
            caches: in_file_order(all.caches.into_values(), |cache| cache.span),
        }
    }
}

fn in_file_order<T>(items: impl Iterator<Item = T>, span: impl Fn(&T) -> Span) -> Vec<T> {
    let mut items: Vec<_> = items.collect();
    items.sort_by_key(|item| span(item).start);
    items
}
