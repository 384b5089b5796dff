//! Devices by the Container Device Interface: vendors describe in files what a process needs to use a device.
//!
//! Understood of a description are variables, device files, mounts and groups. Hooks are programs of the host that a runtime runs while it makes a
//! container; they are not run, and the step's log says so.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where descriptions lie; later directories win.
const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// The annotation with which devices can be found by a class alone.
const CLASS: &str = "org.mobyproject.buildkit.device.class";
/// The annotation of devices that need no entitlement.
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";

#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("required device {name:?} is not registered: no file in {directories} describes it")]
    NotRegistered { name: String, directories: String },
    #[error("device {0} is not allowed: give the build --allow device={0} to allow it")]
    NotAllowed(String),
    #[error("the description of devices {}: {problem}", path.display())]
    Description { path: PathBuf, problem: String },
}

/// The devices of this machine.
#[derive(Debug)]
pub struct Registry {
    directories: Vec<PathBuf>,
    /// By qualified name, `vendor/class=name`.
    devices: BTreeMap<String, Device>,
}

#[derive(Debug)]
struct Device {
    annotations: BTreeMap<String, String>,
    /// Of all devices of the file, and its own.
    edits: Vec<Edits>,
}

/// What a process gets for a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Edits {
    pub env: Vec<String>,
    pub device_nodes: Vec<Node>,
    pub mounts: Vec<Bind>,
    pub additional_gids: Vec<u32>,
    hooks: Vec<Hook>,
}

/// A device file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// In the container, and on the host where it is not named there.
    pub path: String,
    host_path: Option<String>,
}

/// A file or directory of the host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bind {
    pub host_path: String,
    pub container_path: String,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Hook {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    kind: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    devices: Vec<DescribedDevice>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DescribedDevice {
    name: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    container_edits: Edits,
}

impl Node {
    pub fn host_path(&self) -> &str {
        self.host_path.as_deref().unwrap_or(&self.path)
    }
}

impl Bind {
    pub fn is_readonly(&self) -> bool {
        self.options.iter().any(|option| option == "ro")
    }
}

impl Edits {
    /// The programs that would have to be run.
    pub fn hooks(&self) -> impl Iterator<Item = &str> {
        self.hooks.iter().map(|hook| hook.path.as_str())
    }
}

impl Registry {
    /// Reads the descriptions in the directories of `RBUILD_CDI_SPEC_DIRS` (with colons between), or in the usual ones.
    pub fn load() -> Result<Registry, DeviceError> {
        let directories = match std::env::var_os("RBUILD_CDI_SPEC_DIRS") {
            Some(list) => std::env::split_paths(&list).collect(),
            None => DIRECTORIES.iter().map(PathBuf::from).collect(),
        };
        Registry::read(directories)
    }

    fn read(directories: Vec<PathBuf>) -> Result<Registry, DeviceError> {
        let mut devices = BTreeMap::new();
        for directory in &directories {
            // Most machines have none.
            let Ok(entries) = std::fs::read_dir(directory) else { continue };
            let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
            files.retain(|file| file.extension().is_some_and(|end| end == "json" || end == "yaml" || end == "yml"));
            files.sort();
            for file in files {
                devices.extend(described(&file)?);
            }
        }
        Ok(Registry { directories, devices })
    }

    /// What the device called `name` brings: one, or several for `vendor/class=*`; nothing for one that is not there and not `required`.
    pub fn find(&self, name: &str, required: bool, allowed: impl Fn(&str) -> bool) -> Result<Vec<Edits>, DeviceError> {
        let found = self.matching(name);
        if found.is_empty() && required {
            let directories: Vec<_> = self.directories.iter().map(|path| path.display().to_string()).collect();
            return Err(DeviceError::NotRegistered { name: name.to_owned(), directories: directories.join(" and ") });
        }
        let mut edits: Vec<Edits> = Vec::new();
        for (name, device) in found {
            let needs_none = device.annotations.get(AUTO_ALLOW).is_some_and(|value| value == "true" || value == "1");
            if !needs_none && !allowed(name) {
                return Err(DeviceError::NotAllowed(name.to_owned()));
            }
            for edit in &device.edits {
                // The edits of a file are those of each of its devices.
                if !edits.contains(edit) {
                    edits.push(edit.clone());
                }
            }
        }
        Ok(edits)
    }

    /// BuildKit's rules: of a class without a name the first, `*` for all, and a name that is no device's may be that of an annotated class.
    fn matching(&self, wanted: &str) -> Vec<(&str, &Device)> {
        let (kind, name) = wanted.split_once('=').unwrap_or((wanted, ""));
        let all = self.devices.iter().map(|(name, device)| (name.as_str(), device));
        let of_kind = all.clone().filter(|(device, _)| device.split_once('=').is_some_and(|(known, _)| known == kind));
        let found: Vec<_> = match name {
            "" => of_kind.take(1).collect(),
            "*" => of_kind.collect(),
            _ => all.clone().filter(|(device, _)| *device == wanted).collect(),
        };
        match found.is_empty() {
            true => {
                all.filter(|(_, device)| device.annotations.get(CLASS).is_some_and(|class| class == wanted)).collect()
            }
            false => found,
        }
    }
}

fn described(path: &Path) -> Result<Vec<(String, Device)>, DeviceError> {
    let problem = |problem: String| DeviceError::Description { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
    // JSON is YAML.
    let description: Description = serde_saphyr::from_str(&text).map_err(|error| problem(error.to_string()))?;
    if !description.kind.contains('/') {
        return Err(problem(format!("the kind {:?} is not of the form vendor/class", description.kind)));
    }
    let devices = description.devices.into_iter().map(|device| {
        let mut annotations = description.annotations.clone();
        annotations.extend(device.annotations);
        let edits = vec![description.container_edits.clone(), device.container_edits];
        (format!("{}={}", description.kind, device.name), Device { annotations, edits })
    });
    Ok(devices.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(files: &[(&str, &str)]) -> Result<(tempfile::TempDir, Registry), DeviceError> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        let registry = Registry::read(vec![directory.path().to_owned()])?;
        Ok((directory, registry))
    }

    const YAML: &str = "\
cdiVersion: \"0.6.0\"
kind: vendor.com/gpu
containerEdits:
  env: [DRIVER=1]
devices:
- name: one
  containerEdits:
    deviceNodes:
    - path: /dev/gpu0
      hostPath: /dev/null
- name: two
  annotations:
    org.mobyproject.buildkit.device.class: accelerator
    org.mobyproject.buildkit.device.autoallow: \"true\"
  containerEdits:
    mounts:
    - {hostPath: /lib, containerPath: /driver, options: [ro, bind]}
    hooks:
    - {hookName: createContainer, path: /bin/ldconfig}
";

    fn env(edits: &[Edits]) -> usize {
        edits.iter().map(|edits| edits.env.len()).sum()
    }

    #[test]
    fn devices_are_found_by_name_class_and_annotation() {
        let (_directory, registry) = registry(&[("gpu.yaml", YAML)]).unwrap();
        let find = |name| registry.find(name, true, |_| true).unwrap();
        assert_eq!(find("vendor.com/gpu=one")[1].device_nodes[0].host_path(), "/dev/null");
        assert_eq!(find("vendor.com/gpu"), find("vendor.com/gpu=one"), "the first");
        assert_eq!((find("vendor.com/gpu=*").len(), env(&find("vendor.com/gpu=*"))), (3, 1));
        let two = find("accelerator");
        assert!(two[1].mounts[0].is_readonly());
        assert_eq!(two[1].hooks().collect::<Vec<_>>(), ["/bin/ldconfig"]);
    }

    #[test]
    fn what_is_missing_or_not_allowed_is_said() {
        let (_directory, registry) = registry(&[("gpu.yaml", YAML)]).unwrap();
        assert!(registry.find("vendor.com/gpu=three", false, |_| true).unwrap().is_empty());
        let error = registry.find("vendor.com/gpu=three", true, |_| true).unwrap_err().to_string();
        assert!(error.starts_with("required device \"vendor.com/gpu=three\" is not registered"), "{error}");
        let error = registry.find("vendor.com/gpu=one", true, |_| false).unwrap_err().to_string();
        assert!(error.contains("--allow device=vendor.com/gpu=one"), "{error}");
        assert!(registry.find("vendor.com/gpu=two", true, |_| false).is_ok(), "allowed by its annotation");
    }

    #[test]
    fn json_and_files_that_make_no_sense() {
        let json =
            r#"{"cdiVersion": "0.5.0", "kind": "a/b", "devices": [{"name": "c", "containerEdits": {"env": ["X=1"]}}]}"#;
        let (_directory, found) = registry(&[("a.json", json), ("notes.txt", "no")]).unwrap();
        assert_eq!(env(&found.find("a/b=c", true, |_| true).unwrap()), 1);
        let error = registry(&[("bad.json", "{\"kind\": \"a/b\"")]).unwrap_err().to_string();
        assert!(error.contains("bad.json"), "{error}");
        assert!(registry(&[("bad.json", "{\"kind\": \"ab\", \"devices\": []}")]).is_err());
    }
}
