//! A start that cannot succeed says so once, before a device is made or the summary printed.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use slirp_tests::*;

const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

/// The lines by which slirp4netns(1) ends a failed start, whatever has failed.
const KNOWN_ENDS: [&str; 4] =
    ["do_slirp is exiting", "do_slirp failed", "parent failed", "child failed(1)"];

/// Starts with `options`, which must end in `failure` on a line of its own and leave no trace.
fn refused(world: &World, options: &[&str], failure: &str) {
    let before = world.guest.next_interface();
    let exit = world.slirp().options(options).run();
    assert_eq!(exit.code, Some(1), "{options:?}: {exit:?}");
    assert_eq!(
        world.guest.next_interface(),
        before + 1,
        "{options:?}: a device was made: {}",
        exit.stderr
    );
    assert!(!exit.stdout.contains("Starting slirp"), "{options:?}: {}", exit.stdout);
    let is_news = |line: &&str| !line.starts_with("hint: ") && !KNOWN_ENDS.contains(line);
    let told: Vec<&str> = exit.stderr.lines().filter(is_news).collect();
    assert!(told.len() == 1 && told[0].starts_with(failure), "{options:?}: {}", exit.stderr);
    assert!(exit.stderr.matches("hint: ").count() <= 1, "{options:?}: {}", exit.stderr);
}

#[test]
fn port_that_cannot_be_opened_is_told_once_and_before_the_device() {
    let world = needs!(World::root());
    let _tcp = world.host.enter(|| TcpListener::bind((ANY, 8080))).unwrap();
    let _udp = world.host.enter(|| UdpSocket::bind((ANY, 5353))).unwrap();
    for (options, failure) in [
        (&["--publish=8080:80"][..], "cannot listen on 0.0.0.0:8080 for TCP: Address already in"),
        (&["--publish=8078-8081:80"], "cannot listen on 0.0.0.0:8080 for TCP: Address already in"),
        (&["--publish=udp:5353:53"], "cannot listen on 0.0.0.0:5353 for UDP: Address already in"),
        (
            &["--publish=9000:80", "--publish=9000:81"],
            "cannot listen on 0.0.0.0:9000 for TCP: Address already in use",
        ),
        (
            &["--publish=192.0.2.1:9000:80"],
            "cannot listen on 192.0.2.1:9000 for TCP: Cannot assign requested address",
        ),
        (&["--publish=9000:10.0.2.2:80"], "10.0.2.2 is not an address that the guest can have"),
    ] {
        refused(&world, options, failure);
    }
    // What was tried is closed again.
    let slirp = world.slirp().options(&["--publish=8078-8079:80", "--publish=9000:80"]).start();
    assert!(slirp.stdout().contains("Starting slirp\n"), "{}", slirp.stdout());
}

#[test]
fn port_beyond_the_descriptors_is_told_before_the_device() {
    let world = needs!(World::root());
    let before = world.guest.next_interface();
    let options = ["--publish=10000-10999:80"];
    let exit = world.slirp().options(&options).behind(&["prlimit", "--nofile=256"]).run();
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.starts_with("forwarded ports would need 1000 descriptors"), "{exit:?}");
    assert_eq!(exit.stderr.lines().count(), 1, "{}", exit.stderr);
    assert_eq!(world.guest.next_interface(), before + 1);
    // The soft limit alone is no obstacle.
    drop(world.slirp().options(&options).behind(&["prlimit", "--nofile=256:"]).start());
}

#[test]
fn address_that_the_host_lacks_is_told_before_the_device() {
    let world = needs!(World::root());
    for (option, failure) in [
        ("--outbound-addr=192.0.2.77", "no interface of the host has the outbound address"),
        ("--outbound-addr6=2001:db8:7::7", "no interface of the host has the outbound address"),
        ("--outbound-addr=224.0.0.1", "the outbound address 224.0.0.1 is not that of a single"),
        ("--macaddress=01:00:5e:00:00:01", "cannot set MAC address: Cannot assign requested addr"),
        ("--macaddress=00:00:00:00:00:00", "cannot set MAC address: Cannot assign requested addr"),
    ] {
        refused(&world, &[option], failure);
    }
}

#[test]
fn file_that_cannot_be_made_is_told_before_the_device() {
    let world = needs!(World::root());
    let folder = world.folder().display();
    let (fifo, file) = (world.folder().join("fifo"), world.folder().join("file"));
    nix::unistd::mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    std::fs::write(&file, "").unwrap();
    for (option, failure) in [
        ("--api-socket=/nonexistent/api.sock", "api_bindlisten: bind: No such file or directory"),
        (&format!("--api-socket={folder}"), "api_bindlisten: bind: Address already in use"),
        (&format!("--api-socket={folder}/file/x"), "api_bindlisten: bind: Not a directory"),
        (
            &format!("--api-socket=/tmp/{}", "x".repeat(108)),
            "the specified API socket path is too long (>= 108)",
        ),
        ("--pcap=/nonexistent/x", "cannot record in /nonexistent/x: No such file or directory"),
        ("--pcap=/tmp", "cannot record in /tmp: Is a directory"),
        (
            &format!("--pcap={}", fifo.display()),
            &format!("cannot record in {}: nobody reads from this FIFO", fifo.display()),
        ),
    ] {
        refused(&world, &[option], failure);
    }
}

#[test]
fn what_an_ordinary_user_may_not_have_is_told_before_the_device() {
    let world = needs!(World::ordinary());
    let closed = world.folder().join("closed");
    std::fs::create_dir(&closed).unwrap();
    let sticky = world.folder().join("sticky");
    std::fs::create_dir(&sticky).unwrap();
    std::fs::set_permissions(&sticky, PermissionsExt::from_mode(0o1777)).unwrap();
    let _foreign = UnixListener::bind(sticky.join("foreign.sock")).unwrap();
    let (closed, sticky) = (closed.display(), sticky.display());
    for (option, failure) in [
        ("--publish=80:80", "cannot listen on 0.0.0.0:80 for TCP: Permission denied"),
        (&format!("--api-socket={closed}/api.sock"), "api_bindlisten: bind: Permission denied"),
        (
            &format!("--api-socket={sticky}/foreign.sock"),
            "api_bindlisten: bind: Address already in use",
        ),
        (&format!("--pcap={closed}/x"), &format!("cannot record in {closed}/x: Permission denied")),
    ] {
        refused(&world, &[option], failure);
    }
    // Others' folders and files are no obstacle where they may be written to and removed.
    drop(world.slirp().options(&[&format!("--api-socket={sticky}/own.sock")]).start());
}

#[test]
fn start_that_fails_on_the_device_touches_nothing_of_others() {
    let world = needs!(World::root());
    let (api, recording) = (Api::new(&world), world.folder().join("guest.pcap"));
    let first = world.slirp().options(&[&api.option()]).start();
    std::fs::write(&recording, "as it was").unwrap();
    let pcap = format!("--pcap={}", recording.display());
    let exit = world.slirp().options(&[&api.option(), &pcap]).run();
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.starts_with("ioctl(TUNSETIFF): Device or resource busy\n"), "{exit:?}");
    assert!(!exit.stdout.contains("Starting slirp"), "{}", exit.stdout);
    assert_eq!(std::fs::read(&recording).unwrap(), b"as it was");
    let listed = api.ask("{\"execute\":\"list_hostfwd\"}");
    assert!(listed.starts_with("{\"return\""), "{listed}");
    drop(first);
}

#[test]
fn port_of_connections_in_time_wait_is_no_obstacle() {
    let world = needs!(World::root());
    let options = ["--publish=8080:80"];
    let slirp = world.slirp().options(&options).start();
    let server = world.guest.enter(|| TcpListener::bind((ANY, 80))).unwrap();
    let mut client = connect(&world.remote, (HOST, 8080).into()).unwrap();
    // The guest's side ends first, so the host's socket is the one that waits.
    drop(server.accept().unwrap());
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(client);
    let waits = || world.host.script("ss -Htan state time-wait sport = :8080").contains(":8080");
    wait_until(PATIENCE, "a connection in TIME_WAIT", waits);
    slirp.signal(Signal::SIGTERM);
    slirp.wait();
    assert!(waits(), "it is still there");
    world.guest.script("! ip link show tap0 2>/dev/null || ip link del tap0");
    drop(world.slirp().options(&options).start());
}

#[test]
fn port_that_a_client_is_refused_is_logged_once() {
    let world = needs!(World::root());
    let api = Api::new(&world);
    let slirp = world.slirp().options(&[&api.option()]).start();
    let _taken = world.host.enter(|| TcpListener::bind((ANY, 8080))).unwrap();
    let reply = api.ask(
        "{\"execute\":\"add_hostfwd\",\"arguments\":{\"proto\":\"tcp\",\"host_port\":8080,\
         \"guest_port\":80}}",
    );
    assert!(reply.contains("cannot listen on 0.0.0.0:8080"), "{reply}");
    let said = slirp.stderr();
    assert_eq!(said.matches("cannot listen on 0.0.0.0:8080").count(), 1, "{said}");
}

#[test]
fn ready_descriptor_that_cannot_be_written_to_is_warned_about_once() {
    let world = needs!(World::root());
    for prefix in [&[][..], &["sh", "-c", "exec 9</dev/null; exec \"$@\"", "sh"]] {
        let slirp = world.slirp().options(&["--ready-fd=9"]).behind(prefix).spawn();
        let up = || slirp.stdout().contains("* MAC address:");
        wait_until(PATIENCE, "the network is up nevertheless", up);
        let said = slirp.stderr();
        assert_eq!(said.matches("--ready-fd=9 is not open for writing").count(), 1, "{said}");
        // Before the device was made.
        assert!(said.starts_with("WARNING: --ready-fd=9"), "{said}");
        assert!(slirp.facts().is_alive());
        slirp.signal(Signal::SIGTERM);
        slirp.wait();
        world.guest.script("! ip link show tap0 2>/dev/null || ip link del tap0");
    }
}

#[test]
fn exit_descriptor_that_is_not_open_ends_the_run_with_a_warning() {
    let world = needs!(World::root());
    for option in ["--exit-fd=77", "--exit-fd=3"] {
        let mut slirp = world.slirp().options(&["--ready-fd=3", option]).spawn();
        assert_eq!(slirp.read_ready_fd(), b"1", "{option}");
        let exit = slirp.wait();
        assert_eq!(exit.code, Some(0), "{option}: {exit:?}");
        let said = exit.stderr;
        assert!(said.starts_with(&format!("WARNING: {option} is not open")), "{said}");
        assert_eq!(said.matches("WARNING: ").count(), 1, "{said}");
        assert!(said.ends_with("exitfd event\ndo_slirp is exiting\n"), "{said}");
        world.guest.script("! ip link show tap0 2>/dev/null || ip link del tap0");
    }
}
