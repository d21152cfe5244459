//! Seeds of the targets `ports` and `ports_wire`.

use slirp_cli::internals::ports::read_value;
use slirp_cli::internals::wire::read_greeting;
use slirp_fuzz::ports::{CHANGE, GREETING, STATUS};

use crate::Seed;

/// Values as callers write them, and corners of the grammar. The number is the option: `-t`, `-u`,
/// `-T`, `-U`.
const VALUES: [(&str, u8, &str); 24] = [
    ("none", 0, "none"),
    ("all", 0, "all"),
    ("auto", 2, "auto"),
    ("everything_but", 3, "~22,~80-90"),
    ("auto_and_range", 1, "auto,5000-5010,~5005"),
    ("podman", 0, "8080-8080:80-80"),
    ("podman_address", 0, "127.0.0.1/8080-8081:80-81"),
    ("podman_ipv6", 1, "::1/8080-8080:80-80"),
    ("podman_bridge", 0, "0.0.0.0/8080:10.89.0.2/80"),
    ("podman_bridge_ipv6", 0, "[::]/8080:fd00::2/80"),
    ("muvm", 0, "3334-3334:3334-3334"),
    ("interface", 0, "%lo/80"),
    ("address_and_interface", 1, "192.0.2.1%eth0/22-80:32-90"),
    ("brackets", 0, "[fe80::1]%eth0/80:[fd00::2]"),
    ("all_to_a_target", 0, "0.0.0.0/all:192.0.2.5"),
    ("list", 0, " 80, 443:8443,1-7:11-17"),
    ("mapped", 0, "::ffff:127.0.0.1/80"),
    ("mapped_target", 0, "0.0.0.0/80:::ffff:192.0.2.5/80"),
    ("last_port", 2, "65535:1"),
    ("no_port", 0, "80,~1-65535"),
    ("port_0", 0, "0-5"),
    ("other_length", 0, "1-2:3"),
    ("target_of_the_other_family", 0, "::1/80:192.0.2.1"),
    ("multicast", 0, "0.0.0.0/80:224.0.0.1"),
];

pub(crate) fn seeds() -> Vec<Seed> {
    VALUES.map(|(name, at, text)| (name, at, text.as_bytes().to_vec())).to_vec()
}

/// What pesto(1) sends for these values, what the network greets it with then, and how it answers.
pub(crate) fn wire_seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (name, at, text) in VALUES {
        let Some(Ok(change)) = read_value(at, text).map(|value| value.change) else { continue };
        seeds.push((name, CHANGE, change));
    }
    let (_, _, tables) = seeds.iter().find(|(name, ..)| *name == "podman_bridge").expect("a seed");
    let greeting = greeting(tables);
    assert_eq!(read_greeting(&greeting).expect("a greeting").bytes, greeting);
    let version_1 = [&greeting[..11], &[1], &greeting[12..]].concat();
    let one_table = [&tables[..5 + 56], &[0]].concat();
    let text = b"\0\0\0\x08no place".to_vec();
    seeds.extend([
        ("greeting", GREETING, greeting),
        ("greeting_of_version_1", GREETING, version_1),
        ("one_table", CHANGE, one_table),
        ("hangs_up", CHANGE, Vec::new()),
        ("too_many_rules", CHANGE, b"\x01\0\0\x01\0".to_vec()),
        ("status_done", STATUS, vec![0; 4]),
        ("status_refused", STATUS, text),
        ("status_of_passt", STATUS, Vec::new()),
        ("status_cut_short", STATUS, b"\0\0\x10\0no".to_vec()),
    ]);
    seeds
}

/// The greeting of a network with the tables that a client has sent.
fn greeting(tables: &[u8]) -> Vec<u8> {
    let mut greeting = b"basil:s\0\0\0\0\x02\0\0\0\x80\0\0\0\x10".to_vec();
    let mut rest = tables;
    while let [number @ (1 | 3), behind @ ..] = rest {
        let name: &[u8] = if *number == 1 { b"HOST" } else { b"SPLICE" };
        let (count, behind) = behind.split_at(4);
        let (rules, behind) = behind.split_at(56 * usize::from(count[3]));
        greeting.push(*number);
        greeting.extend_from_slice(name);
        greeting.resize(greeting.len() + 128 - name.len(), 0);
        greeting.extend_from_slice(&[0, 0, 0, 0b11_1111]);
        greeting.extend_from_slice(count);
        greeting.extend_from_slice(rules);
        rest = behind;
    }
    greeting.push(0);
    greeting
}
