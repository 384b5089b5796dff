//! `RUN --device` (D15.8): one CSV record.

use crate::ast::Word;
use crate::boolean::boolean;
use crate::diagnostic::Diagnostic;
use crate::error_rule::ErrorRule;
use crate::mount::csv;
use crate::quote::quoted;
use crate::suggest;

/// A device that a RUN wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Of the Container Device Interface: `vendor/class=name`, `vendor/class`, or a class.
    pub name: String,
    /// Where there is none, the RUN fails; otherwise it goes without.
    pub required: bool,
}

impl Device {
    pub fn parse(flag: &Word) -> Result<Device, Box<Diagnostic>> {
        let error = |message: String| Diagnostic::error(ErrorRule::InvalidDevice, message, flag.span);
        let fields = csv::record(&flag.value).map_err(|why| error(format!("failed to parse csv devices: {why}")))?;
        let (mut name, mut required) = (String::new(), false);
        for field in fields {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
                None => (field.to_ascii_lowercase(), None),
            };
            match (key.as_str(), value) {
                ("required", None) => required = true,
                ("required", Some(value)) => {
                    let parsed = boolean(value);
                    required = parsed.ok_or_else(|| error(format!("invalid value for required: {value}")))?;
                }
                ("name", Some(_)) if !name.is_empty() => {
                    return Err(Box::new(error(format!("device name already set to {name}"))));
                }
                ("name", Some(value)) => name = value.to_owned(),
                // The first that is no option is the name, which holds a `=` of its own.
                _ if name.is_empty() => name = field,
                (_, None) => {
                    let message = format!("invalid field '{field}' must be a key=value pair");
                    return Err(Box::new(error(message)));
                }
                (key, Some(_)) => {
                    let message = format!("unexpected key '{key}' in '{field}'");
                    return Err(Box::new(error(message).with_suggestion(suggest::closest(["name", "required"], key))));
                }
            }
        }
        if name.is_empty() {
            return Err(Box::new(error(format!("the device {} has no name", quoted(&flag.value)))));
        }
        Ok(Device { name, required })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Span;

    fn parse(text: &str) -> Result<(String, bool), String> {
        let flag = Word { value: text.to_owned(), span: Span::new(0, text.len()) };
        Device::parse(&flag).map(|device| (device.name, device.required)).map_err(|error| error.to_string())
    }

    #[test]
    fn names_and_options() {
        let named = |name: &str, required| Ok((name.to_owned(), required));
        assert_eq!(parse("vendor.com/gpu=0"), named("vendor.com/gpu=0", false), "D15.8");
        assert_eq!(parse("name=vendor.com/gpu=*,required"), named("vendor.com/gpu=*", true));
        assert_eq!(parse("vendor.com/gpu,required=false"), named("vendor.com/gpu", false));
        assert_eq!(parse("name=a,name=b"), Err("device name already set to a".into()));
        assert!(parse("name=a,requird=true").unwrap_err().contains("unexpected key 'requird'"));
        assert!(parse("a,b").unwrap_err().contains("key=value pair"));
        assert!(parse("required").unwrap_err().contains("no name"));
        assert!(parse("a,required=perhaps").is_err());
    }
}
