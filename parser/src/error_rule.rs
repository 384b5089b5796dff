//! The names of what a Dockerfile can get wrong. An error shows the name of its rule as a build check shows its own.

macro_rules! error_rules {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The rule that an error breaks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ErrorRule {
            $($(#[$doc])* $name,)*
        }

        impl ErrorRule {
            /// As it is shown.
            pub fn name(self) -> &'static str {
                match self {
                    $(ErrorRule::$name => stringify!($name),)*
                }
            }
        }
    };
}

error_rules! {
    /// The stages take from each other in a circle.
    CircularDependency,
    /// The file has no instructions.
    EmptyDockerfile,
    /// Something other than ARG stands before the first FROM.
    InstructionBeforeFrom,
    /// The options of a `# check=` directive or of its build arg.
    InvalidCheckOptions,
    /// An option of `RUN --device`.
    InvalidDevice,
    /// A parser directive that stands twice, or has a wrong value.
    InvalidDirective,
    /// `SOURCE_DATE_EPOCH` is no number of seconds.
    InvalidEpoch,
    /// Quotes that do not close, or a wrong `${…}`.
    InvalidExpansion,
    /// A flag without its value, or with one that it does not take.
    InvalidFlagValue,
    /// A marker where no here-document can be.
    InvalidHeredoc,
    /// A name that is no image's.
    InvalidImageName,
    /// A JSON array where there must be one, or with members that are no strings.
    InvalidJsonForm,
    /// A word of ENV, LABEL or ARG that is no `name=value`.
    InvalidKeyValue,
    /// An option of `RUN --mount`.
    InvalidMount,
    InvalidPlatform,
    InvalidPort,
    InvalidSignal,
    /// A source that COPY or ADD does not take.
    InvalidSource,
    InvalidStageName,
    /// An instruction that ONBUILD does not take.
    InvalidTrigger,
    LineTooLong,
    /// The file has no FROM.
    NoStages,
    /// The build does not allow it.
    NotAllowed,
    RepeatedFlag,
    /// A stage takes from one that comes later.
    StageDefinedLater,
    UnknownFlag,
    UnknownInstruction,
    /// `--target` or an index names no stage.
    UnknownStage,
    /// Nobody has the base image.
    UnresolvedImage,
    /// This version of rbuild cannot do it.
    Unsupported,
    UnterminatedHeredoc,
    /// `${name:?message}` without a value.
    VariableRequired,
    /// Too few or too many arguments.
    WrongArgumentCount,
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_those_of_the_variants() {
        assert_eq!(super::ErrorRule::UnknownFlag.name(), "UnknownFlag");
    }
}
