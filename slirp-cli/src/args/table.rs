//! The options, as data.
//!
//! Owns the one table that drives the parser, `--help` and everything else that has to know which
//! options exist. What an option *does* is decided in the parent module; how a command line is
//! cut into options is `getopt`'s business.
//!
//! Callers find out what we can do by searching `--help` for an option's name, so an option is
//! listed only once it works. The left column is a contract; the descriptions are our own words.

/// Which option it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OptionId {
    ApiSocket,
    Cidr,
    Configure,
    CreateSandbox,
    DisableDns,
    DisableHostLoopback,
    EnableIpv6,
    EnableSandbox,
    EnableSeccomp,
    ExitFd,
    ExitWithNetns,
    Help,
    MacAddress,
    Mtu,
    NetnsType,
    NoHostLoopback,
    OutboundAddr,
    OutboundAddr6,
    Pcap,
    Publish,
    ReadyFd,
    TargetType,
    UsernsPath,
    Version,
}

/// How far we support an option.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Support {
    /// Works and is listed by `--help` with this description.
    Listed(&'static str),
    /// Works but is not listed: an old name.
    Unlisted,
    /// Known, refused and not listed.
    Missing,
}

/// One option.
#[derive(Debug)]
pub(crate) struct OptionSpec {
    pub(crate) id: OptionId,
    /// The short form, an ASCII character.
    pub(crate) short: Option<u8>,
    /// The long form without its dashes.
    pub(crate) long: &'static str,
    /// The placeholder of the value, for an option that takes one.
    pub(crate) value: Option<&'static str>,
    pub(crate) support: Support,
    /// Place among the possibilities that the error about an ambiguous prefix lists. It differs
    /// from the order of `--help`, and both are what slirp4netns prints.
    rank: u8,
}

const fn option(
    id: OptionId,
    short: Option<u8>,
    long: &'static str,
    value: Option<&'static str>,
    rank: u8,
    support: Support,
) -> OptionSpec {
    OptionSpec { id, short, long, value, support, rank }
}

/// Every option, in the order of `--help`.
pub(crate) const OPTIONS: &[OptionSpec] = &{
    use OptionId as Id;
    use Support::{Listed, Missing, Unlisted};
    [
        option(
            Id::Configure,
            Some(b'c'),
            "configure",
            None,
            0,
            Listed("set the tap up: addresses, route, MTU, link up"),
        ),
        option(
            Id::ExitFd,
            Some(b'e'),
            "exit-fd",
            Some("FD"),
            1,
            Listed("exit when the other end of this descriptor is closed"),
        ),
        option(
            Id::ReadyFd,
            Some(b'r'),
            "ready-fd",
            Some("FD"),
            2,
            Listed("write \"1\" to this descriptor once the network is ready"),
        ),
        option(
            Id::Mtu,
            Some(b'm'),
            "mtu",
            Some("MTU"),
            3,
            Listed("MTU of the tap (default=1500, max=65521)"),
        ),
        option(
            Id::EnableIpv6,
            Some(b'6'),
            "enable-ipv6",
            None,
            10,
            Listed("offer IPv6 as well (experimental)"),
        ),
        option(
            Id::ApiSocket,
            Some(b'a'),
            "api-socket",
            Some("PATH"),
            9,
            Listed("path of the socket that takes requests, such as port forwards"),
        ),
        option(
            Id::Cidr,
            None,
            "cidr",
            Some("CIDR"),
            4,
            Listed("network that the guest lives in (default=10.0.2.0/24)"),
        ),
        option(
            Id::DisableHostLoopback,
            None,
            "disable-host-loopback",
            None,
            5,
            Listed("keep the guest away from the host's 127.0.0.1:*"),
        ),
        option(Id::NoHostLoopback, None, "no-host-loopback", None, 6, Unlisted),
        option(
            Id::NetnsType,
            None,
            "netns-type",
            Some("TYPE"),
            7,
            Listed("what the first argument is ([path|pid|tapfd], default=pid)"),
        ),
        option(
            Id::UsernsPath,
            None,
            "userns-path",
            Some("PATH"),
            8,
            Listed("user namespace to enter before the network namespace"),
        ),
        option(
            Id::EnableSandbox,
            None,
            "enable-sandbox",
            None,
            11,
            Listed("own read-only root, no capability but CAP_NET_BIND_SERVICE"),
        ),
        option(Id::CreateSandbox, None, "create-sandbox", None, 12, Unlisted),
        option(
            Id::EnableSeccomp,
            None,
            "enable-seccomp",
            None,
            13,
            Listed("allow only the system calls that are needed (experimental)"),
        ),
        option(Id::OutboundAddr, None, "outbound-addr", Some("IPv4"), 16, Missing),
        option(Id::OutboundAddr6, None, "outbound-addr6", Some("IPv6"), 17, Missing),
        option(
            Id::DisableDns,
            None,
            "disable-dns",
            None,
            18,
            Listed("do not answer DNS queries at 10.0.2.3 (or .3 of the CIDR)"),
        ),
        option(
            Id::MacAddress,
            None,
            "macaddress",
            Some("MAC"),
            19,
            Listed("MAC address of the tap (only with -c)"),
        ),
        option(
            Id::TargetType,
            None,
            "target-type",
            Some("TYPE"),
            20,
            Listed("what the guest is connected by ([netns|bess], default=netns)"),
        ),
        option(
            Id::Publish,
            None,
            "publish",
            Some("SPEC"),
            21,
            Listed("[PROTO:][ADDR:]PORT[-PORT]:[GUEST:]PORT of the host lead to the guest"),
        ),
        option(Id::Help, Some(b'h'), "help", None, 14, Listed("print this text and exit")),
        option(Id::Version, Some(b'v'), "version", None, 15, Listed("print the version and exit")),
        option(
            Id::Pcap,
            None,
            "pcap",
            Some("FILE"),
            22,
            Listed("record the guest's frames in a file or FIFO, for Wireshark or tcpdump"),
        ),
        option(
            Id::ExitWithNetns,
            None,
            "exit-with-netns",
            None,
            23,
            Listed("exit when the process PID has ended, or PATH is gone"),
        ),
    ]
};

/// The width of the left column of `--help`: descriptions start in the column after it.
const LEFT_COLUMN: usize = 25;

/// The option that `short` stands for.
pub(crate) fn by_short(short: u8) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.short == Some(short))
}

/// The options whose long form is `name` or, when there is none, starts with it.
pub(crate) fn by_long(name: &[u8]) -> Vec<&'static OptionSpec> {
    if let Some(exact) = OPTIONS.iter().find(|option| option.long.as_bytes() == name) {
        return vec![exact];
    }
    let mut found: Vec<_> =
        OPTIONS.iter().filter(|option| option.long.as_bytes().starts_with(name)).collect();
    found.sort_by_key(|option| option.rank);
    found
}

/// The lines of `--help` below its head, one for each listed option.
pub(crate) fn listing() -> String {
    let mut text = String::new();
    for option in OPTIONS {
        let Support::Listed(about) = option.support else { continue };
        let mut left = String::new();
        if let Some(short) = option.short {
            left.extend(['-', char::from(short), ',', ' ']);
        }
        left.push_str("--");
        left.push_str(option.long);
        if let Some(value) = option.value {
            left.push('=');
            left.push_str(value);
        }
        text.push_str(&format!("{left:<LEFT_COLUMN$}{about}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_has_its_own_names_and_rank() {
        for (i, a) in OPTIONS.iter().enumerate() {
            for b in &OPTIONS[i + 1..] {
                assert_ne!(a.id, b.id);
                assert_ne!(a.long, b.long);
                assert_ne!(a.rank, b.rank, "{} {}", a.long, b.long);
                assert!(a.short.is_none() || a.short != b.short, "{} {}", a.long, b.long);
            }
        }
    }

    #[test]
    fn descriptions_start_in_column_26() {
        for line in listing().lines() {
            assert_eq!(line.as_bytes()[24], b' ', "{line}");
            assert_ne!(line.as_bytes()[25], b' ', "{line}");
        }
    }

    #[test]
    fn options_that_do_not_work_are_not_listed() {
        let listing = listing();
        for option in OPTIONS.iter().filter(|option| option.support == Support::Missing) {
            assert!(!listing.contains(option.long), "{}", option.long);
        }
    }
}
