//! Two rules about ports: the protocol in lower case, and no address or port of the host.

use parser::diagnostic::Diagnostic;
use parser::span::Span;

pub fn check(port: &str, span: Span, word: Span) -> Vec<Diagnostic> {
    let mut findings = Vec::new();
    let (address, protocol) = port.split_once('/').unwrap_or((port, ""));
    if protocol != protocol.to_lowercase() {
        let message = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
        findings.push(Diagnostic::warning("ExposeProtoCasing", message, span).with_focus(word));
    }
    if address.contains(':') {
        let message =
            format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'");
        findings.push(Diagnostic::warning("ExposeInvalidFormat", message, span).with_focus(word));
    }
    findings
}
