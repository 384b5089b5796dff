//! Descriptions of stages and arguments: comments that begin with the name (D3.7).

use crate::ast::{From, Instruction};

impl From {
    /// What the comments above say about the stage, if it has a name.
    pub fn description(&self) -> Option<&str> {
        description(&self.comments, self.name.as_deref()?)
    }
}

impl Instruction {
    /// What the comments above an ARG say about the argument `name`.
    pub fn description(&self, name: &str) -> Option<&str> {
        description(&self.comments, name)
    }
}

/// The rest of the first comment that starts with the name and a blank.
fn description<'a>(comments: &'a [String], name: &str) -> Option<&'a str> {
    comments.iter().find_map(|comment| comment.strip_prefix(name)?.strip_prefix(' '))
}

#[cfg(test)]
mod tests {
    use crate::parse;

    #[test]
    fn comments_that_begin_with_the_name_describe() {
        let source =
            "# other\n# V which version\nARG V=1 W\n# base where all begins\nFROM a AS Base\n# x\nFROM b AS c\nFROM d";
        let file = parse(source).unwrap();
        assert_eq!(file.global_args[0].description("V"), Some("which version"));
        assert_eq!(file.global_args[0].description("W"), None);
        let stages: Vec<_> = file.stages.iter().map(|stage| stage.from.description()).collect();
        assert_eq!(stages, [Some("where all begins"), None, None]);
    }
}
