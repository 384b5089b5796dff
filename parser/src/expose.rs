//! EXPOSE's port specifications (D15.16 to D15.19): `[ip:][hostport:]port[-port][/proto]`.

/// The ports as the image config lists them, `80/tcp`; one entry for each of a range.
pub fn parse_port(text: &str) -> Result<Vec<String>, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("invalid port: {text:?}: invalid proto: {protocol}"));
    }
    let (host, container) = match ports.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, ports),
    };
    if container.is_empty() {
        return Err(format!("invalid port: {text:?}: no port specified"));
    }
    let (first, last) =
        range(container).ok_or_else(|| format!("invalid port: {text:?}: invalid containerPort: {container}"))?;
    if let Some(host) = host {
        check_host(host, last - first, text)?;
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

/// Address and host port are checked and dropped.
fn check_host(host: &str, length: u16, text: &str) -> Result<(), String> {
    let (address, port) = match host.rsplit_once(':') {
        Some((address, port)) => (Some(address), port),
        None if host.parse::<std::net::IpAddr>().is_ok() => (Some(host), ""),
        None => (None, host),
    };
    let address = address.map(|address| address.trim_start_matches('[').trim_end_matches(']'));
    if let Some(address) = address.filter(|address| !address.is_empty())
        && address.parse::<std::net::IpAddr>().is_err()
    {
        return Err(format!("invalid port: {text:?}: invalid IP address: {address}"));
    }
    if port.is_empty() {
        return Ok(());
    }
    let (first, last) = range(port).ok_or_else(|| format!("invalid port: {text:?}: invalid hostPort: {port}"))?;
    match length != 0 && last - first != length {
        true => Err(format!("invalid port: {text:?}: invalid ranges specified for container and host Ports")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_port;

    #[test]
    fn ports_and_ranges() {
        assert_eq!(parse_port("80").unwrap(), ["80/tcp"]);
        assert_eq!(parse_port("443/TCP").unwrap(), ["443/tcp"]);
        assert_eq!(parse_port("8000-8002/udp").unwrap(), ["8000/udp", "8001/udp", "8002/udp"]);
        assert_eq!(parse_port("8080:80").unwrap(), ["80/tcp"], "E119");
        assert_eq!(parse_port("127.0.0.1:8080:80").unwrap(), ["80/tcp"]);
        for (bad, reason) in [
            ("80/x", "invalid proto: x"),
            ("/tcp", "no port specified"),
            ("x", "invalid containerPort: x"),
            ("81-80", "invalid containerPort: 81-80"),
            ("70000", "invalid containerPort: 70000"),
            ("1-3:80-81", "invalid ranges"),
        ] {
            assert!(parse_port(bad).unwrap_err().contains(reason), "{bad}");
        }
    }
}
