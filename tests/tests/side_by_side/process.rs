//! The process: texts, output streams, exit statuses, and the events that end it.

use std::io::Read as _;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::*;

const CHOSEN_MAC: &str = "02:11:22:33:44:55";
const DRAWN_MAC: &str = "* MAC address: drawn";

/// Numbers of processes and descriptors and addresses that the kernel drew, as words.
fn stable(text: &str, world: &World) -> String {
    let pid = world.guest.pid().to_string();
    let lines = text.lines().map(|line| {
        let line = line.replace(&pid, "PID");
        match line.split_once("tapfd=") {
            Some((before, after)) => {
                let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
                format!("{before}tapfd=FD{rest}")
            }
            None if line.starts_with("* MAC address:") && !line.ends_with(CHOSEN_MAC) => {
                DRAWN_MAC.to_owned()
            }
            None => line,
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Starts, ends through the exit descriptor, and notes both streams line by line.
fn output(side: &Side, seen: &mut Seen, what: &str, options: &[&str]) {
    let world = &side.world;
    let mut slirp = side.slirp().options(&["--exit-fd=4"]).options(options).start();
    slirp.close_exit_fd();
    let exit = slirp.wait();
    seen.note(format!("{what}: status"), format!("{:?}", exit.code));
    let out = stable(&exit.stdout, world);
    // Advice in brackets and the list of system calls are each program's own words.
    for (kind, end) in
        [("* ", "\n"), ("WARNING: Support", "\n"), ("WARNING: 127", " ("), ("seccomp:", " ")]
    {
        let lines: Vec<&str> = out
            .lines()
            .filter(|line| line.starts_with(kind) && *line != DRAWN_MAC)
            .map(|line| line.split(end).next().unwrap_or_default())
            .collect();
        seen.note(format!("{what}: stdout {kind}"), lines.join("\n"));
    }
    let has_mac = out.contains("* MAC address:");
    let mac = if has_mac { "with MAC address" } else { "without MAC address" };
    seen.note(format!("{what}: summary"), mac);
    let first = out.lines().find(|line| line.contains("slirp"));
    seen.note(format!("{what}: stdout starts"), first.unwrap_or_default());
    seen.note(format!("{what}: stderr"), stable(&exit.stderr, world));
    world.guest.script("! ip link show tap0 2>/dev/null || ip link del tap0");
}

#[test]
fn outputs() {
    run("output", |side, seen| {
        output(side, seen, "plain", &[]);
        output(side, seen, "no loopback", &["--disable-host-loopback"]);
        output(side, seen, "network", &["--cidr=192.0.2.0/25", "--mtu=65520"]);
        output(side, seen, "ipv6", &["--enable-ipv6"]);
        output(side, seen, "mac", &[&format!("--macaddress={CHOSEN_MAC}")]);
        output(side, seen, "deprecated", &["--no-host-loopback"]);
        output(side, seen, "sandbox", &["--enable-sandbox", "--enable-seccomp"]);
    });
}

#[test]
fn output_of_a_running_process() {
    run("stdout", |side, seen| {
        let slirp = side.slirp().start();
        let lines = slirp.stdout().lines().filter(|line| line.starts_with("* ")).count();
        seen.note("lines of the summary while it runs", lines);
    });
}

const REFUSED: &[&[&str]] = &[
    &[],
    &["-c"],
    &["1"],
    &["--unknown", "1", "tap0"],
    &["--unk=5", "1", "tap0"],
    &["-x", "1", "tap0"],
    &["-cx", "1", "tap0"],
    &["1", "tap0", "--mtu"],
    &["1", "tap0", "-m"],
    &["--configure=yes", "1", "tap0"],
    &["--ena", "1", "tap0"],
    &["--mtu=0", "1", "tap0"],
    &["--mtu=-1", "1", "tap0"],
    &["--mtu=65522", "1", "tap0"],
    &["--mtu=9x", "1", "tap0"],
    &["-m99999999999999999999", "1", "tap0"],
    &["--exit-fd=-1", "1", "tap0"],
    &["--exit-fd=2x", "1", "tap0"],
    &["-r", "x", "1", "tap0"],
    &["0", "tap0"],
    &["-c", "--", "-5", "tap0"],
    &["12x", "tap0"],
    &["--netns-type=path", "/nonexistent", "tap0"],
    &["--netns-type=whatever", "/nonexistent", "tap0"],
    &["--userns-path=/nonexistent", "1", "tap0"],
    &["--macaddress=02::1", "1", "tap0"],
    &["-c", "--macaddress=zz", "1", "tap0"],
    &["-c", "--macaddress=1:2:3:4:5:6:7", "1", "tap0"],
    &["-c", "--macaddress=02-11-22-33-44-55", "99999999", "tap0"],
    &["--target-type=other", "1", "tap0"],
    &["--target-type=bess"],
    &["--target-type=bess", "/nowhere/a", "b"],
    &["--target-type=bess", "--configure", "/nowhere/a"],
    &["--target-type=bess", "--netns-type=pid", "/nowhere/a"],
    &["--target-type=bess", "--userns-path=/dev/null", "/nowhere/a"],
    &["--target-type=bess", "/nowhere/a"],
    &["--outbound-addr=nowhere", "1", "tap0"],
    &["--outbound-addr=fd00::1", "1", "tap0"],
    &["--outbound-addr6=10.0.0.1", "1", "tap0"],
    &["--cidr=10.0.2.0/24", "--netns-type=tapfd", "x"],
    &["--cidr=10.0.2.0", "1", "tap0"],
    &["--cidr=300.0.2.0/24", "1", "tap0"],
    &["--cidr=10.0.2.0/26", "1", "tap0"],
    &["--cidr=10.0.2.0/0", "1", "tap0"],
    &["--cidr=10.0.2.100/24", "1", "tap0"],
    &["--cidr=10.0.2.100/26", "1", "tap0"],
    &["--cidr=fd00::/64", "1", "tap0"],
    &["--cidr=192.168.5.7/24", "1", "tap0"],
    &["--target-type=other", "--target-type=netns", "99999999", "tap0"],
    &["--target-type=other", "--macaddress=02::1", "1", "tap0"],
    &["--target-type=other", "-x", "1", "tap0"],
    &["9999999999", "tap0"],
    &["12x", "tap0", "more"],
    &["--netns-type=path", "/nonexistent", "tap0", "more"],
    &["-c", "99999999", "tap0"],
];

#[test]
fn refusals() {
    run("refused", |side, seen| {
        for arguments in REFUSED {
            let exit = side.slirp().bare().positionals(arguments).run();
            let what = format!("slirp4netns {}", arguments.join(" "));
            seen.note(&what, format!("{:?}", exit.code));
            let first = exit.stderr.lines().next().unwrap_or_default();
            seen.note(format!("{what}: stderr"), first);
            let head = |line: &&str| line.starts_with("Usage: slirp4netns ");
            let usages = exit.stdout.lines().filter(head).count();
            seen.note(format!("{what}: usages on stdout"), usages);
            let warnings = exit.stdout.lines().any(|line| line == "WARNING: too many arguments");
            seen.note(format!("{what}: too many arguments"), warnings);
            assert_eq!(exit.stderr.lines().filter(head).count(), 0);
        }
    });
}

/// Notes how a start in a world of its own fails, but for the hints, which are ours alone.
fn failing(side: &Side, seen: &mut Seen, what: &str, slirp: SlirpBuilder<'_>) {
    let exit = slirp.run();
    seen.note(format!("{what}: status"), format!("{:?}", exit.code));
    let said = stable(&exit.stderr, &side.world);
    let said: Vec<_> = said.lines().filter(|line| !line.starts_with("hint: ")).collect();
    seen.note(format!("{what}: stderr"), said.join("\n"));
    side.world.guest.script("! ip link show tap0 2>/dev/null || ip link del tap0");
}

#[test]
fn failing_starts() {
    run("start", |side, seen| {
        let pid = side.world.guest.pid().to_string();
        let multicast = side.slirp().options(&["--macaddress=01:00:5e:00:00:01"]);
        failing(side, seen, "multicast MAC address", multicast);
        let no_namespace = side.slirp().options(&["--netns-type=path"]);
        let no_namespace = no_namespace.positionals(&["/dev/null", "tap0"]);
        failing(side, seen, "path that is no namespace", no_namespace);
        let folder = side.slirp().options(&["--api-socket=/nonexistent/api.sock"]);
        failing(side, seen, "API socket in no folder", folder);
        let long = format!("--api-socket=/tmp/{}", "x".repeat(108));
        failing(side, seen, "API socket with a long name", side.slirp().options(&[&long]));
        let foreign = side.slirp().account(Account::Ordinary);
        failing(side, seen, "somebody else's container", foreign);
        let name = side.slirp().positionals(&[&pid, "lo"]);
        failing(side, seen, "name of another device", name);
        side.world.host.script("mount -t tmpfs tmpfs /dev/net");
        failing(side, seen, "no driver", side.slirp());
        // Without the device, the host keeps its network on either side.
        let own = side.slirp().options(&["--netns-type=path"]);
        let own = own.positionals(&["/proc/self/ns/net", "tap0"]);
        failing(side, seen, "own network namespace", own);
    });
}

#[test]
fn helps() {
    run("help", |side, seen| {
        let exit = side.slirp().bare().positionals(&["--help"]).run();
        let columns: Vec<_> = exit
            .stdout
            .lines()
            .skip(3)
            .filter_map(|line| line.split(['\t']).next()?.split("  ").next())
            .map(str::trim_end)
            .filter(|left| left.starts_with('-'))
            .collect();
        for option in [
            "-c, --configure",
            "-e, --exit-fd=FD",
            "-r, --ready-fd=FD",
            "-m, --mtu=MTU",
            "-6, --enable-ipv6",
            "-a, --api-socket=PATH",
            "--cidr=CIDR",
            "--disable-host-loopback",
            "--netns-type=TYPE",
            "--userns-path=PATH",
            "--enable-sandbox",
            "--enable-seccomp",
            "--outbound-addr=IPv4",
            "--outbound-addr6=IPv6",
            "--disable-dns",
            "--macaddress=MAC",
            "--target-type=TYPE",
            "-h, --help",
            "-v, --version",
        ] {
            seen.note(option, if columns.contains(&option) { "listed" } else { "not listed" });
        }
        seen.note("status", format!("{:?}", exit.code));
        let first = exit.stdout.lines().next().unwrap_or_default();
        seen.note("first line", first);
        let exit = side.slirp().bare().positionals(&["--vers"]).run();
        let names: Vec<_> = exit
            .stdout
            .lines()
            .map(|line| line.rsplit_once(' ').map_or(line, |(name, _)| name))
            .collect();
        seen.note("names in the version", names.join(", "));
    });
}

#[test]
fn ends() {
    run("end", |side, seen| {
        let clean =
            || side.world.guest.script("! ip link show tap0 2>/dev/null || ip link del tap0");
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
            let slirp = side.slirp().start();
            slirp.signal(signal);
            let exit = slirp.wait();
            let end = format!("code {:?}, signal {:?}", exit.code, exit.signal);
            seen.note(format!("{signal}"), end);
            clean();
        }
        let exit = side.slirp().options(&["--exit-fd=77"]).run();
        seen.note("exit descriptor that is not open", format!("{:?}", exit.code));
        let stderr = stable(&exit.stderr, &side.world);
        seen.note("exit descriptor that is not open: stderr", stderr);
        clean();
        let slirp = side.slirp().options(&["--ready-fd=77"]).spawn();
        let up = "ip link show tap0 2>/dev/null | grep -q LOWER_UP";
        wait_until(IO_LIMIT, "the device is up", || {
            side.world.guest.exec(&["sh", "-c", up]).status.success()
        });
        seen.note("ready descriptor that is not open: alive", slirp.facts().is_alive());
        drop(slirp);
        clean();
        let first = side.slirp().start();
        let exit = side.slirp().run();
        seen.note("device that is taken: status", format!("{:?}", exit.code));
        seen.note("device that is taken: stderr", exit.stderr.trim_end());
        drop(first);
    });
}

#[test]
fn device_that_is_deleted() {
    run("device", |side, seen| {
        // Its words would fill a disk.
        let slirp = side.slirp().options(&["--exit-fd=4"]).start();
        let facts = slirp.facts();
        let before = facts.cpu_time();
        side.world.guest.script("ip link del tap0");
        // It either leaves or is busy for good.
        let busy = || facts.cpu_time().saturating_sub(before) > Duration::from_millis(300);
        wait_until(IO_LIMIT, "it leaves or spins", || !facts.is_alive() || busy());
        seen.note("alive", facts.is_alive());
        seen.note("busy for nothing", busy());
        if side.is_ours() {
            seen.note("status", format!("{:?}", slirp.wait().code));
        } else {
            slirp.signal(Signal::SIGKILL);
            seen.note("status", format!("{:?}", slirp.wait().code));
        }
    });
}

#[test]
fn peer_that_hangs_up() {
    run("peer", |side, seen| {
        let path = side.world.folder().join("bess.sock");
        let positionals = [path.to_str().unwrap()];
        let options = ["--target-type=bess"];
        let slirp = side.slirp().bare().options(&options).positionals(&positionals).spawn();
        let peer = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        let address = SockAddr::unix(&path).unwrap();
        wait_until(IO_LIMIT, "the socket", || peer.connect(&address).is_ok());
        // An ARP request for the gateway: the answer shows that frames pass.
        let mut request = vec![0xff; 6];
        request.extend_from_slice(&[2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        request.extend_from_slice(&[2, 0, 0, 0, 0, 1, 10, 0, 2, 100]);
        request.extend_from_slice(&[0, 0, 0, 0, 0, 0, 10, 0, 2, 2]);
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        peer.send(&request).unwrap();
        let mut answer = [0; 1600];
        let len = (&peer).read(&mut answer).unwrap();
        seen.note("ARP reply", format!("{:02x?}", answer[..len].get(6..12)));
        let facts = slirp.facts();
        let before = facts.cpu_time();
        drop(peer);
        let busy = || facts.cpu_time().saturating_sub(before) > Duration::from_millis(300);
        wait_until(IO_LIMIT, "it leaves or spins", || !facts.is_alive() || busy());
        seen.note("busy for nothing", busy());
        if !side.is_ours() {
            slirp.signal(Signal::SIGKILL);
        }
        seen.note("status", format!("{:?}", slirp.wait().code));
    });
}

#[test]
fn process_in_a_further_user_namespace() {
    run("nested", |side, seen| {
        let world = &side.world;
        let argv = ["unshare", "--user", "--map-root-user", "cat"];
        let nested = world.guest.spawn(&argv);
        let is_cat = || {
            let name = std::fs::read_to_string(format!("/proc/{}/comm", nested.pid()));
            name.is_ok_and(|name| name == "cat\n")
        };
        wait_until(IO_LIMIT, "the further user namespace", is_cat);
        let positionals = [&nested.pid().to_string(), "tap0"];
        let mut slirp = side.slirp().options(&["--ready-fd=3"]).positionals(&positionals).spawn();
        seen.note("ready", slirp.read_ready_fd() == b"1");
        let stderr = slirp.stderr();
        let first = stderr.lines().next().unwrap_or_default();
        seen.note("stderr", stable(first, world));
    });
}
