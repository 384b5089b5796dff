//! /etc/hosts and /etc/resolv.conf: how what runs in a sandbox finds names (X1.38 to X1.45).

use super::pasta::RESOLVER;
use super::protocol::RequestNetwork;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::str::FromStr;

/// `--add-host`: a line for /etc/hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraHost {
    pub name: String,
    pub address: HostAddress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAddress {
    Ip(IpAddr),
    /// `host-gateway`: where the sandbox's network finds the host, [`Network::gateway`](super::Network::gateway).
    Gateway,
}

impl FromStr for ExtraHost {
    type Err = String;

    /// `NAME:IP` or `NAME=IP`; brackets around an IPv6 address may be left out.
    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("invalid --add-host {text:?}: expected NAME:IP, NAME=IP or NAME:host-gateway");
        let split = text.split_once('=').or_else(|| text.split_once(':'));
        let is_name = |name: &str| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '#');
        let (name, address) = split.filter(|(name, _)| is_name(name)).ok_or_else(invalid)?;
        let address = match address {
            "host-gateway" => HostAddress::Gateway,
            _ => {
                let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']'));
                HostAddress::Ip(bare.unwrap_or(address).parse().map_err(|_| invalid())?)
            }
        };
        Ok(ExtraHost { name: name.to_owned(), address })
    }
}

/// What takes the place of the host's own settings (R1.4.6). An empty list leaves the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    pub servers: Vec<IpAddr>,
    /// Domains; a single `.` stands for none at all.
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// X1.39.
pub(super) fn hosts(hostname: &str, extra: &[(IpAddr, String)]) -> String {
    let mut text = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (address, name) in extra {
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

/// X1.42: of the host's two files that which says more. systemd's own resolver hides the others behind one of loopback.
pub(super) fn resolv_conf(dns: &Dns, network: RequestNetwork) -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut host = read("/etc/resolv.conf");
    if network != RequestNetwork::Host && values(&host, "nameserver") == ["127.0.0.53"] {
        let behind = read("/run/systemd/resolve/resolv.conf");
        if !behind.is_empty() {
            host = behind;
        }
    }
    of_host(&host, dns, network)
}

fn of_host(host: &str, dns: &Dns, network: RequestNetwork) -> String {
    let servers = values(host, "nameserver");
    if network == RequestNetwork::Host && *dns == Dns::default() && !servers.is_empty() {
        return host.to_owned();
    }
    let servers = match dns.servers.is_empty() {
        true => reachable(&servers, network),
        false => dns.servers.iter().map(IpAddr::to_string).collect(),
    };
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (keyword, given) in [("search", &dns.search), ("options", &dns.options)] {
        let line = match given.is_empty() {
            true => values(host, keyword).last().map(|line| (*line).to_owned()).unwrap_or_default(),
            false => given.iter().filter(|word| *word != ".").cloned().collect::<Vec<_>>().join(" "),
        };
        if !line.is_empty() {
            text.push_str(&format!("{keyword} {line}\n"));
        }
    }
    text
}

/// X1.43. Another network than the host's does not reach resolvers of its loopback, but pasta forwards to them.
fn reachable(servers: &[&str], network: RequestNetwork) -> Vec<String> {
    let is_loopback = |server: &&str| {
        let address: Option<IpAddr> = server.split('%').next().and_then(|address| address.parse().ok());
        address.is_some_and(|address| address.is_loopback())
    };
    let kept: Vec<String> = servers
        .iter()
        .filter(|server| network == RequestNetwork::Host || !is_loopback(server))
        .map(|server| (*server).to_owned())
        .collect();
    match (kept.is_empty(), network) {
        (false, _) => kept,
        (true, RequestNetwork::Joined) if !servers.is_empty() => vec![RESOLVER.to_string()],
        (true, _) => ["8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"].map(str::to_owned).into(),
    }
}

/// What follows a keyword: of each line its rest, or of `nameserver` the first word.
fn values<'a>(text: &'a str, keyword: &str) -> Vec<&'a str> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let rests = lines.filter_map(|line| {
        let (word, rest) = line.split_once(char::is_whitespace)?;
        (word == keyword).then_some(rest.trim())
    });
    match keyword {
        "nameserver" => rests.filter_map(|rest| rest.split_whitespace().next()).collect(),
        _ => rests.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str =
        "# comment\nnameserver 127.0.0.53\nnameserver 10.0.0.2 # x\nsearch a b\noptions edns0\nnameserver ::1\n";

    fn text(host: &str, network: RequestNetwork) -> String {
        of_host(host, &Dns::default(), network)
    }

    #[test]
    fn resolvers_that_cannot_be_reached_are_dropped() {
        use RequestNetwork::{Host, Joined, None};
        let filtered = "nameserver 10.0.0.2\nsearch a b\noptions edns0\n";
        assert_eq!(text(HOST, None), filtered, "X1.43, X1.44");
        assert_eq!(text(HOST, Joined), filtered);
        assert_eq!(text(HOST, Host), HOST, "R1.4.5");
        assert!(text("nameserver 127.0.0.1\n", None).starts_with("nameserver 8.8.8.8\n"));
        assert_eq!(text("nameserver 127.0.0.1\nsearch c\n", Joined), "nameserver 10.0.2.3\nsearch c\n");
        for network in [Host, Joined, None] {
            assert!(text("", network).starts_with("nameserver 8.8.8.8\n"), "R1.4.5");
        }
    }

    #[test]
    fn settings_replace_the_host_s() {
        let dns =
            Dns { servers: vec!["127.0.0.1".parse().unwrap()], search: vec!["c".into(), "d".into()], ..Dns::default() };
        for network in [RequestNetwork::Host, RequestNetwork::None] {
            let expected = "nameserver 127.0.0.1\nsearch c d\noptions edns0\n";
            assert_eq!(of_host(HOST, &dns, network), expected, "R1.4.6, X1.43: never filtered");
        }
        let none = Dns { search: vec![".".into()], options: vec!["ndots:2".into(), "rotate".into()], ..Dns::default() };
        let expected = "nameserver 10.0.0.2\noptions ndots:2 rotate\n";
        assert_eq!(of_host(HOST, &none, RequestNetwork::None), expected);
    }

    #[test]
    fn extra_hosts_are_read() {
        let host = |text: &str| text.parse::<ExtraHost>().map(|host| (host.name, host.address));
        let ip = |text: &str| HostAddress::Ip(text.parse().unwrap());
        assert_eq!(host("a:10.0.0.1"), Ok(("a".into(), ip("10.0.0.1"))));
        assert_eq!(host("a=10.0.0.1"), Ok(("a".into(), ip("10.0.0.1"))));
        assert_eq!(host("a:[::1]"), Ok(("a".into(), ip("::1"))));
        assert_eq!(host("a:fe80::2"), Ok(("a".into(), ip("fe80::2"))));
        assert_eq!(host("a=fe80::2"), Ok(("a".into(), ip("fe80::2"))));
        assert_eq!(host("a:host-gateway"), Ok(("a".into(), HostAddress::Gateway)));
        for text in ["a", "a:", ":10.0.0.1", "a:b", "a:[10.0.0.1", "a b:10.0.0.1", "a\n:10.0.0.1", "#a:10.0.0.1"] {
            assert!(host(text).unwrap_err().contains("NAME:IP"), "{text}");
        }
    }

    #[test]
    fn hosts_have_the_extra_ones_at_the_end() {
        let text = hosts("box", &[("10.0.0.1".parse().unwrap(), "a".into())]);
        let expected = "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\ta\n";
        assert_eq!(text, expected, "X1.39");
    }
}
