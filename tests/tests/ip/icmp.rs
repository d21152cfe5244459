//! ICMP echo from the guest: virtual addresses, remotes, and an ordinary user's ping sockets.

use slirp_tests::*;

fn ping(world: &World, address: &str, extra: &[&str]) -> Output {
    let mut argv = vec!["ping", "-n", "-c", "2", "-i", "0.2", "-W", "20"];
    argv.extend(extra);
    argv.push(address);
    world.guest.exec(&argv)
}

fn assert_answered(world: &World, address: &str, extra: &[&str]) {
    let output = ping(world, address, extra);
    assert!(output.stdout.contains("2 received"), "{address}: {}{}", output.stdout, output.stderr);
    assert!(!output.stdout.contains("DUP!"), "{address}: {}", output.stdout);
}

#[test]
fn gateway_and_nameserver_answer() {
    let world = needs!(World::ordinary()).online(&["--disable-host-loopback"]);
    assert_answered(&world, "10.0.2.2", &[]);
    assert_answered(&world, "10.0.2.3", &[]);
    assert_answered(&world, "10.0.2.2", &["-s", "1400"]);
    assert_answered(&world, "10.0.2.2", &["-s", "8000"]);
}

#[test]
fn nobody_else_answers_on_the_virtual_network() {
    let world = needs!(World::root()).online(&[]);
    let output = world.guest.exec(&["ping", "-n", "-c", "1", "-W", "1", "10.0.2.50"]);
    assert!(!output.status.success(), "{}", output.stdout);
}

#[test]
fn remote_answers_root() {
    let world = needs!(World::root());
    world.let_root_ping();
    let world = world.online(&[]);
    assert_answered(&world, "203.0.113.10", &[]);
    assert_answered(&world, "198.51.100.2", &["-s", "1400"]);
}

#[test]
fn remote_answers_an_ordinary_user_with_ping_sockets() {
    let world = needs!(World::ordinary());
    world.host.script("echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range");
    let world = world.online(&[]);
    assert_answered(&world, "203.0.113.10", &[]);
    assert_answered(&world, "198.51.100.2", &[]);
}

#[test]
fn two_pings_at_once_get_their_own_answers() {
    let world = needs!(World::ordinary());
    world.host.script("echo '0 2147483647' > /proc/sys/net/ipv4/ping_group_range");
    let world = world.online(&[]);
    let other =
        world.guest.spawn(&["ping", "-n", "-c", "3", "-i", "0.2", "-W", "20", "203.0.113.10"]);
    assert_answered(&world, "203.0.113.10", &[]);
    let output = other.finish();
    assert!(output.stdout.contains("3 received"), "{}", output.stdout);
}

#[test]
fn lack_of_ping_sockets_costs_an_ordinary_user_pings_of_remotes_only() {
    let world = needs!(World::ordinary());
    world.host.script("echo '1 0' > /proc/sys/net/ipv4/ping_group_range");
    let world = world.online(&[]);
    let output = ping(&world, "203.0.113.10", &["-W", "1"]);
    assert!(!output.status.success(), "{}", output.stdout);
    assert_answered(&world, "10.0.2.2", &[]);
    let server = TcpServer::echo(&world.remote, (FAR, 0).into());
    connect(&world.guest, server.address()).expect("TCP still works");
    assert!(world.slirp.facts().is_alive());
}
