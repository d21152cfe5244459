//! Start, configuration and end of the real process.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::TcpListener;
use std::time::Duration;

use nix::sys::signal::Signal;
use slirp_tests::*;

fn transfer(world: &World) {
    let listener =
        world.remote.enter(|| TcpListener::bind((FAR, 0))).expect("the remote has this address");
    let guest = connect(&world.guest, listener.local_addr().unwrap()).expect("it connects");
    let remote = bounded(listener.accept().unwrap().0);
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| send_exact(&guest, 1, 4 << 20));
        receive_exact(&remote, 1, 4 << 20).unwrap();
        sent.join().unwrap().unwrap();
        let sent = scope.spawn(|| send_exact(&remote, 2, 4 << 20));
        receive_exact(&guest, 2, 4 << 20).unwrap();
        sent.join().unwrap().unwrap();
    });
}

/// No process of the test's world but the three holders: whatever the binary started has ended with
/// it.
fn assert_nothing_left(world: &World) {
    let folder = world.folder().to_str().unwrap().to_owned();
    wait_until(PATIENCE, "no process of the binary is left", || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        !processes.into_iter().any(|process| {
            let files = std::fs::read_dir(process.path().join("fd")).into_iter().flatten();
            files.flatten().any(|file| {
                std::fs::read_link(file.path())
                    .is_ok_and(|target| target.to_string_lossy().starts_with(&folder))
            })
        })
    });
}

#[test]
fn ready_byte_is_written_once_and_the_banner_names_the_plan() {
    let world = needs!(World::root());
    let slirp = world.slirp().start();
    slirp.signal(Signal::SIGTERM);
    let exit = slirp.wait();
    assert!(exit.stderr.contains(" for tap0"), "{}", exit.stderr);
    assert!(exit.stderr.contains("received tapfd="), "{}", exit.stderr);
}

#[test]
fn banner_names_the_address_plan() {
    let world = needs!(World::root());
    let mut slirp = world.slirp().options(&["--exit-fd=4"]).start();
    slirp.close_exit_fd();
    let exit = slirp.wait();
    for line in [
        "Starting slirp",
        "* MTU:             1500",
        "* Network:         10.0.2.0",
        "* Netmask:         255.255.255.0",
        "* Gateway:         10.0.2.2",
        "* DNS:             10.0.2.3",
        "* DHCP begin:      10.0.2.15",
        "* DHCP end:        10.0.2.30",
        "* Recommended IP:  10.0.2.100",
    ] {
        assert!(exit.stdout.lines().any(|said| said == line), "{line} in {}", exit.stdout);
    }
    let warning = "WARNING: 127.0.0.1:* on the host is accessible as 10.0.2.2";
    assert!(exit.stdout.contains(warning), "{}", exit.stdout);
}

#[test]
fn configure_sets_up_the_guest() {
    let world = needs!(World::root());
    let _slirp = world.slirp().options(&["--mtu=1400"]).start();
    let link = world.guest.script("ip -d link show tap0");
    assert!(link.contains("mtu 1400") && link.contains("tun type tap"), "{link}");
    assert!(link.contains("LOWER_UP"), "{link}");
    let address = world.guest.script("ip -4 addr show tap0");
    assert!(address.contains("inet 10.0.2.100/24"), "{address}");
    let route = world.guest.script("ip -4 route show default");
    assert!(route.starts_with("default via 10.0.2.2 dev tap0"), "{route}");
    let loopback = world.guest.script("ip link show lo");
    assert!(loopback.contains("LOOPBACK,UP"), "{loopback}");
}

#[test]
fn configure_keeps_the_multicast_flag() {
    let world = needs!(World::root());
    let _slirp = world.slirp().start();
    let link = world.guest.script("ip link show tap0");
    assert!(link.contains("<BROADCAST,MULTICAST,UP"), "{link}");
}

#[test]
fn without_configure_the_tap_stays_down() {
    let world = needs!(World::root());
    let _slirp = world.slirp().bare().start();
    let link = world.guest.script("ip link show tap0");
    assert!(link.contains("state DOWN") && !link.contains(",UP"), "{link}");
    assert_eq!(world.guest.script("ip -4 addr show tap0"), "");
    world.configure_tap_by_hand("tap0");
    transfer(&world);
}

#[test]
fn persistent_tap_of_the_runtime_is_attached_and_survives() {
    let world = needs!(World::ordinary());
    world.guest.script("ip tuntap add name tap0 mode tap; ip link set tap0 mtu 65520 up");
    let slirp = world.slirp().bare().options(&["--mtu=65520"]).start();
    world
        .guest
        .script("ip addr add 10.0.2.100/24 dev tap0; ip route add default via 10.0.2.2 dev tap0");
    transfer(&world);
    drop(slirp);
    assert!(world.guest.script("ip link show tap0").contains("NO-CARRIER"));
    // A second process takes the same tap over.
    let _again = world.slirp().bare().options(&["--mtu=65520"]).start();
    transfer(&world);
}

#[test]
fn closing_the_exit_fd_ends_it_with_success() {
    let world = needs!(World::root());
    let mut slirp = world.slirp().options(&["--exit-fd=4"]).start();
    slirp.close_exit_fd();
    let exit = slirp.wait();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert!(exit.stderr.contains("exitfd event"), "{}", exit.stderr);
    assert_nothing_left(&world);
}

#[test]
fn data_on_the_exit_fd_or_a_file_as_exit_fd_ends_nothing() {
    let world = needs!(World::root());
    // 4 is a pipe, 0 is /dev/null.
    for option in ["--exit-fd=4", "--exit-fd=0"] {
        let mut slirp = world.slirp().options(&[option]).start();
        if option == "--exit-fd=4" {
            // Unnamed, the pipe is closed by a process that is confined.
            slirp.write_exit_fd(b"data");
        }
        // Time enough to end by mistake.
        transfer(&world);
        slirp.signal(Signal::SIGTERM);
        let exit = slirp.wait();
        assert_eq!(exit.signal, Some(Signal::SIGTERM as i32), "{option}: {}", exit.stderr);
        assert!(!exit.stderr.contains("exitfd event"), "{option}: {}", exit.stderr);
    }
}

#[test]
fn exit_fd_that_is_not_open_ends_it_with_success() {
    let world = needs!(World::root());
    let exit = world.slirp().options(&["--exit-fd=77"]).run();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
}

#[test]
fn ready_fd_that_is_not_open_is_ignored() {
    let world = needs!(World::root());
    let mut slirp = world.slirp().options(&["--ready-fd=77", "--exit-fd=4"]).spawn();
    wait_until(PATIENCE, "the tap is up", || {
        world.guest.exec(&["ip", "link", "show", "tap0", "up"]).stdout.contains("tap0")
    });
    transfer(&world);
    slirp.close_exit_fd();
    assert_eq!(slirp.wait().code, Some(0));
}

#[test]
fn term_and_int_end_it_and_the_tap() {
    let world = needs!(World::root());
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let slirp = world.slirp().start();
        let open = TcpServer::echo(&world.remote, (FAR, 0).into());
        let _stream = connect(&world.guest, open.address()).unwrap();
        slirp.signal(signal);
        let exit = slirp.wait();
        assert!(
            exit.code.is_some_and(|code| code == 0 || code == 128 + signal as i32)
                || exit.signal == Some(signal as i32),
            "{exit:?}"
        );
        assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
        let gone = || !world.guest.exec(&["ip", "link", "show", "tap0"]).status.success();
        wait_until(PATIENCE, "the tap is gone", gone);
        assert_nothing_left(&world);
    }
}

#[test]
fn deleted_tap_ends_it_with_a_line_and_without_a_spin() {
    let world = needs!(World::root());
    let slirp = world.slirp().start();
    world.guest.script("ip link del tap0");
    let exit = slirp.wait();
    assert_eq!(exit.code, Some(1), "{exit:?}");
    let lines = exit.stderr.lines().count();
    // The two about the tap, and one.
    assert_eq!(lines, 3, "{}", exit.stderr);
    assert!(exit.stderr.ends_with("the TAP device is gone\n"), "{}", exit.stderr);
}

#[test]
fn tap_set_down_and_up_again_works_on() {
    let world = needs!(World::root());
    let slirp = world.slirp().start();
    transfer(&world);
    world.guest.script("ip link set tap0 down");
    let spent = slirp.facts().cpu_time_during(Duration::from_millis(500));
    assert!(spent < Duration::from_millis(100), "{spent:?}");
    world.guest.script("ip link set tap0 up; ip route replace default via 10.0.2.2");
    transfer(&world);
}

#[test]
fn dead_container_leaves_it_idle_or_ended() {
    let mut world = needs!(World::root());
    let slirp = world.slirp().start();
    world.guest.kill_holder();
    let spent = slirp.facts().cpu_time_during(Duration::from_secs(1));
    assert!(spent < Duration::from_millis(100), "{spent:?}");
}

#[test]
fn two_processes_serve_two_containers_of_one_host() {
    let world = needs!(World::root());
    let _slirp = world.slirp().start();
    let second = Namespace::container(&world.host, Account::Root);
    let _other = world.slirp().positionals(&[&second.pid().to_string(), "tap0"]).start();
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    connect(&world.guest, server.address()).expect("the first container is on the network");
    connect(&second, server.address()).expect("the second container is on the network");
}

#[test]
fn idle_process_is_small_and_sleeps() {
    let world = needs!(World::root());
    let slirp = world.slirp().start();
    let spent = slirp.facts().cpu_time_during(Duration::from_secs(1));
    assert!(spent <= Duration::from_millis(20), "{spent:?}");
    assert!(slirp.facts().open_files() < 40);
}

const WATCH: &str = "--exit-with-netns";
const CONFINED: [&str; 2] = ["--enable-sandbox", "--enable-seccomp"];

#[test]
fn end_of_the_process_ends_it_where_that_is_asked_for() {
    for (account, options) in
        [(Account::Root, &[][..]), (Account::Root, &CONFINED), (Account::Ordinary, &CONFINED)]
    {
        let mut world = needs!(World::of(account));
        let slirp = world.slirp().options(&[WATCH]).options(options).start();
        transfer(&world);
        let gone = format!("process {} is gone\n", world.guest.pid());
        world.guest.kill_holder();
        let exit = slirp.wait();
        assert_eq!(exit.code, Some(0), "{exit:?}");
        assert!(exit.stderr.ends_with(&gone), "{}", exit.stderr);
        assert_eq!(exit.stderr.lines().count(), 3, "{}", exit.stderr);
    }
}

#[test]
fn path_of_a_process_is_watched_as_the_process() {
    let mut world = needs!(World::ordinary());
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", world.guest.pid());
    let userns = format!("--userns-path={}", path("user"));
    let slirp = world
        .slirp()
        .options(&[WATCH, "--netns-type=path", &userns])
        .options(&CONFINED)
        .positionals(&[&path("net"), "tap0"])
        .start();
    world.guest.kill_holder();
    assert_eq!(slirp.wait().code, Some(0));
}

/// A name for the guest's network namespace, as `ip netns attach` makes it, in the host's mounts.
fn bind_namespace(world: &World) -> String {
    let name = format!("{}/netns", world.folder().display());
    world
        .host
        .script(&format!("touch {name}; mount --bind /proc/{}/ns/net {name}", world.guest.pid()));
    name
}

#[test]
fn end_of_the_name_ends_it_where_that_is_asked_for() {
    let other = "mount --bind /proc/self/ns/net NAME";
    for (end, options) in [
        ("umount NAME", &[][..]),
        ("umount NAME", &CONFINED),
        ("umount --lazy NAME; rm NAME", &CONFINED),
        (other, &CONFINED),
    ] {
        let world = needs!(World::root());
        let name = bind_namespace(&world);
        let slirp = world
            .slirp()
            .options(&[WATCH, "--netns-type=path"])
            .options(options)
            .positionals(&[&name, "tap0"])
            .start();
        // Other changes in its folder do not matter.
        world.host.script(&format!(
            "touch {name}.other; mv {name}.other {name}.else; rm {name}.else
            mkdir {name}.folder; mount -t tmpfs tmpfs {name}.folder; umount {name}.folder"
        ));
        transfer(&world);
        assert!(slirp.facts().is_alive(), "{}", slirp.stderr());
        world.host.script(&end.replace("NAME", &name));
        let exit = slirp.wait();
        assert_eq!(exit.code, Some(0), "{end}: {exit:?}");
        assert!(exit.stderr.ends_with(&format!("{name} is gone\n")), "{end}: {}", exit.stderr);
    }
}

#[test]
fn name_that_is_removed_elsewhere_counts_as_gone() {
    let world = needs!(World::root());
    let name = bind_namespace(&world);
    let slirp = world
        .slirp()
        .options(&[WATCH, "--netns-type=path", "--enable-sandbox"])
        .positionals(&[&name, "tap0"])
        .start();
    // In the mount namespace of the test nothing is mounted on the file, so it can go.
    std::fs::remove_file(&name).unwrap();
    let exit = slirp.wait();
    assert_eq!(exit.code, Some(0), "{exit:?}");
}

#[test]
fn what_cannot_be_watched_is_refused() {
    let world = needs!(World::root());
    let exit = world
        .slirp()
        .options(&[WATCH, "--netns-type=path"])
        .positionals(&["/proc/self/ns/net", "tap0"])
        .run();
    assert_eq!(exit.code, Some(1), "{exit:?}");
    let reason = "--exit-with-netns: cannot watch /proc/self/ns/net: give a PID, ";
    assert!(exit.stderr.starts_with(reason), "{}", exit.stderr);
}

#[test]
fn without_being_asked_it_outlives_the_process() {
    let mut world = needs!(World::root());
    let mut slirp = world.slirp().options(&["--exit-fd=4"]).start();
    world.guest.kill_holder();
    slirp.close_exit_fd();
    let exit = slirp.wait();
    assert!(exit.stderr.ends_with("exitfd event\ndo_slirp is exiting\n"), "{}", exit.stderr);
}

/// The one child of a process.
fn child_of(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// A container of the ordinary user whose root is yet another user of the host, as newuidmap(1)
/// makes it for a runtime that maps subordinate ids only.
fn container_of_subordinate_ids(world: &World) -> Background {
    let holder = world.host.spawn(&[
        "setpriv",
        "--reuid=1500",
        "--regid=1500",
        "--clear-groups",
        "--inh-caps=-all",
        "--",
        "unshare",
        "--user",
        "--net",
        "--mount",
        "--",
        "cat",
    ]);
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let pid = holder.pid().to_string();
    let before = namespace(&world.host.pid().to_string());
    wait_until(PATIENCE, "its namespaces", || {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name == "cat\n" && namespace(&pid) != before
    });
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{pid}/{map}"), "0 100000 65536").unwrap();
    }
    holder
}

#[test]
fn death_of_the_parent_ends_it_where_the_caller_wants_that() {
    // The shell lets go of the ready-fd, which it would hold open otherwise.
    let script = "setpriv --pdeathsig TERM -- \"$@\" & exec 3>&-; wait";
    for (account, options) in
        [(Account::Root, &[][..]), (Account::Root, &CONFINED), (Account::Ordinary, &CONFINED)]
    {
        let world = needs!(World::of(account));
        let other = container_of_subordinate_ids(&world);
        for pid in [world.guest.pid(), other.pid()] {
            let caller = world
                .slirp()
                .options(options)
                .positionals(&[&pid.to_string(), "tap0"])
                .behind(&["sh", "-c", script, "sh"])
                .start();
            let slirp = ProcessFacts(child_of(caller.pid()).expect("the shell has started it"));
            assert!(slirp.is_alive());
            caller.signal(Signal::SIGKILL);
            wait_until(PATIENCE, "it follows its parent", || !slirp.is_alive());
        }
    }
}

#[test]
fn what_is_logged_is_chosen_by_the_option_or_else_by_the_environment() {
    let world = needs!(World::root());
    let log = |behind: &[&str], options: &[&str]| {
        let slirp = world.slirp().behind(behind).options(options).start();
        // No resolver listens, which is worth a debug line before the guest is told so.
        let answer = world.guest.exec(&["dig", "@10.0.2.3", "+tries=1", "+time=50", "a.test"]);
        assert!(answer.stdout.contains("SERVFAIL"), "{}", answer.stdout);
        slirp.signal(Signal::SIGTERM);
        slirp.wait().stderr
    };
    let (none, debug) = (&["env", "-u", "SLIRP_LOG"][..], &["env", "SLIRP_LOG=debug"][..]);
    for (behind, options, is_ready, is_debug) in [
        (none, &[][..], false, false),
        (none, &["--log-level=warn"], false, false),
        (none, &["--log-level=info"], true, false),
        (none, &["--log-level=debug"], true, true),
        (debug, &[], true, true),
        (debug, &["--log-level=info"], true, false),
        (debug, &["--log-level=error"], false, false),
    ] {
        let stderr = log(behind, options);
        assert_eq!(stderr.contains(" INFO ") && stderr.contains("ready"), is_ready, "{stderr}");
        assert_eq!(stderr.contains("DEBUG "), is_debug, "{behind:?} {options:?}: {stderr}");
    }
}
