//! Networks that come and go: many at once, one after the other on the same ports, killed ones, and
//! namespaces that end too early.

use std::collections::BTreeSet;
use std::fs;

use slirp_tests::{Background, PATIENCE, ProcessFacts, Rootless, World, needs, wait_until};

use crate::GUEST;

/// Starts a network whose only output is its exit status of 0.
fn started(rootless: &Rootless<'_>, netns: &str, more: &[&str]) {
    let output = rootless.pasta(&[GUEST, more, &["--netns", netns]].concat());
    let said = (output.status.code(), output.stdout.as_str(), output.stderr.as_str());
    assert_eq!(said, (Some(0), "", ""), "{more:?}");
}

/// The number in a PID file, which ends with a line feed.
fn number(path: &str) -> u32 {
    let text = fs::read_to_string(path).unwrap();
    text.strip_suffix('\n').unwrap().parse().unwrap()
}

/// Whether the namespace has its loopback and nothing else.
fn is_bare(rootless: &Rootless<'_>, netns: &str) -> bool {
    rootless.inside(netns, "ip -br link").lines().count() == 1
}

/// How many TCP ports from 20000 on the host listens on.
fn ports_from_20000(world: &World) -> usize {
    world.host.script("ss -Htln '( sport >= 20000 and sport < 20100 )'").lines().count()
}

#[test]
fn fifty_that_start_at_once_are_told_apart_and_leave_nothing() {
    const COUNT: usize = 50;
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let files: Vec<_> = (0..COUNT)
        .map(|n| {
            let pid_file = world.folder().join(format!("pid{n}")).display().to_string();
            (rootless.netns(&format!("n{n}")), pid_file, (20000 + n).to_string())
        })
        .collect();
    let running: Vec<_> = files
        .iter()
        .map(|(netns, pid_file, port)| {
            let more = ["-t", port, "-P", pid_file, "--netns", netns];
            rootless.spawn_pasta(&[GUEST, &more].concat())
        })
        .collect();
    for running in running {
        let output = running.finish();
        let said = (output.status.code(), output.stdout.as_str(), output.stderr.as_str());
        assert_eq!(said, (Some(0), "", ""));
    }
    assert_eq!(ports_from_20000(&world), COUNT);
    let daemons = rootless.daemons();
    assert_eq!(daemons.len(), 2 * COUNT, "a daemon and its helper each");
    let named: BTreeSet<_> = files.iter().map(|(_, pid_file, _)| number(pid_file)).collect();
    assert_eq!(named.len(), COUNT, "each file names a process of its own");
    for pid in &named {
        assert!(daemons.contains(pid), "{pid} is none of {daemons:?}");
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "pasta\n");
    }
    // One half ends with its namespace, the other by a signal.
    let (gone, kept) = files.split_at(COUNT / 2);
    for (netns, ..) in gone {
        rootless.remove_netns(netns);
    }
    let pids: Vec<_> = kept.iter().map(|(_, file, _)| number(file).to_string()).collect();
    rootless.script(&format!("kill {}", pids.join(" ")));
    rootless.wait_for_end();
    assert_eq!(ports_from_20000(&world), 0);
    for (netns, ..) in kept {
        assert!(is_bare(&rootless, netns), "{netns}");
    }
}

#[test]
fn start_right_after_the_end_finds_ports_and_name_free() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let pid_file = world.folder().join("pid").display().to_string();
    for (signal, is_fresh) in [("TERM", true), ("KILL", true), ("TERM", false), ("KILL", false)] {
        let mut netns = rootless.netns(&format!("{signal}-{is_fresh}"));
        for round in 0..20 {
            started(&rootless, &netns, &["-t", "20000-20009", "-P", &pid_file]);
            let kill = format!("kill -{signal} {}", number(&pid_file));
            // A restarted container has a namespace of its own.
            if is_fresh {
                let before = netns;
                netns = rootless.netns(&format!("{signal}-{round}"));
                rootless.script(&format!("{kill}; umount --lazy {before}; rm {before}"));
            } else {
                rootless.script(&kill);
            }
        }
        rootless.wait_for_end();
        wait_until(PATIENCE, "closed ports", || ports_from_20000(&world) == 0);
    }
}

#[test]
fn killed_daemon_takes_its_ports_its_device_and_its_helper_with_it() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let pid_file = world.folder().join("pid").display().to_string();
    for _ in 0..3 {
        started(&rootless, &netns, &["-t", "20000-20009", "-P", &pid_file]);
        assert_eq!(ports_from_20000(&world), 10);
        assert!(!is_bare(&rootless, &netns));
        rootless.script(&format!("kill -KILL {}", number(&pid_file)));
        rootless.wait_for_end();
        // A process has ended before the last of its threads has closed everything.
        wait_until(PATIENCE, "closed ports", || ports_from_20000(&world) == 0);
        wait_until(PATIENCE, "the end of the device", || is_bare(&rootless, &netns));
    }
}

/// Whether one of the processes has the namespace of this name open.
fn has_namespace(rootless: &Rootless<'_>, netns: &str) -> bool {
    let links = |pid| fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut links = rootless.daemons().into_iter().flat_map(links);
    links.any(|link| {
        fs::read_link(link.path()).is_ok_and(|it| it.to_string_lossy().starts_with(netns))
    })
}

/// Holds port 20000 of the host, which keeps a start waiting for a second.
fn port_in_use(world: &World) -> Background {
    let holder = world.host.spawn(&["socat", "TCP-LISTEN:20000,reuseaddr,fork", "STDOUT"]);
    world.host.script("until ss -Htln sport = :20000 | grep -q .; do sleep 0.01; done");
    holder
}

#[test]
fn namespace_that_goes_during_the_start_is_an_error_that_says_so() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    for number in 0..5 {
        let netns = rootless.netns(&format!("n{number}"));
        let pid_file = world.folder().join(format!("pid{number}")).display().to_string();
        let holder = port_in_use(&world);
        let more = ["-t", "20000", "-P", &pid_file, "--netns", &netns];
        let starting = rootless.spawn_pasta(&[GUEST, &more].concat());
        wait_until(PATIENCE, "the namespace in its hands", || has_namespace(&rootless, &netns));
        rootless.remove_netns(&netns);
        drop(holder);
        let output = starting.finish();
        assert_eq!((output.status.code(), output.stdout.as_str()), (Some(1), ""));
        let text = format!("Namespace {netns} is gone, exiting\n");
        assert_eq!(output.stderr, text);
        rootless.wait_for_end();
        assert!(!std::path::Path::new(&pid_file).exists(), "the number of no process");
        assert_eq!(ports_from_20000(&world), 0);
    }
}

#[test]
fn namespace_that_is_not_there_is_an_error_that_names_it() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = world.folder().join("nothing").display().to_string();
    let pid_file = world.folder().join("pid");
    let more = ["-t", "20000", "-P", pid_file.to_str().unwrap(), "--netns", &netns];
    let output = rootless.pasta(&[GUEST, &more].concat());
    assert_eq!((output.status.code(), output.stdout.as_str()), (Some(1), ""));
    let text = format!("Couldn't open network namespace {netns}: No such file or directory\n");
    assert!(output.stderr.starts_with(&text), "{}", output.stderr);
    assert!(rootless.daemons().is_empty());
    assert_eq!(ports_from_20000(&world), 0);
}

/// Starts a daemon as the process that inherits it, ends it, and prints its wait status.
const REAP: &str = "
import ctypes, os, signal, subprocess, sys
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
pid_file, name = sys.argv[1:3]
subprocess.run(sys.argv[3:], check=True)
pid = int(open(pid_file).read())
os.kill(pid, signal.Signals[name])
print(os.waitpid(pid, 0)[1])
";

#[test]
fn daemon_that_is_asked_to_end_ends_well() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let pid_file = world.folder().join("pid").display().to_string();
    let binary = rootless.binary().display().to_string();
    for signal in ["SIGTERM", "SIGQUIT"] {
        let reap = ["python3", "-c", REAP, &pid_file, signal];
        // Whoever runs the tests in the background of a shell has SIGQUIT ignored.
        let start = ["env", "--default-signal", &binary];
        let network = ["-t", "20000", "-P", &pid_file, "--netns", &netns];
        let output = rootless.exec(&[&reap[..], &start, GUEST, &network].concat());
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("0\n", ""), "{signal}");
        rootless.wait_for_end();
        assert!(!ProcessFacts(number(&pid_file)).is_alive());
        assert!(is_bare(&rootless, &netns));
    }
}
