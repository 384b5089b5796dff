//! Ports of EXPOSE after expansion (D15.16 to D15.19).

use std::net::IpAddr;

use crate::quote::quoted;

/// Parses `[ip:][hostport:]port[-port][/proto]` into one `port/proto` for each port of the range. The host's part is checked
/// and dropped. The error is BuildKit's text.
pub fn parse_port(text: &str) -> Result<Vec<String>, String> {
    let mut parts = text.rsplitn(3, ':');
    let container = parts.next().unwrap_or_default();
    let host_ports = parts.next().unwrap_or_default();
    let ip = parts.next().unwrap_or_default();

    let (ports, protocol) = container.split_once('/').unwrap_or((container, ""));
    if ports.is_empty() {
        return Err(format!("invalid port: {}: no port specified", quoted(text)));
    }
    let protocol = match protocol.to_lowercase() {
        protocol if protocol.is_empty() => "tcp".to_owned(),
        protocol if ["tcp", "udp", "sctp"].contains(&protocol.as_str()) => protocol,
        protocol => return Err(format!("invalid port: {}: invalid proto: {protocol}", quoted(text))),
    };
    let address = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if !ip.is_empty() && address.parse::<IpAddr>().is_err() {
        return Err(format!("invalid IP address: {ip}"));
    }
    let (first, last) = range(ports).ok_or_else(|| format!("invalid containerPort: {ports}"))?;
    if !host_ports.is_empty() {
        let (host_first, host_last) = range(host_ports).ok_or_else(|| format!("invalid hostPort: {host_ports}"))?;
        if first != last && host_last - host_first != last - first {
            return Err(format!("invalid ranges specified for container and host Ports: {ports} and {host_ports}"));
        }
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let cases: &[(&str, &[&str])] = &[
            ("80", &["80/tcp"]),
            ("80/UDP", &["80/udp"]),
            ("80/", &["80/tcp"]),
            ("8000-8002/sctp", &["8000/sctp", "8001/sctp", "8002/sctp"]),
            ("8080:80", &["80/tcp"]),
            ("8080-8090:80", &["80/tcp"]),
            ("127.0.0.1:8080:80", &["80/tcp"]),
            ("127.0.0.1::80", &["80/tcp"]),
            ("[::1]:8080:80", &["80/tcp"]),
            ("0-0", &["0/tcp"]),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_port(text).unwrap(), *expected, "{text}");
        }
        assert_eq!(parse_port("0-65535").unwrap().len(), 65536);
    }

    #[test]
    fn errors() {
        let cases = [
            ("80/x", "invalid port: \"80/x\": invalid proto: x"),
            ("/tcp", "invalid port: \"/tcp\": no port specified"),
            ("", "no port specified"),
            ("90-80", "invalid containerPort: 90-80"),
            ("65536", "invalid containerPort: 65536"),
            ("+80", "invalid containerPort: +80"),
            ("1-2-3", "invalid containerPort: 1-2-3"),
            ("x:80", "invalid hostPort: x"),
            ("1-3:80-81", "invalid ranges specified for container and host Ports: 80-81 and 1-3"),
            ("host:1:80", "invalid IP address: host"),
        ];
        for (text, message) in cases {
            assert!(parse_port(text).unwrap_err().contains(message), "{text}");
        }
    }
}
