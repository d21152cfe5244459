//! The words, in the order of `slirp --help`.

use super::Offers::{Files, Nothing, Words};
use super::run::RUN;
use super::{Flag, Group, Word};

/// All words, under the headings of `slirp --help`.
pub(super) const TOPICS: &[(&str, &[&Word])] = &[
    ("Networks", &[&RUN, &DOCTOR]),
    (
        "Where a guest may go",
        &[
            &POLICY,
            &LEARN,
            #[cfg(feature = "tui")]
            &APPROVE,
            &EVENTS,
            #[cfg(feature = "tui")]
            &TOP,
        ],
    ),
    ("Containers", &[&LS, &RM, &OCI_HOOK]),
];

const JSON: Flag = Flag::switch("json", "print JSON");
const STATE_DIR: Flag =
    Flag::value("state-dir", "DIR", "where attachments are written down").offers(Files);

/// A word with few options, which need no heading.
macro_rules! one_group {
    ($($flag:expr),+ $(,)?) => { &[Group { heading: "", flags: &[$($flag),+] }] };
}

/// `slirp doctor`
pub(crate) const DOCTOR: Word = Word {
    name: "doctor",
    about: "tell what works here, what does not, and what to do about it",
    usage: &["[OPTION]..."],
    text: "\
First looks at kernel, namespaces, /dev/net/tun, sandbox, resolvers, routes and
limits. Then makes a network as slirp run does, and drives it against servers on
loopback. Needs no privileges and no internet, and leaves nothing behind.
",
    groups: one_group![
        Flag::switch("json", "print one JSON object instead of a table"),
        Flag::switch("no-drive", "only look; do not make a network and drive it"),
    ],
    notes: "\
Exit status: 0 if networks work, with or without warnings, 1 for a failure, 2
for a bad command line.
",
    subwords: &[],
    operands: Nothing,
    ends_at_operand: false,
};

/// `slirp policy`
pub(crate) const POLICY: Word = Word {
    name: "policy",
    about: "check egress policies, and explain what they say",
    usage: &["check [--canonical] FILE...", "explain FILE... TARGET"],
    text: "\
check reads policy files as a network would, all together as one policy.
",
    groups: one_group![Flag::switch(
        "canonical",
        "print the policy, too: one spelling, sorted, without comments",
    )],
    notes: "\
Exit status of check: 0 if it is in order, 1 if it is not, 2 for a bad command
line.

explain tells what becomes of an attempt, by which rule, and why.
  TARGET is what the guest opens or looks up, or who comes in:
    index.example:443, tcp:index.example:443   a name is looked up first
    203.0.113.7:22, [2001:db8::1]:22           an address without a lookup
    host-loopback:8000, 10.0.2.2:8000          a port of the host's loopback
    udp:203.0.113.7:53, icmp:203.0.113.7       another protocol
    dns:index.example                          the lookup alone
    in:203.0.113.7:8080                        a client at published port 8080
  Exit status: 0 if it is allowed, 1 if it is denied or asked about, 2 if the
  policy or the command line is bad.

FILE is - for standard input. What rules mean is in slirp-egress(7).
",
    subwords: &["check", "explain"],
    operands: Files,
    ends_at_operand: false,
};

/// `slirp learn`
pub(crate) const LEARN: Word = Word {
    name: "learn",
    about: "make an egress policy out of audit logs",
    usage: &["[OPTION]... LOG..."],
    text: "\
Prints a policy that allows what a guest did: one rule for each name, sorted.
Addresses without a name, private and protected addresses, and what was refused
come as comments. Logs are audit logs, in the order in which they were written,
and - for standard input. For a log that has all, run the guest in audit mode
first: --policy-mode=audit --audit-log=LOG.
",
    groups: one_group![
        Flag::value("against", "POLICY", "print only what this policy file does not allow yet")
            .offers(Files),
        Flag::value("min", "N", "fewer than N connections become a comment"),
        Flag::value(
            "since",
            "TIME",
            "only events since then, in UTC: 2026-11-29, 2026-11-29T02:35:16, or how long ago: \
             90s, 10m, 2h, 7d",
        ),
    ],
    notes: "\
Exit status: 0 if all was read, 1 if broken lines were left out or a log is of
several networks at once, 2 if nothing is printed: a log cannot be read, or the
command line is bad. What rules mean is in slirp-egress(7).
",
    subwords: &[],
    operands: Files,
    ends_at_operand: false,
};

/// `slirp approve`
#[cfg(feature = "tui")]
pub(crate) const APPROVE: Word = Word {
    name: "approve",
    about: "answer the questions of a policy, in this terminal",
    usage: &["[--save FILE] SOCKET"],
    text: "\
Asks about connections that a policy wants asked about, one at a time, the
oldest first. SOCKET is a control socket, or fd:N for an open descriptor of one.
",
    groups: one_group![
        Flag::value(
            "save",
            "FILE",
            "append decisions for the session to this policy file, as rules"
        )
        .offers(Files)
    ],
    notes: "\
Keys: a allow once (what waits, and the same for 30 s)   s allow for the session
      f allow for 10 minutes   p allow the names beside it, for the session
      d deny   D deny for the session   e explain   q quit
No other key decides anything, and none of them in the first 0.7 s of a
question: it may have been meant for the one before. Time runs on while it is
asked: what nobody has decided is denied in the end.
Exit status: 0 if you quit or the network has ended, 1 for a failure, 2 for a
bad command line.
",
    subwords: &[],
    operands: Files,
    ends_at_operand: false,
};

/// `slirp events`
pub(crate) const EVENTS: Word = Word {
    name: "events",
    about: "show what a network decides, as it happens",
    usage: &["[--json] SOCKET [EVENT]..."],
    text: "\
Shows the events of a network as they happen, one line each: all, or those of
these kinds, such as flow, dns, verify, end, ask or decision. SOCKET is a
control socket, or fd:N for an open descriptor of one.
",
    groups: one_group![Flag::switch(
        "json",
        "print the objects of the audit log; slirp-egress(7) has its schema",
    )],
    notes: "\
Exit status: 0 if the network or the reader has ended, 1 for a failure, 2 for a
bad command line.
",
    subwords: &[],
    operands: Files,
    ends_at_operand: false,
};

/// `slirp top`
#[cfg(feature = "tui")]
pub(crate) const TOP: Word = Word {
    name: "top",
    about: "watch a network live",
    usage: &["SOCKET", "--once [--json] SOCKET"],
    text: "\
Shows who talks to whom, what is denied and what is asked. SOCKET is a control
socket, or fd:N for an open descriptor of one. ? lists the keys; NO_COLOR in the
environment leaves colours out.
",
    groups: one_group![
        Flag::switch("once", "print flows and names without flows instead, and end"),
        Flag::switch("json", "print all that is known, as one JSON object (with --once)"),
    ],
    notes: "\
Exit status: 0 if you quit or the network has ended, 1 for a failure, 2 for a
bad command line.
",
    subwords: &[],
    operands: Files,
    ends_at_operand: false,
};

/// `slirp ls`
pub const LS: Word = Word {
    name: "ls",
    about: "list the containers that are on a network of this user",
    usage: &["[--json] [--state-dir DIR]"],
    text: "\
Lists the attachments that CNI and OCI runtimes have asked this user for.
",
    groups: one_group![JSON, STATE_DIR],
    notes: "",
    subwords: &[],
    operands: Nothing,
    ends_at_operand: false,
};

/// `slirp rm`
pub const RM: Word = Word {
    name: "rm",
    about: "take a container off its networks",
    usage: &["[--state-dir DIR] CONTAINER [IFNAME]"],
    text: "\
Removes the attachments of a container, or the one of this interface.
",
    groups: one_group![STATE_DIR],
    notes: "",
    subwords: &[],
    operands: Nothing,
    ends_at_operand: false,
};

/// `slirp oci-hook`
pub const OCI_HOOK: Word = Word {
    name: "oci-hook",
    about: "serve runc or crun as a hook",
    usage: &["[up|down] [OPTION]..."],
    text: "\
A hook for OCI runtimes (createRuntime or prestart, createContainer, poststart,
poststop). Reads the container's state from standard input: a container with a
process gets a network, one without loses it. For rootless crun both
createRuntime and createContainer are needed; elsewhere the latter finds its
work done. A program name that ends with \"hook\" stands for the word oci-hook.
",
    groups: &[
        Group {
            heading: "Annotations as well, such as org.slirp.ports",
            flags: &[
                Flag::value("ports", "PORTS", "publish [IP:]PORT:PORT[/PROTOCOL],...").repeatable(),
                Flag::value("mtu", "BYTES", "MTU, 1500 to 65521 (default 1500)").rare(),
                Flag::value("cidr", "NETWORK", "IPv4 network (default 10.0.2.0/24)").rare(),
                Flag::boolean("ipv6", "IPv6 as well (default false)").rare(),
                Flag::value("ifname", "NAME", "interface (default eth0)").rare(),
                Flag::boolean("dns", "the DNS service, 10.0.2.3 (default true)").rare(),
                Flag::value("mac", "ADDRESS", "the interface's Ethernet address").rare(),
                Flag::boolean(
                    "disable-host-loopback",
                    "its gateway does not lead to the host (default false)",
                ),
                Flag::boolean(
                    "attach-shared",
                    "a network even if the network namespace is joined by path",
                )
                .rare(),
                Flag::value("policy", "RULES", "where it may go: RULE[;RULE]...").repeatable(),
                Flag::value(
                    "rate-in",
                    "RATE",
                    "bits a second that it receives: N[k|M|G][,burst=BYTES]",
                )
                .rare(),
                Flag::value("rate-out", "RATE", "bits a second that it sends").rare(),
            ],
        },
        Group {
            heading: "Arguments only",
            flags: &[
                Flag::value("policy-file", "FILE", "a file of such rules")
                    .repeatable()
                    .offers(Files),
                Flag::value("audit-log", "FILE", "append what the rules decide, as lines of JSON")
                    .offers(Files),
                Flag::value("audit", "LEVEL", "how much: denied, decisions (default) or all")
                    .offers(Words(&["denied", "decisions", "all"]))
                    .rare(),
                Flag::boolean(
                    "audit-required",
                    "refuse new connections and lookups while the log cannot be written",
                )
                .rare(),
                Flag::value(
                    "control-socket",
                    "PATH",
                    "a socket for policy, questions, events and rates",
                )
                .offers(Files)
                .rare(),
                Flag::value(
                    "metrics",
                    "ADDRESS",
                    "serve OpenMetrics at unix:PATH, 127.0.0.1:PORT or [::1]:PORT",
                )
                .rare(),
                Flag::boolean(
                    "sandbox",
                    "confine the process that carries the traffic (default true)",
                )
                .rare(),
                Flag::value("log-file", "FILE", "where hook and network say what happens")
                    .offers(Files),
                STATE_DIR.rare(),
            ],
        },
    ],
    notes: "\
Arguments win over annotations, but rules add up. Where an argument or
SLIRP_POLICY gives a policy, rules of annotations may only deny or ask.
",
    subwords: &["up", "down"],
    operands: Nothing,
    ends_at_operand: false,
};
