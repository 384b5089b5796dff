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
    /// The device that `name` stands for, if it is allowed.
    pub fn find<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.named.get(name).map(String::as_str).or(self.all.then_some(name))
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
        assert_eq!(devices.find("gpu"), Some("vendor.com/gpu=0"));
        assert_eq!(devices.find("other"), Some("other"));
        assert_eq!(devices.find("vendor.com/gpu=0"), None);
        assert_eq!(allowed("device").unwrap().device.find("any"), Some("any"));
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
