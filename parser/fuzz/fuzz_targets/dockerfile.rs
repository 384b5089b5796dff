//! Any bytes are a Dockerfile or an error that can be drawn, and every span lies in the text.

#![no_main]

use libfuzzer_sys::fuzz_target;
use parser::{Diagnostic, InstructionKind, Mount, Span, parse_bytes, parse_trigger};

fuzz_target!(|source: &[u8]| {
    let (text, result) = parse_bytes(source);
    let inside = |span: Span| assert!(text.get(span.start..span.end).is_some(), "{span:?}");
    let drawn = |diagnostic: &Diagnostic| {
        inside(diagnostic.span);
        inside(diagnostic.focus);
        diagnostic.render(&text, "Dockerfile", false);
        parser::diagnostic::excerpt(&text, "Dockerfile", diagnostic.span, diagnostic.focus);
    };
    match result {
        Err(errors) => {
            assert!(!errors.is_empty());
            errors.iter().for_each(drawn);
        }
        Ok(file) => {
            file.warnings.iter().for_each(drawn);
            for instruction in file.stages.iter().flat_map(|stage| &stage.instructions) {
                inside(instruction.span);
                match &instruction.kind {
                    InstructionKind::Onbuild(onbuild) => drop(parse_trigger(&onbuild.trigger)),
                    InstructionKind::Run(run) => {
                        run.script();
                        for mount in &run.mounts {
                            inside(mount.span);
                            let _ = Mount::parse(mount, &mut |value| Ok(value.to_owned()));
                        }
                    }
                    InstructionKind::Expose(ports) => {
                        for port in ports {
                            inside(port.span);
                            let _ = parser::expose::parse_port(port);
                        }
                    }
                    _ => {}
                }
            }
        }
    }
});
