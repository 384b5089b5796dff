//! Whether two files say the same: the trees without what depends on how they are written.

use crate::ast::{
    ArgDeclaration, Dockerfile, From, Instruction, InstructionKind, Pairs, Run, Stage, Transfer, TransferSource, Word,
};
use crate::span::Span;

impl Dockerfile {
    /// Whether a build of the other file is the same, and tools that read the comments above instructions are told the same.
    pub fn means_the_same_as(&self, other: &Dockerfile) -> bool {
        self.meaning() == other.meaning()
    }

    /// The tree without places, original lines and findings.
    pub fn meaning(&self) -> Dockerfile {
        let mut file = self.clone();
        file.warnings.clear();
        [&mut file.directives.syntax, &mut file.directives.check].into_iter().flatten().for_each(forget_place);
        file.global_args.iter_mut().for_each(instruction);
        file.stages.iter_mut().for_each(stage);
        file
    }
}

fn forget_place(word: &mut Word) {
    word.span = Span::default();
}

fn stage(stage: &mut Stage) {
    let From { span, platform, image, name, comments: _, text } = &mut stage.from;
    *span = Span::default();
    text.clear();
    platform.iter_mut().chain([image]).chain(name).for_each(forget_place);
    stage.instructions.iter_mut().for_each(instruction);
}

fn instruction(instruction: &mut Instruction) {
    instruction.span = Span::default();
    instruction.text.clear();
    match &mut instruction.kind {
        InstructionKind::Add(copy) | InstructionKind::Copy(copy) => transfer(copy),
        InstructionKind::Arg(declarations) => {
            for ArgDeclaration { name, default } in declarations {
                [name].into_iter().chain(default).for_each(forget_place);
            }
        }
        InstructionKind::Env(Pairs { pairs, .. }) | InstructionKind::Label(Pairs { pairs, .. }) => {
            pairs.iter_mut().flat_map(|(name, value)| [name, value]).for_each(forget_place);
        }
        InstructionKind::Expose(words) | InstructionKind::Volume(words) => words.iter_mut().for_each(forget_place),
        InstructionKind::Stopsignal(word) | InstructionKind::User(word) | InstructionKind::Workdir(word) => {
            forget_place(word);
        }
        InstructionKind::Run(run) => {
            let Run { command: _, heredocs, mounts, network: _, security: _, devices } = run.as_mut();
            heredocs.iter_mut().for_each(|heredoc| heredoc.span = Span::default());
            mounts.iter_mut().chain(devices).for_each(forget_place);
        }
        InstructionKind::Cmd(_)
        | InstructionKind::Entrypoint(_)
        | InstructionKind::Healthcheck(_)
        | InstructionKind::Maintainer(_)
        | InstructionKind::Onbuild(_)
        | InstructionKind::Shell(_) => {}
    }
}

fn transfer(transfer: &mut Transfer) {
    let Transfer { sources, destination, from, chown, chmod, exclude, checksum, .. } = transfer;
    for source in sources {
        match source {
            TransferSource::Path(word) => forget_place(word),
            TransferSource::Heredoc(heredoc) => heredoc.span = Span::default(),
        }
    }
    let flags = [from, chown, chmod, checksum].into_iter().flatten();
    flags.chain(exclude).chain([destination]).for_each(forget_place);
}
