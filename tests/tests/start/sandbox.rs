//! The process under `--enable-sandbox` and `--enable-seccomp`: the rights it has left, and that it
//! still works.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use nix::sys::signal::Signal;
use slirp_tests::*;

const SANDBOX: &str = "--enable-sandbox";
const SECCOMP: &str = "--enable-seccomp";
/// A loopback resolver as systemd-resolved has it.
const STUB: &str = "127.0.0.53";

/// A file below `/proc` of the process.
fn fact(slirp: &Slirp, file: &str) -> String {
    std::fs::read_to_string(format!("/proc/{}/{file}", slirp.pid())).unwrap()
}

fn status_line(slirp: &Slirp, name: &str) -> String {
    let status = fact(slirp, "status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim_start_matches(':').trim().to_owned()
}

fn assert_confined(slirp: &Slirp) {
    for task in std::fs::read_dir(format!("/proc/{}/task", slirp.pid())).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        for expected in [
            "CapInh:\t0000000000000400",
            "CapPrm:\t0000000000000400",
            "CapEff:\t0000000000000400",
            "CapBnd:\t0000000000000400",
            "CapAmb:\t0000000000000000",
            "NoNewPrivs:\t1",
        ] {
            assert!(status.lines().any(|line| line == expected), "{expected} in {status}");
        }
    }
    let limits = fact(slirp, "limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    // The files of a process that is not dumpable belong to root of the initial user namespace.
    let owner = std::os::unix::fs::MetadataExt::uid(
        &std::fs::metadata(format!("/proc/{}/environ", slirp.pid())).unwrap(),
    );
    assert_eq!(owner, 0);
}

fn root_folder(slirp: &Slirp) -> Vec<String> {
    let root = format!("/proc/{}/root/", slirp.pid());
    let mut names: Vec<_> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn transfer(world: &World) {
    let listener = world.remote.enter(|| TcpListener::bind((FAR, 0))).unwrap();
    let guest = connect(&world.guest, listener.local_addr().unwrap()).expect("it connects");
    let remote = bounded(listener.accept().unwrap().0);
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| send_exact(&guest, 1, 4 << 20));
        receive_exact(&remote, 1, 4 << 20).unwrap();
        sent.join().unwrap().unwrap();
    });
}

/// Whether a name is resolved through the nameserver of the guest by the server that answers
/// `last`.
fn resolves_to(world: &World, last: u8) -> bool {
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x04test\0\0\x01\0\x01";
    let socket = world.guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    socket.connect((NAMESERVER, 53)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.send(query).unwrap();
    let mut buffer = [0; 512];
    socket.recv(&mut buffer).is_ok_and(|len| buffer[..len].ends_with(&[203, 0, 113, last]))
}

/// A server on `address` of the host that answers each query with the address 203.0.113.`last`.
fn nameserver(world: &World, address: &str, last: u8) -> CannedDns {
    let mut answer = b"\0\0\x81\x80\0\x01\0\x01\0\0\0\0\x03www\x07example\x04test\0\0\x01\0\x01\
        \xc0\x0c\0\x01\0\x01\0\0\0\x07\0\x04\xcb\0\x71"
        .to_vec();
    answer.push(last);
    CannedDns::start(&world.host, address.parse().unwrap(), answer)
}

fn assert_followed(world: &World, last: u8) {
    wait_until(PATIENCE, &format!("the server {last} answers"), || resolves_to(world, last));
}

#[test]
fn root_keeps_one_capability_and_an_empty_folder() {
    let world = needs!(World::root());
    let slirp = world.slirp().options(&[SANDBOX]).start();
    assert_confined(&slirp);
    assert_eq!(root_folder(&slirp), [""; 0]);
    assert_eq!(status_line(&slirp, "Uid"), "0\t0\t0\t0");
    let namespace =
        |pid: u32, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    assert_eq!(namespace(slirp.pid(), "user"), namespace(world.host.pid(), "user"));
    assert_eq!(namespace(slirp.pid(), "net"), namespace(world.host.pid(), "net"));
    assert_ne!(namespace(slirp.pid(), "mnt"), namespace(world.host.pid(), "mnt"));
    transfer(&world);
}

/// Has resolv.conf in `folder`, and `/etc/resolv.conf` lead there.
fn in_run(world: &World, folder: &str) {
    world.host.script(&format!(
        "mkdir -p {folder}; cp /etc/resolv.conf {folder}/stub; ln -sf ..{folder}/stub \
         /etc/resolv.conf"
    ));
}

/// What the process has open, as paths.
fn open_files(slirp: &Slirp) -> Vec<std::path::PathBuf> {
    let folder = std::fs::read_dir(format!("/proc/{}/fd", slirp.pid())).unwrap();
    folder.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn nothing_of_the_host_can_be_opened_without_the_filter_either() {
    for account in [Account::Root, Account::Ordinary] {
        let world = needs!(World::of(account));
        world.host.script("mount -t tmpfs tmpfs /run; mkdir -p /run/user/1000; chmod 0711 /run");
        in_run(&world, "/run/systemd/resolve");
        world.host.script("echo root:secret > /etc/shadow; chmod 0600 /etc/shadow");
        let socket = |path: &str| {
            let path = format!("/proc/{}/root{path}", world.host.pid());
            std::os::unix::net::UnixListener::bind(path).unwrap()
        };
        let _services = [socket("/run/docker.sock"), socket("/run/user/1000/bus")];
        let name = format!("{}/netns", world.folder().display());
        let namespace = |kind: &str| format!("/proc/{}/ns/{kind}", world.guest.pid());
        world.host.script(&format!("touch {name}; mount --bind {} {name}", namespace("net")));
        let userns = format!("--userns-path={}", namespace("user"));
        // A watched name must not leave a way to its folder.
        let slirp = world
            .slirp()
            .options(&[SANDBOX, "--netns-type=path", "--exit-with-netns", &userns])
            .positionals(&[&name, "tap0"])
            .start();
        let root = format!("/proc/{}/root", slirp.pid());
        let inside = |path: &str| std::fs::symlink_metadata(format!("{root}{path}"));
        for path in
            ["/etc/shadow", "/etc/resolv.conf", "/etc", "/run/docker.sock", "/run/user/1000/bus"]
        {
            assert!(inside(path).is_err(), "{path}");
        }
        // Nor is there a descriptor from which a relative path begins, "../etc/shadow".
        for file in open_files(&slirp) {
            let shown = std::fs::read_link(&file).unwrap();
            assert!(!std::fs::metadata(&file).unwrap().is_dir(), "{}", shown.display());
        }
        transfer(&world);
    }
}

#[test]
fn nothing_is_asked_of_proc_where_nothing_is_given_up() {
    let world = needs!(World::root());
    let name = format!("{}/netns", world.folder().display());
    world
        .host
        .script(&format!("touch {name}; mount --bind /proc/{}/ns/net {name}", world.guest.pid()));
    let hide = "mount -t tmpfs tmpfs /proc && exec \"$0\" \"$@\"";
    let slirp = world
        .slirp()
        .without_extra_options()
        .options(&["--netns-type=path"])
        .positionals(&[&name, "tap0"])
        .behind(&["unshare", "-m", "sh", "-c", hide])
        .start();
    assert_eq!(std::fs::read_dir(format!("/proc/{}/root/proc", slirp.pid())).unwrap().count(), 0);
    transfer(&world);
}

#[test]
fn resolv_conf_is_followed_wherever_it_is_led() {
    for account in [Account::Root, Account::Ordinary] {
        let world = needs!(World::of(account));
        world.host.script("mount -t tmpfs tmpfs /run");
        in_run(&world, "/run/systemd/resolve");
        let _first = nameserver(&world, STUB, 1);
        let _second = nameserver(&world, "127.0.0.54", 2);
        let _third = nameserver(&world, "127.0.0.55", 3);
        let slirp = world.slirp().options(&[SANDBOX]).start();
        assert_eq!(root_folder(&slirp), [""; 0]);
        assert_followed(&world, 1);
        world.write_resolv_conf("nameserver 127.0.0.54\n");
        assert_followed(&world, 2);
        let replace = "cd /run/systemd/resolve; echo 'nameserver 127.0.0.55' > new; mv new stub";
        world.host.script(replace);
        assert_followed(&world, 3);
        world.host.script(
            "mkdir -p /run/manager; echo 'nameserver 127.0.0.54' > /run/manager/resolv.conf
            ln -s ../run/manager/resolv.conf /etc/link; mv /etc/link /etc/resolv.conf",
        );
        assert_followed(&world, 2);
        world.host.script("mount -t tmpfs tmpfs /run/manager");
        world.host.script("echo 'nameserver 127.0.0.53' > /run/manager/resolv.conf");
        assert_followed(&world, 1);
        world.replace_resolv_conf("nameserver 127.0.0.55\n");
        assert_followed(&world, 3);
        world.host.script("rm /etc/resolv.conf");
        assert!(resolves_to(&world, 3), "what is known is kept");
        world.write_resolv_conf("nameserver 127.0.0.54\n");
        assert_followed(&world, 2);
        world.host.script("umount /run/manager");
    }
}

#[test]
fn fifo_or_folder_in_the_place_of_resolv_conf_holds_nobody_up() {
    for options in [&[][..], &[SANDBOX], &[SANDBOX, SECCOMP]] {
        let world = needs!(World::root());
        let _first = nameserver(&world, STUB, 1);
        let _second = nameserver(&world, "127.0.0.54", 2);
        let api = Api::new(&world);
        world.host.script("rm /etc/resolv.conf; mkfifo /etc/resolv.conf");
        let _slirp = world.slirp().options(options).options(&[&api.option()]).start();
        // The control thread, which reads the file, serves the API as well.
        assert!(!resolves_to(&world, 1));
        api.forward("{\"proto\":\"tcp\",\"host_port\":8080,\"guest_port\":80}");
        world.replace_resolv_conf("nameserver 127.0.0.53\n");
        assert_followed(&world, 1);
        world.host.script("rm /etc/resolv.conf; mkdir /etc/resolv.conf");
        assert!(resolves_to(&world, 1), "what is known is kept");
        world.host.script("rmdir /etc/resolv.conf");
        world.write_resolv_conf("nameserver 127.0.0.54\n");
        assert_followed(&world, 2);
    }
}

#[test]
fn nothing_in_the_sandbox_can_be_written() {
    let world = needs!(World::root());
    let slirp = world.slirp().options(&[SANDBOX]).start();
    let mounts = fact(&slirp, "mountinfo");
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    for line in mounts.lines() {
        let flags = line.split_whitespace().nth(5).unwrap();
        for flag in ["ro", "nosuid", "nodev", "noexec"] {
            assert!(flags.split(',').any(|has| has == flag), "{flag} in {line}");
        }
    }
}

#[test]
fn ordinary_user_becomes_root_of_the_guest_only() {
    let world = needs!(World::ordinary());
    let slirp = world.slirp().options(&[SANDBOX]).start();
    assert_confined(&slirp);
    assert_eq!(root_folder(&slirp), [""; 0]);
    assert_eq!(status_line(&slirp, "Uid"), "1500\t1500\t1500\t1500");
    assert_eq!(status_line(&slirp, "Groups"), "");
    let namespace =
        |pid: u32, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    assert_eq!(namespace(slirp.pid(), "user"), namespace(world.guest.pid(), "user"));
    assert_eq!(namespace(slirp.pid(), "net"), namespace(world.host.pid(), "net"));
    transfer(&world);
}

#[test]
fn ordinary_user_may_give_both_namespaces_by_path() {
    let world = needs!(World::ordinary());
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", world.guest.pid());
    let userns = format!("--userns-path={}", path("user"));
    let slirp = world
        .slirp()
        .options(&[SANDBOX, "--netns-type=path", &userns])
        .positionals(&[&path("net"), "tap0"])
        .start();
    assert_confined(&slirp);
    transfer(&world);
}

#[test]
fn resolv_conf_is_followed_from_inside() {
    for account in [Account::Root, Account::Ordinary] {
        let world = needs!(World::of(account));
        let _first = nameserver(&world, STUB, 1);
        let _second = nameserver(&world, "127.0.0.54", 2);
        let _third = nameserver(&world, "127.0.0.55", 3);
        let _slirp = world.slirp().options(&[SANDBOX, SECCOMP]).start();
        assert_followed(&world, 1);
        world.write_resolv_conf("nameserver 127.0.0.54\n");
        assert_followed(&world, 2);
        world.replace_resolv_conf("nameserver 127.0.0.55\n");
        assert_followed(&world, 3);
    }
}

#[test]
fn resolv_conf_far_from_etc_is_followed_as_any_other() {
    let world = needs!(World::root());
    world.host.script(
        "mkdir -p /mnt/wsl; echo 'nameserver 127.0.0.54' > /mnt/wsl/resolv.conf
        ln -s /mnt/wsl /mnt/link; ln -sf ../mnt/link/resolv.conf /etc/resolv.conf",
    );
    let _first = nameserver(&world, STUB, 1);
    let _second = nameserver(&world, "127.0.0.54", 2);
    let slirp = world.slirp().options(&[SANDBOX]).start();
    assert!(!slirp.stderr().contains("sandbox:"), "{}", slirp.stderr());
    assert_followed(&world, 2);
    world.write_resolv_conf("nameserver 127.0.0.53\n");
    assert_followed(&world, 1);
    world.host.script("cd /mnt/wsl; echo 'nameserver 127.0.0.54' > new; mv new resolv.conf");
    assert_followed(&world, 2);
}

#[test]
fn root_is_moved_where_pivot_root_is_refused() {
    let world = needs!(World::root());
    // A root whose parent mount is shared: pivot_root(2) says EINVAL, as it does on an initramfs.
    world.host.script(
        "mount -t tmpfs tmpfs /srv; mkdir /srv/root; mount --rbind / /srv/root
        mount --make-shared /srv",
    );
    let slirp = world.slirp().options(&[SANDBOX]).behind(&["chroot", "/srv/root"]).start();
    assert_confined(&slirp);
    assert_eq!(root_folder(&slirp), [""; 0]);
    transfer(&world);
}

#[test]
fn every_kind_of_traffic_passes_under_both() {
    let world = needs!(World::root());
    let _dns = nameserver(&world, STUB, 7);
    let slirp = world.slirp().options(&[SANDBOX, SECCOMP, "--enable-ipv6"]).start();
    let stdout = slirp.stdout();
    assert!(stdout.contains("WARNING: Support for seccomp is experimental\n"), "{stdout}");
    assert!(stdout.lines().any(|line| line.starts_with("seccomp: ")), "{stdout}");
    for task in std::fs::read_dir(format!("/proc/{}/task", slirp.pid())).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2\n"), "{status}");
    }
    transfer(&world);
    assert!(resolves_to(&world, 7));
    let echo = UdpServer::start(&world.remote, (FAR, 0).into(), |socket, bytes, from| {
        // The asker may have gone.
        let _ = socket.send_to(bytes, from);
    });
    let socket = world.guest.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap();
    socket.set_read_timeout(Some(IO_LIMIT)).unwrap();
    socket.send_to(b"datagram", echo.address()).unwrap();
    assert_eq!(socket.recv(&mut [0; 32]).unwrap(), 8);
    world.guest.script("ping -c 1 -W 20 10.0.2.2");
    let gone = connect(&world.guest, SocketAddr::from((FAR, 1)));
    assert!(gone.is_err(), "nobody listens there");
    wait_until(PATIENCE, "an IPv6 route", || {
        world.guest.script("ip -6 route show default").contains("via fe80::2")
    });
    let server = TcpServer::echo(&world.remote, (FAR_V6, 0).into());
    wait_until(PATIENCE, "an IPv6 connection", || connect(&world.guest, server.address()).is_ok());
    assert!(slirp.facts().is_alive());
    slirp.signal(Signal::SIGTERM);
    assert_eq!(slirp.wait().signal, Some(Signal::SIGTERM as i32));
}

#[test]
fn old_name_of_the_sandbox_warns_and_works() {
    let world = needs!(World::root());
    let slirp = world.slirp().options(&["--create-sandbox"]).start();
    assert!(slirp.stdout().contains("WARNING: --create-sandbox is deprecated"));
    assert_confined(&slirp);
}

/// The process that stays outside.
fn helper_of(slirp: &Slirp) -> u32 {
    let children = fact(slirp, &format!("task/{}/children", slirp.pid()));
    let mut children = children.split_whitespace();
    let only = children.next().expect("there is a helper").parse().unwrap();
    assert_eq!(children.next(), None, "there is one");
    only
}

#[test]
fn api_socket_is_removed_from_outside_however_it_ends() {
    for account in [Account::Root, Account::Ordinary] {
        let world = needs!(World::of(account));
        let api = Api::new(&world);
        for end in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGKILL] {
            let slirp = world.slirp().options(&[SANDBOX, SECCOMP, &api.option()]).start();
            assert!(api.path().exists());
            let helper = ProcessFacts(helper_of(&slirp));
            // It holds its ends of two pipes, and neither the device nor any pipe of our caller's.
            wait_until(PATIENCE, "a bare helper", || helper.open_files() == 2);
            slirp.signal(end);
            assert_eq!(slirp.wait().signal, Some(end as i32));
            if end == Signal::SIGKILL {
                // The helper is still a zombie.
                wait_until(PATIENCE, "the file is gone", || !api.path().exists());
            }
            assert!(!api.path().exists(), "{end}");
            wait_until(PATIENCE, "the helper is gone", || !helper.is_alive());
            world.guest.script("! ip link show tap0 2>/dev/null || ip link del tap0");
        }
        let mut slirp =
            world.slirp().options(&[SANDBOX, SECCOMP, &api.option(), "--exit-fd=4"]).start();
        slirp.close_exit_fd();
        assert_eq!(slirp.wait().code, Some(0));
        assert!(!api.path().exists());
    }
}

#[test]
fn file_that_somebody_else_has_put_in_place_of_the_api_socket_stays() {
    let world = needs!(World::root());
    let api = Api::new(&world);
    let slirp = world.slirp().options(&[SANDBOX, &api.option()]).start();
    let helper = ProcessFacts(helper_of(&slirp));
    std::fs::rename(api.path(), api.path().with_extension("moved")).unwrap();
    std::fs::write(api.path(), "somebody else's").unwrap();
    slirp.signal(Signal::SIGTERM);
    slirp.wait();
    wait_until(PATIENCE, "the helper is gone", || !helper.is_alive());
    assert_eq!(std::fs::read_to_string(api.path()).unwrap(), "somebody else's");
}

#[test]
fn without_anything_to_do_outside_there_is_no_helper() {
    for options in [&["--dns=127.0.0.53"][..], &["--disable-dns"]] {
        let world = needs!(World::root());
        let slirp = world.slirp().options(&[SANDBOX, SECCOMP]).options(options).start();
        assert_eq!(fact(&slirp, &format!("task/{}/children", slirp.pid())), "");
    }
}

#[test]
fn loss_of_the_helper_stops_no_traffic() {
    let world = needs!(World::root());
    let _first = nameserver(&world, STUB, 1);
    let api = Api::new(&world);
    let slirp = world.slirp().options(&[SANDBOX, SECCOMP, &api.option()]).start();
    assert_followed(&world, 1);
    let helper = helper_of(&slirp);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(helper.cast_signed()), Signal::SIGKILL)
        .unwrap();
    wait_until(PATIENCE, "somebody says so", || {
        assert!(resolves_to(&world, 1), "what is known is kept");
        slirp.stderr().contains("the reader of resolv.conf has ended")
    });
    transfer(&world);
    slirp.signal(Signal::SIGTERM);
    assert_eq!(slirp.wait().signal, Some(Signal::SIGTERM as i32));
}

#[test]
fn loss_of_the_helper_that_watches_the_name_counts_as_its_end() {
    let world = needs!(World::root());
    let name = format!("{}/netns", world.folder().display());
    world
        .host
        .script(&format!("touch {name}; mount --bind /proc/{}/ns/net {name}", world.guest.pid()));
    let slirp = world
        .slirp()
        .options(&[SANDBOX, SECCOMP, "--netns-type=path", "--exit-with-netns"])
        .positionals(&[&name, "tap0"])
        .start();
    let helper = helper_of(&slirp);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(helper.cast_signed()), Signal::SIGKILL)
        .unwrap();
    let exit = slirp.wait();
    assert_eq!(exit.code, Some(0), "{exit:?}");
}

#[test]
fn root_may_give_both_namespaces_by_path() {
    let world = needs!(World::root());
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", world.guest.pid());
    let userns = format!("--userns-path={}", path("user"));
    let slirp = world
        .slirp()
        .options(&[SANDBOX, SECCOMP, "--netns-type=path", &userns])
        .positionals(&[&path("net"), "tap0"])
        .start();
    assert_confined(&slirp);
    transfer(&world);
}

#[test]
fn network_namespace_of_a_user_without_the_right_to_it_is_refused() {
    // The guest is root's: an ordinary user cannot enter its user namespace.
    let world = needs!(World::root());
    let exit = world.slirp().options(&[SANDBOX]).account(Account::Ordinary).run();
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("/ns/net: Permission denied"), "{}", exit.stderr);
}

#[test]
fn memory_is_not_read_by_the_guests_owner() {
    let world = needs!(World::ordinary());
    let slirp = world.slirp().options(&[SANDBOX]).start();
    // Root of the user namespace that the process lives in, with every capability there.
    let read = format!("dd if=/proc/{}/mem bs=1 count=1 of=/dev/null", slirp.pid());
    let output = world.guest.exec(&["sh", "-c", &read]);
    assert!(!output.status.success(), "{}", output.stderr);
    assert!(output.stderr.contains("Permission denied"), "{}", output.stderr);
}

#[test]
fn forwarded_ports_work_under_both() {
    let world = needs!(World::root());
    let api = Api::new(&world);
    let _slirp = world.slirp().options(&[SANDBOX, SECCOMP, &api.option()]).start();
    // Below 1024: that is what the one capability is kept for.
    api.forward("{\"proto\":\"tcp\",\"host_port\":80,\"guest_port\":8080}");
    let listener = world.guest.enter(|| TcpListener::bind("0.0.0.0:8080")).unwrap();
    let client = connect(&world.remote, (HOST, 80).into()).unwrap();
    let (_, from) = listener.accept().unwrap();
    assert_eq!(from, client.local_addr().unwrap());
    api.forward("{\"proto\":\"udp\",\"host_port\":53,\"guest_port\":5353}");
    let server = world.guest.enter(|| UdpSocket::bind("0.0.0.0:5353")).unwrap();
    let client = world.remote.enter(|| UdpSocket::bind((REMOTE, 0))).unwrap();
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(IO_LIMIT)).unwrap();
    }
    client.send_to(b"ask", (HOST, 53)).unwrap();
    let (_, from) = server.recv_from(&mut [0; 16]).unwrap();
    server.send_to(b"answer", from).unwrap();
    assert_eq!(client.recv_from(&mut [0; 16]).unwrap().1, SocketAddr::from((HOST, 53)));
}

#[test]
fn descriptors_that_the_caller_left_open_are_closed() {
    let world = needs!(World::root());
    let api = Api::new(&world);
    let options: [&[&str]; 3] = [&[SANDBOX], &[SECCOMP], &[SANDBOX, SECCOMP]];
    for options in options {
        let leave = "exec 77</etc/passwd 10</etc 11<&0 \"$@\"";
        let slirp = world
            .slirp()
            .options(options)
            .options(&[&api.option()])
            .behind(&["bash", "-c", leave, "bash"])
            .start();
        let open: Vec<_> = std::fs::read_dir(format!("/proc/{}/fd", slirp.pid()))
            .unwrap()
            .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap())
            .collect();
        assert!(open.iter().all(|path| !path.starts_with("/etc")), "{options:?}: {open:?}");
        drop(slirp);
        world.guest.script("! ip link show tap0 2>/dev/null || ip link del tap0");
    }
}
