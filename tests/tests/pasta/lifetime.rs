//! The daemon: what holds when its caller's process has ended, and how it ends itself.

use std::fs;
use std::time::{Duration, Instant};

use slirp_tests::{PATIENCE, ProcessFacts, Rootless, World, needs, wait_until};

/// Options of Podman for a container without ports.
const PODMAN: &[&str] = &["--config-net", "-t", "none", "-u", "none", "-T", "none", "-U", "none"];

fn start(rootless: &Rootless<'_>, more: &[&str]) -> (Option<i32>, String) {
    let output = rootless.pasta(&[PODMAN, more].concat());
    assert_eq!(output.stdout, "");
    (output.status.code(), output.stderr)
}

fn started(rootless: &Rootless<'_>, more: &[&str]) {
    assert_eq!(start(rootless, more), (Some(0), String::new()), "{more:?}");
}

fn number(path: &str) -> u32 {
    let text = fs::read_to_string(path).unwrap();
    text.strip_suffix('\n').unwrap().parse().unwrap()
}

#[test]
fn everything_works_when_the_caller_goes_on() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let pid_file = world.folder().join("pid").display().to_string();
    // `pasta` waits until nobody has its streams any more.
    started(&rootless, &["-q", "-P", &pid_file, "--netns", &netns]);
    let addresses = rootless.inside(&netns, "ip -br addr; ip link show lo");
    assert!(addresses.contains(",UP,LOWER_UP"), "{addresses}");
    assert!(!addresses.contains("tentative"), "{addresses}");
    let pid = number(&pid_file);
    let file = |path: &str| fs::read_to_string(format!("/proc/{pid}/{path}")).unwrap();
    assert_eq!(file("comm"), "pasta\n");
    let status = file("status");
    for (name, value) in [
        // CAP_NET_BIND_SERVICE.
        ("CapEff", "0000000000000400"),
        ("CapPrm", "0000000000000400"),
        ("CapBnd", "0000000000000400"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:\t")));
        assert_eq!(line, Some(value), "{name}");
    }
    for stream in 0..=2 {
        let link = fs::read_link(format!("/proc/{pid}/fd/{stream}")).unwrap();
        assert_eq!(link.to_str(), Some("/dev/null"));
    }
    // A session of its own, in which nobody waits for it.
    let stat = file("stat");
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(fields[3], pid.to_string(), "session");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));

    let began = Instant::now();
    rootless.script(&format!("kill {pid}"));
    rootless.wait_for_end();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(number(&pid_file), pid, "the file stays");
    let interfaces = rootless.inside(&netns, "ip -br link");
    assert_eq!(interfaces.lines().count(), 1, "{interfaces}");
}

#[test]
fn user_who_may_have_no_further_process_is_told_and_has_no_pid_file() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let pasta = world.reachable_pasta().display().to_string();
    let pid_file = world.folder().join("pid").display().to_string();
    let limited = ["--nproc=1:1", &pasta, "-q", "-P", &pid_file, "--netns", &netns];
    let output = rootless.run("prlimit".as_ref(), &[&limited, PODMAN].concat());
    assert_eq!(output.status.code(), Some(1));
    let text = "Couldn't start a daemon: Resource temporarily unavailable";
    assert!(output.stderr.starts_with(text), "{}", output.stderr);
    assert!(!fs::exists(pid_file).unwrap());
}

#[test]
fn descriptors_of_the_caller_are_closed() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let lock = world.folder().join("lock");
    let script = format!(
        "exec 7>{} 8</dev/zero; exec {} -q {} --netns {netns}",
        lock.display(),
        rootless.binary().display(),
        PODMAN.join(" "),
    );
    rootless.script(&script);
    for pid in rootless.daemons() {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            let link = fs::read_link(entry.path()).unwrap_or_default();
            assert!(link != lock && link.to_str() != Some("/dev/zero"), "{link:?}");
        }
    }
}

#[test]
fn end_of_the_name_ends_the_daemon() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    started(&rootless, &["-q", "--netns", &netns]);
    assert!(!rootless.daemons().is_empty());
    let began = Instant::now();
    rootless.remove_netns(&netns);
    rootless.wait_for_end();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn end_of_the_process_ends_the_daemon_whatever_file_of_it_is_given() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    for name in ["ns/net", "task/PID/ns/net", "fd/5"] {
        let netns = rootless.netns(&name.replace('/', "-"));
        let flag = world.folder().join("flag");
        let script = format!("exec 5</proc/self/ns/net; touch {}; exec cat", flag.display());
        let process = rootless.spawn_inside(&netns, &["sh", "-c", &script]);
        wait_until(PATIENCE, "the process is inside", || flag.exists());
        fs::remove_file(flag).unwrap();
        let path = format!("/proc/PID/{name}").replace("PID", &process.pid().to_string());
        started(&rootless, &["-q", "--netns", &path]);
        assert!(!rootless.daemons().is_empty());
        drop(process);
        rootless.wait_for_end();
    }
}

#[test]
fn daemon_that_is_told_so_outlives_the_name() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let pid_file = world.folder().join("pid").display().to_string();
    started(&rootless, &["-q", "-P", &pid_file, "--no-netns-quit", "--netns", &netns]);
    rootless.remove_netns(&netns);
    std::thread::sleep(Duration::from_millis(300));
    assert!(ProcessFacts(number(&pid_file)).is_alive());
    rootless.script(&format!("kill -QUIT {}", number(&pid_file)));
    rootless.wait_for_end();
}

#[test]
fn signals_of_a_terminal_do_not_end_the_daemon() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let pid_file = world.folder().join("pid").display().to_string();
    started(&rootless, &["-q", "-P", &pid_file, "--netns", &netns]);
    let pid = number(&pid_file);
    rootless.script(&format!("kill -INT {pid}; kill -HUP {pid}"));
    std::thread::sleep(Duration::from_millis(200));
    assert!(ProcessFacts(pid).is_alive());
}

#[test]
fn foreground_ends_well_by_sigterm_and_with_the_namespace() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    for (name, by_signal) in [("a", true), ("b", false)] {
        let netns = rootless.netns(name);
        let pid_file = world.folder().join(format!("pid-{name}")).display().to_string();
        let line = [PODMAN, &["-f", "-q", "-P", &pid_file, "--netns", &netns]].concat();
        let running = rootless.spawn_pasta(&line);
        let is_written = || fs::read_to_string(&pid_file).is_ok_and(|text| text.ends_with('\n'));
        wait_until(PATIENCE, "the PID file", is_written);
        let pid = number(&pid_file);
        if by_signal {
            rootless.script(&format!("kill {pid}"));
        } else {
            rootless.remove_netns(&netns);
        }
        let output = running.finish();
        assert_eq!((output.status.code(), output.stderr.as_str()), (Some(0), ""), "{name}");
    }
}

#[test]
fn second_network_of_one_namespace_is_refused_and_leaves_nothing() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    started(&rootless, &["-q", "--netns", &netns]);
    let before = rootless.daemons();
    let pid_file = world.folder().join("pid");
    let line = ["-q", "-P", pid_file.to_str().unwrap(), "--netns", &netns];
    let (status, said) = start(&rootless, &line);
    assert_eq!(status, Some(1));
    let text = "TUNSETIFF ioctl on /dev/net/tun failed: Device or resource busy\n";
    assert!(said.starts_with(text), "{said}");
    assert!(!pid_file.exists());
    assert_eq!(rootless.daemons(), before);
}

#[test]
fn killed_daemon_leaves_the_namespace_to_the_next() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    let pid_file = world.folder().join("pid").display().to_string();
    for _ in 0..5 {
        started(&rootless, &["-q", "-P", &pid_file, "--netns", &netns]);
        rootless.script(&format!("kill -KILL {}", number(&pid_file)));
        rootless.wait_for_end();
    }
}

#[test]
fn caller_that_is_killed_while_it_waits_leaves_no_network() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    let netns = rootless.netns("n");
    // A port in use keeps the start waiting for a second.
    let holder = world.host.spawn(&["socat", "TCP-LISTEN:5000,fork", "STDOUT"]);
    world.host.script("until ss -Htln sport = :5000 | grep -q .; do sleep 0.01; done");
    let pid_file = world.folder().join("pid").display().to_string();
    let ports = ["-t", "5000", "-u", "none"];
    let line =
        [&["--config-net", "-q", "-P", &pid_file][..], &ports, &["--netns", &netns]].concat();
    let waiting = rootless.spawn_pasta(&line);
    wait_until(PATIENCE, "the start", || rootless.daemons().len() > 1);
    drop(waiting);
    // The daemon could start now.
    drop(holder);
    rootless.wait_for_end();
    assert_eq!(rootless.inside(&netns, "ip -br link").lines().count(), 1, "no device");
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), "", "the number of no process");
}

#[test]
fn daemon_that_stays_is_named_whenever_its_caller_is_killed() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    for number in 0..12_u64 {
        let netns = rootless.netns(&format!("n{number}"));
        let pid_file = world.folder().join(format!("pid{number}")).display().to_string();
        let line = [PODMAN, &["-q", "-P", &pid_file, "--netns", &netns]].concat();
        let starting = rootless.spawn_pasta(&line);
        std::thread::sleep(Duration::from_millis(number * 4));
        drop(starting);
        let named = || fs::read_to_string(&pid_file).ok()?.strip_suffix('\n')?.parse::<u32>().ok();
        wait_until(PATIENCE, "no daemon, or one that is named", || {
            // A helper outside of the sandbox is the other process.
            let daemons = rootless.daemons();
            daemons.is_empty() || named().is_some_and(|pid| daemons.contains(&pid))
        });
        rootless.remove_netns(&netns);
        rootless.wait_for_end();
    }
}

#[test]
fn namespace_that_goes_while_it_starts_leaves_no_daemon() {
    let world = needs!(World::ordinary());
    let rootless = Rootless::new(&world);
    for number in 0..10_u64 {
        let netns = rootless.netns(&format!("n{number}"));
        let running = rootless.spawn_pasta(&[PODMAN, &["-q", "--netns", &netns]].concat());
        std::thread::sleep(Duration::from_millis(number * 3));
        rootless.remove_netns(&netns);
        // Ready before, or not: both are right.
        let output = running.finish();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}", output.stderr);
        rootless.wait_for_end();
    }
}
