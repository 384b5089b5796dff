//! What a build may do beyond the sandbox: `--allow` (R1.10). Checked when a Dockerfile is lowered, before any step runs.

use std::collections::BTreeMap;

/// What was allowed; by default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// `network.host`: RUN with the network of the host.
    pub network_host: bool,
    /// `security.insecure`: RUN with all capabilities and without seccomp.
    pub security_insecure: bool,
    /// `device`: RUN with devices of the host.
    pub device: Devices,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// `device` without a name.
    pub all: bool,
    /// By the name that a Dockerfile may ask for: the device's own name, which differs with `alias=`.
    pub named: BTreeMap<String, String>,
}

impl Devices {
    /// The device that `name` in a Dockerfile stands for.
    pub fn resolve<'a>(&'a self, name: &'a str) -> &'a str {
        self.named.get(name).map_or(name, String::as_str)
    }

    /// Whether the device of this qualified name (`vendor/class=name`) may be used; a class stands for all of it.
    pub fn allow(&self, qualified: &str) -> bool {
        let class = qualified.split_once('=').map_or(qualified, |(class, _)| class);
        self.all || self.named.values().any(|known| known == qualified || known == class)
    }
}

const NAMES: [&str; 3] = ["network.host", "security.insecure", "device"];

impl Entitlements {
    /// Adds what one `--allow` says: a name, several with commas between them, or `device=NAME[,alias=NAME]`. The error tells what is wrong.
    pub fn allow(&mut self, text: &str) -> Result<(), String> {
        let mut last_device: Option<&str> = None;
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let device = last_device.take();
            match (name, value) {
                ("network.host", None) => self.network_host = true,
                ("security.insecure", None) => self.security_insecure = true,
                ("device", None) => self.device.all = true,
                ("device", Some(device)) if !device.is_empty() => {
                    self.device.named.insert(device.to_owned(), device.to_owned());
                    last_device = Some(device);
                }
                ("alias", Some(alias)) if !alias.is_empty() && device.is_some() => {
                    let device = device.unwrap_or_default();
                    self.device.named.remove(device);
                    self.device.named.insert(alias.to_owned(), device.to_owned());
                }
                _ => return Err(unknown(word)),
            }
        }
        Ok(())
    }
}

fn unknown(word: &str) -> String {
    let hint = parser::suggest::closest(NAMES, word)
        .map(|name| format!("did you mean {name}?"))
        .unwrap_or_else(|| "expected network.host, security.insecure or device[=NAME]".to_owned());
    format!("unknown entitlement {word:?} ({hint})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str) -> Result<Entitlements, String> {
        let mut entitlements = Entitlements::default();
        entitlements.allow(text).map(|()| entitlements)
    }

    #[test]
    fn names_and_lists_are_read() {
        assert!(allowed("network.host").unwrap().network_host, "R1.10.1");
        let both = allowed("network.host,security.insecure").unwrap();
        assert!(both.network_host && both.security_insecure && !both.device.all);
        let devices = allowed("device=vendor.com/gpu=0,alias=gpu,device=other").unwrap().device;
        assert_eq!(devices.resolve("gpu"), "vendor.com/gpu=0");
        assert_eq!(devices.resolve("other"), "other");
        assert!(devices.allow("vendor.com/gpu=0") && !devices.allow("vendor.com/gpu=1"));
        assert!(allowed("device").unwrap().device.allow("any/thing=0"));
        assert!(allowed("device=vendor.com/gpu").unwrap().device.allow("vendor.com/gpu=1"), "a class");
        assert_eq!(allowed(""), Ok(Entitlements::default()));
    }

    #[test]
    fn unknown_ones_are_refused() {
        assert!(allowed("network.hosts").unwrap_err().contains("did you mean network.host?"));
        for text in ["all", "network", "device=", "alias=x", "network.host=1", "network.host,alias=x"] {
            assert!(allowed(text).unwrap_err().starts_with("unknown entitlement"), "{text}");
        }
    }
}
