//! `--runas`: the user that a network of root runs as.

use std::fs;

use slirp_tests::{Account, Rootless, World, needs, pasta_under_test};

use crate::GUEST;

/// A line of the status of each thread of a process, without its name.
fn of_threads(pid: u32, line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let value = status.lines().find_map(|text| text.strip_prefix(line));
        found.push(value.unwrap().split_whitespace().collect::<Vec<_>>().join(" "));
    }
    found.sort();
    found.dedup();
    found
}

#[test]
fn network_of_root_runs_as_another_user_with_all_its_threads() {
    let world = needs!(World::of(Account::Root));
    let program = pasta_under_test().display().to_string();
    let file = world.folder().join("pid").display().to_string();
    let guest = world.guest.pid().to_string();
    // Ports below 1024 of both sides, which take a right that the user has not.
    let line = "--config-net -q -4 -I tap0 -t 127.0.0.1/81:80 -u none -T 82 -U none";
    let line: Vec<_> = line.split(' ').collect();
    let run = |identity: &str| {
        let options = ["--runas", identity, "-P", &file, &guest];
        world.host.exec(&[&[program.as_str()], &line[..], &options].concat())
    };
    for (identity, text) in [
        ("no-such-user", "Invalid --runas option: no-such-user (there is no such user or group)\n"),
        (
            "1:no-such-group",
            "Invalid --runas option: no-such-group (there is no such user or group)\n",
        ),
    ] {
        let output = run(identity);
        assert_eq!((output.status.code(), output.stderr.as_str()), (Some(1), text));
        assert_eq!(world.guest.script("ip -br link").lines().count(), 1, "no device");
    }
    let output = run("4242:4343");
    assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""));
    let pid: u32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    assert!(threads >= 4, "{threads} threads: of data, control, the namespace and the mirror");
    assert_eq!(of_threads(pid, "Uid:"), ["4242 4242 4242 4242"]);
    assert_eq!(of_threads(pid, "Gid:"), ["4343 4343 4343 4343"]);
    assert_eq!(of_threads(pid, "Groups:"), [""]);
    // CAP_NET_BIND_SERVICE, or CAP_NET_ADMIN of the thread that sets the guest's addresses.
    for line in ["CapPrm:", "CapEff:", "CapInh:", "CapBnd:"] {
        assert_eq!(of_threads(pid, line), ["0000000000000400", "0000000000001000"], "{line}");
    }
    world.host.script("ip addr add 198.51.100.77/24 dev h0");
    let follows = "until ip -o addr show tap0 | grep -q 198.51.100.77; do sleep 0.01; done";
    world.guest.script(follows);
    let bound = world.host.script("ss -Htln sport = :81 | awk '{print $4}'");
    assert_eq!(bound, "127.0.0.1:81\n");
    let listen = "TCP-LISTEN:80,reuseaddr";
    let _server = world.guest.spawn(&["socat", listen, "SYSTEM:echo answer"]);
    world.guest.script("until ss -Htln sport = :80 | grep -q .; do sleep 0.01; done");
    assert_eq!(world.host.script("socat -u TCP:127.0.0.1:81 -"), "answer\n");
    world.host.script(&format!("kill {pid}"));
}

#[test]
fn command_of_root_runs_as_another_user_too() {
    let world = needs!(World::of(Account::Root));
    let program = world.reachable_pasta().display().to_string();
    let script = "cat /proc/self/uid_map /proc/self/gid_map; id -u; ip -br addr show tap0";
    let options = ["--runas", "4242:4343", "-t", "none", "-T", "none", "--", "sh", "-c", script];
    let line = [&GUEST[..11], &["-u", "none", "-U", "none"], &options].concat();
    let output = world.host.exec(&[&[program.as_str()], &line[..]].concat());
    assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""));
    let words: Vec<_> = output.stdout.split_whitespace().collect();
    assert_eq!(words[..7], ["0", "4242", "1", "0", "4343", "1", "0"], "{}", output.stdout);
    assert!(output.stdout.contains("10.0.2.100/24"), "{}", output.stdout);
}

#[test]
fn ordinary_user_stays_who_he_is() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let start = |identity: &str| {
        let options = ["-t", "none", "--runas", identity, "--netns", &netns];
        let output = rootless.pasta(&[GUEST, &options].concat());
        (output.status.code(), output.stderr)
    };
    // Root of a user namespace in which nobody else is mapped.
    let (code, text) = start("7");
    assert_eq!(code, Some(1));
    assert!(text.contains("other user and group"), "{text}");
    assert!(text.contains("has no such user or group"), "{text}");
    assert_eq!(start("0"), (Some(0), String::new()));
    rootless.remove_netns(&netns);
    rootless.wait_for_end();
}
