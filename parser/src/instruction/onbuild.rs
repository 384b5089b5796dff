//! ONBUILD (D15.50 to D15.52).

use super::{Arguments, Result};
use crate::ast::Onbuild;
use crate::line::split_keyword;

pub(super) fn parse(arguments: &mut Arguments) -> Result<Onbuild> {
    arguments.no_more_flags(&[])?;
    if arguments.rest.is_empty() {
        return arguments.problem("ONBUILD requires at least one argument");
    }
    match split_keyword(arguments.rest).0.to_ascii_uppercase().as_str() {
        "ONBUILD" => return arguments.problem("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        keyword @ ("FROM" | "MAINTAINER") => {
            return arguments.problem(format!("{keyword} isn't allowed as an ONBUILD trigger"));
        }
        _ => {}
    }
    let mut trigger = arguments.rest.to_owned();
    for heredoc in &arguments.line.heredocs {
        trigger.push('\n');
        trigger.push_str(&heredoc.body);
        trigger.push_str(&heredoc.name);
    }
    Ok(Onbuild { trigger })
}
