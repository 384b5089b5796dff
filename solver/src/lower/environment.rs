//! Variables in the order in which a process gets them.

use parser::expand::Scope;
use std::borrow::Cow;

/// `NAME=value` pairs; a name stands once.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Sets a variable in place where it exists, else at the end (D14.6).
    pub fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|(name, _)| name.clone()).collect()
    }

    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// As the `Env` of an image config lists them.
    pub fn to_list(&self) -> Vec<String> {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

impl<S: AsRef<str>> FromIterator<S> for Environment {
    /// Entries without `=` name a variable without a value and are left out.
    fn from_iter<I: IntoIterator<Item = S>>(entries: I) -> Self {
        let mut environment = Environment::default();
        for entry in entries {
            if let Some((name, value)) = entry.as_ref().split_once('=') {
                environment.set(name, value);
            }
        }
        environment
    }
}

impl Scope for Environment {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        Environment::get(self, name).map(Cow::Borrowed)
    }
}
