//! The options of pesto(1), as data.

use crate::dialect::getopt::{Origin::Upstream, options};
use crate::words::Offers::Words;

const TABLES: &[&str] = &["HOST", "SPLICE"];
const PORTS: &[&str] = &["all", "auto"];

options! {
    Add: Upstream(0), [b'A'] "add",
        "add the ports that follow (the default)";
    Delete: Upstream(0), [b'D'] "delete",
        "delete the ports that follow";
    Clear: Upstream(0), [b'C'] "clear" = "TABLE" of Words(TABLES),
        "delete all ports of HOST (-t, -u) or SPLICE (-T, -U)";
    TcpPorts: Upstream(0), [b't'] "tcp-ports" = "SPEC" of Words(PORTS),
        "TCP ports of the host that lead to the guest (repeatable)";
    UdpPorts: Upstream(0), [b'u'] "udp-ports" = "SPEC" of Words(PORTS),
        "UDP ports of the host that lead to the guest (repeatable)";
    TcpNs: Upstream(0), [b'T'] "tcp-ns" = "SPEC" of Words(PORTS),
        "TCP ports of the guest's 127.0.0.1 that lead to the host's (repeatable)";
    UdpNs: Upstream(0), [b'U'] "udp-ns" = "SPEC" of Words(PORTS),
        "UDP ports of the guest's 127.0.0.1 that lead to the host's (repeatable)";
    Show: Upstream(0), [b's'] "show",
        "print the rules in force, after a change if there is one";
    Debug: Upstream(0), [b'd'] "debug";
    Help: Upstream(0), [b'h'] "help",
        "print this text and end";
    Version: Upstream(0), "version",
        "print the version and end";
}
